"""A shell completes commands, options, choices and files of `fastload`, by the script it prints."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from fastload import clean, inspect, shard
from fastload.__main__ import command_line, main
from fastload.console.completion import FILES, FOLDERS, SHELLS, actions_of, completion_script
from fastload.console.parser import local_folder

needs_shtab = pytest.mark.skipif(
    find_spec("shtab") is None,
    reason="needs shtab: pip install -e '.[completion]' in the checkout",
)
PATHS = {Path, local_folder, clean.place, shard._place_to_write, inspect._page}


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `fastload --print-completion bash` prints."""
    command = [sys.executable, "-m", "fastload", "--print-completion", "bash"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    path = tmp_path_factory.mktemp("completion") / "fastload.bash"
    path.write_text(done.stdout)
    return path


@needs_shtab
@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (["sh"], {"shard"}),
        (["--v"], {"--version"}),
        (["--print-completion", ""], set(SHELLS)),
        (["shard", "--st"], {"--store", "--staging"}),
        (["shard", "--store", ""], {"seekable", "original"}),
        (["shard", "photo"], {"photographs", "photographs.csv"}),
        (["shard", "photographs", "--out", ""], {"photographs"}),
        (["clean", "photographs", "--exclude", "x", "--layout", "c"], {"classes"}),
        (["sample", "p"], {"photographs"}),
        (["inspect", "photographs", "--sheet", "s"], {"sheet.html"}),
        (["verify", "no such"], set()),
        (["tr"], {"train"}),
        (["train", "--data", "photo"], {"photographs", "photographs.csv"}),
        (["train", "--loader", "n"], {"native"}),
        (["train", "--resu"], {"--resume"}),
        (["predict", "photographs", "photographs", "s"], {"sheet.html"}),
        (["export", "photographs", "--out", "s"], {"sheet.html"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bash_completes(typed, found, script, tmp_path):
    (tmp_path / "photographs").mkdir()
    for name in ("photographs.csv", "sheet.html"):
        (tmp_path / name).touch()
    ask = (
        f"source {shlex.quote(str(script))}\n"
        f"COMP_WORDS=(fastload {shlex.join(typed)}) COMP_CWORD={len(typed)}\n"
        '"$(complete -p fastload | sed "s/.* -F \\([^ ]*\\) .*/\\1/")"\n'
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", ask], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""
    assert set(filter(None, done.stdout.split("\n"))) == found


@needs_shtab
@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_each_shell_is_printed_as_shtab_wrote_it(shell, capsys):
    assert main(["--print-completion", shell]) == 0
    whole = command_line("fastload", with_options=True)
    assert capsys.readouterr().out == f"{completion_script(whole, shell)}\n"


def test_each_argument_that_names_a_place_is_completed_as_one():
    actions = list(actions_of(command_line("fastload", with_options=True)))
    named = {action.metavar or action.dest for action in actions}
    assert named >= FOLDERS | FILES
    for action in actions:
        if action.type in PATHS or _takes_a_word(action):
            assert (action.metavar or action.dest) in FOLDERS | FILES | {"address"}, action


def _takes_a_word(action: argparse.Action) -> bool:
    return not action.option_strings and action.choices is None


def test_without_shtab_the_command_that_installs_it_is_said(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--print-completion", "bash"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.endswith("-m pip install -e '.[completion]'\n")
