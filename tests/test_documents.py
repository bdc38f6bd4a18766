"""The documents: each block of code is run, or says that it is not; the site has each page."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
import shlex
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import torch

import fastload
from fastload.__main__ import COMMANDS
from fastload.console.shell import TRAINER
from tests.documents import BLOCKS, DOCUMENTS, ROOT, Block, check_extras, prose_of, text_of
from tests.pictures import write_tree
from tests.shards import flat_picture, numbered

SHOWN = {"text", "csv", "yaml"}  # languages of what is no program
ELSEWHERE = {
    "README.md": "tests/test_readme.py",
    "README.zh-CN.md": "tests/test_translation.py",
    "docs/answers.md": "tests/train/test_export.py",
    "docs/migrating.md": "tests/test_migrating.py",
}
"""Documents whose Python is run by a test that looks at what it does."""

# What is a command of ours within a sentence: `fastload shard data/`, `scripts/gpu`, …
OURS = (
    r"(?:python (?:-m (?:fastload|train|benchmarks)\.\w|train/)|train/(?:run|predict|export)\.py"
    r"|fastload [a-z-]|scripts/\w|pytest )"
)

PYTHON = [block for block in BLOCKS if block.language == "python"]
RUN = [block for block in PYTHON if not block.reason and block.place.split(":")[0] not in ELSEWHERE]


def test_each_block_is_run_or_says_that_it_is_not():
    assert len(BLOCKS) > 50
    for block in BLOCKS:
        known = {"python", "shell", *SHOWN}
        if block.place.split(":")[0] == "docs/migrating.md":
            known.add("diff")  # both sides are run
        assert block.language in known or block.reason, block.place
    for name, test in ELSEWHERE.items():
        assert Path(name).name in text_of(test)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the documents' data/ and shards/ are."""
    folder = tmp_path_factory.mktemp("documents")
    numbered(folder / "shards", {"train": 256, "val": 8})
    pictures = [flat_picture(number, number % 2) for number in range(128)]
    write_tree(folder, {f"data/train/{p.label}/{n}.jpg": p.jpeg for n, p in enumerate(pictures)})
    return folder


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize("block", RUN, ids=lambda block: block.place)
def test_the_python_of_the_documents_runs(block: Block, folder: Path, monkeypatch):
    monkeypatch.chdir(folder)
    public = {name: getattr(fastload, name) for name in fastload.__all__}
    program = block.text
    for written, smaller in (('"cuda"', '"cpu"'), ("range(30)", "range(1)"), ("224", "32")):
        program = program.replace(written, smaller)
    with fastload.Loader("shards", batch_size=8) as train:
        given = {"torch": torch, "epoch": 7, "train": train, "model": torch.nn.Linear(1, 1)}
        exec(compile(program, block.place, "exec"), {**public, **given})


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.place)
def test_what_the_documents_call_takes_these_arguments(block: Block):
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id not in fastload.__all__:
                continue
            names = {keyword.arg: None for keyword in node.keywords if keyword.arg}
            called = getattr(fastload, node.func.id)
            inspect.signature(called).bind(*node.args, **names)


@cache
def help_of(module: str) -> str:
    """What `--help` of a module prints."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(sys, "argv", [module, "--help"])
        with pytest.raises(SystemExit, match="0"):
            import_module(module).main()
    return said.getvalue()


def check_command(words: list[str], *, whole: bool) -> None:
    """See that a command exists, and each of its options.

    Args:
        words: The command and its arguments.
        whole: The arguments are complete, so that their values can be checked too.
    """
    if words[0] == "torchrun":
        words = words[words.index("train/run.py") :]
    program, *words = [word for word in words if word not in {"python", "-m"}]
    options = {word.partition("=")[0] for word in words if re.match(r"--\w", word)}
    if program == "fastload":
        word = words.pop(0) if words[0] in COMMANDS else "__main__"
        program = TRAINER.get(word, f"fastload.{word}")
    if whole and program.removeprefix("fastload.") in COMMANDS:
        import_module(program).command_line().read(words)
    if program == "pytest":
        known = text_of("benchmarks/conftest.py")
    elif program.startswith("scripts/"):
        known = text_of(program)
    else:
        if "timm" in program:
            pytest.importorskip("timm")
        known = help_of(program.removesuffix(".py").replace("/", "."))
    for option in options:
        assert re.search(rf"{option}(?![\w-])", known), option


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "shell"], ids=lambda block: block.place
)
def test_each_command_of_the_documents_is_one(block: Block):
    for line in block.lines:
        words = shlex.split(line)
        if words[:2] == ["pip", "install"]:
            check_extras(words[-1])
        elif words[0] != "ray":
            check_command(words, whole=True)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_each_command_within_a_sentence_is_one(path: Path):
    for command in re.findall(rf"`({OURS}[^`]*)`", prose_of(text_of(path))):
        check_command(command.split(), whole=False)


def test_the_site_shows_each_document_once():
    pages = import_module("docs.pages").pages()
    shown = re.findall(r"^ +- .*: (\S+\.md)$", text_of("mkdocs.yml"), re.MULTILINE)
    assert len(shown) == len(set(shown))
    files = {name for name in pages if not name.endswith(".md") or name.startswith("examples/")}
    assert set(shown) == set(pages) - files
    assert {f"examples/{path.name}.md" for path in ROOT.glob("examples/*.py")} <= files


def test_a_link_to_a_file_of_the_checkout_leads_to_its_page():
    pages = import_module("docs.pages").pages()
    assert "[plain_loop.py](examples/plain_loop.py.md)" in pages["examples.md"]
    assert "](changes.md)" in pages["index.md"]
    assert "](../data.md)" in pages["zh-CN/index.md"]
    assert "::: fastload.Loader\n" in pages["reference.md"]
