"""The commands that are printed are commands that a shell runs as they are."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fastload.console import shell
from fastload.console.shell import module_command, program, shell_word, trainer_command
from fastload.console.terminal import say
from fastload.installation import PACKAGE, Origin, python_name
from tests.pictures import flower_tree

ROOT = Path(__file__).parents[2]
NAMES = [
    "photographs",
    'it\'s a "test" $HOME',
    "$(touch gone) `touch gone`; & | > < * ? [a] {b} ~ # !x \\",
    "~",
    "-photographs",
    " ",
    "Rosé 薔薇",
    "two\nlines\ttab \x1b[31m 7",
    "it's\x07",
    os.fsdecode(b"Ros\xe9 1"),
]


def as_printed(word: Path, monkeypatch: pytest.MonkeyPatch, encoding: str) -> str:
    """The word, as it comes out of a terminal of this encoding."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        say(shell_word(word))
    assert isinstance(out.buffer, io.BytesIO)
    return out.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_shell_takes_a_printed_name_for_the_file(name, encoding, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).touch()
    printed = as_printed(Path(name), monkeypatch, encoding)
    assert printed.count("\n") == 1
    tell = (
        "import os, sys; print(*map(os.path.samefile, sys.argv[1:2], os.listdir()), len(sys.argv))"
    )
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(tell)} {printed}"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONUTF8": "1", "HOME": "/nowhere"},
    )
    assert done.stdout == "True 2\n", (printed, done)
    assert len(list(tmp_path.iterdir())) == 1


def test_an_ordinary_word_stays_as_it_is():
    assert shell_word(Path("data/photographs-2")) == "data/photographs-2"
    assert shell_word("--loader") == "--loader"


def test_the_trainer_is_named_from_where_the_user_is(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert trainer_command("--check").endswith(" train/run.py --check")
    monkeypatch.chdir(tmp_path)
    assert trainer_command().endswith(f" {shlex.quote(str(ROOT / 'train' / 'run.py'))}")
    monkeypatch.setattr(shell, "find_origin", lambda: Origin(None))
    assert trainer_command("--check").endswith(" -m train.run --check")
    (tmp_path / "train").mkdir()  # with photographs: no package
    assert trainer_command("--check").endswith(" -m train.run --check")
    (tmp_path / "train.py").touch()
    assert trainer_command().endswith(f" {shlex.quote(str(ROOT / 'train' / 'run.py'))}")


def test_python_is_called_as_the_shell_finds_it(tmp_path, monkeypatch):
    python = tmp_path / "an environment" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert python_name() == str(python)
    assert module_command("fastload.shard", "a b") == f"'{python}' -m fastload.shard 'a b'"
    monkeypatch.chdir(tmp_path)
    assert python_name() == "an environment/bin/python"
    monkeypatch.setenv("PATH", str(python.parent))
    assert python_name() == "python"


@pytest.mark.parametrize(
    ("started", "shown", "typed"),
    [
        ("/a b/bin/fastload", "fastload shard", "'/a b/bin/fastload' shard"),
        ("bin/fastload", "fastload shard", "bin/fastload shard"),
        (str(PACKAGE / "__main__.py"), "python -m fastload shard", "{} -m fastload shard"),
        (str(PACKAGE / "verify.py"), "python -m fastload.shard", "{} -m fastload.shard"),
        ("train.py", "python -m fastload.shard", "{} -m fastload.shard"),
        ("-c", "python -m fastload.shard", "{} -m fastload.shard"),
        (None, "python -m fastload.shard", "{} -m fastload.shard"),
    ],
)
def test_a_command_is_called_as_the_user_called_the_one_that_runs(
    started, shown, typed, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [] if started is None else [started, "data"])
    assert program("fastload.shard") == shown
    python = shlex.quote(python_name())
    assert module_command("fastload.shard", "a b") == f"{typed.format(python)} 'a b'"


def test_the_script_is_called_as_the_shell_finds_it(tmp_path, monkeypatch):
    script = tmp_path / "bin" / "fastload"
    script.parent.mkdir()
    script.write_text("")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert module_command("fastload.shard") == f"{script} shard"
    monkeypatch.setenv("PATH", str(script.parent))
    assert module_command("fastload.shard") == "fastload shard"


def next_command(printed: str) -> str:
    (line,) = re.findall(r"^next:? +(.*)$", printed, re.MULTILINE)
    return str(line)


@pytest.mark.slow
def test_what_is_printed_to_do_next_leads_from_a_folder_to_a_trained_model(tmp_path):
    """With blanks, quotes and a dollar in every name, and from a folder that is no checkout."""
    name = 'it\'s a "test" $HOME'
    home = tmp_path / name
    flower_tree(home / name)

    def type_in(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=home,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    cleaned = type_in(f"{shlex.quote(sys.executable)} -m fastload.clean {shlex.quote(name)}")
    out = "--min-side 1 --out " + shlex.quote(f"shards of {name}")
    sharded = type_in(f"{next_command(cleaned)} {out}")
    train = next_command(sharded)
    assert " --loader dali " in train
    small = "--model shufflenet_v2_x0_5 --init scratch --size 32 --batch-size 4 --epochs 1"
    assert "best epoch 1 of 1" in type_in(f"{train} {small} --device cpu --no-report")
