"""`fastload COMMAND` is `python -m fastload.COMMAND`, for every command that there is."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import fastload
from fastload.__main__ import COMMANDS, main, module_of
from fastload.console.command import run_command
from fastload.console.shell import TRAINER

PACKAGE = Path(fastload.__file__).parent


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as the installed script would have started it, on a wide terminal."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/fastload"])
    monkeypatch.setenv("COLUMNS", "2000")


def test_every_module_that_runs_is_a_command_and_every_command_is_such_a_module():
    runs = {
        path.stem for path in PACKAGE.rglob("*.py") if '__name__ == "__main__"' in path.read_text()
    }
    assert set(COMMANDS) - set(TRAINER) == runs - {"__main__"}
    trainer = (PACKAGE.parent / "train").glob("*.py")
    runs = {path.stem for path in trainer if '__name__ == "__main__"' in path.read_text()}
    assert {module.removeprefix("train.") for module in TRAINER.values()} == runs
    assert set(TRAINER) < set(COMMANDS)


def test_the_script_that_pip_installs_is_this_command():
    pyproject = (PACKAGE.parent / "pyproject.toml").read_text()
    assert '\n[project.scripts]\nfastload = "fastload.__main__:main"\n' in pyproject


@pytest.mark.parametrize("command", [word for word in COMMANDS if word not in TRAINER])
def test_a_command_has_the_same_help_by_both_ways(command, script, monkeypatch, capsys):
    with pytest.raises(SystemExit) as raised:
        main([command, "--help"])
    assert raised.value.code == 0
    by_script = capsys.readouterr().out
    assert by_script.startswith(f"usage: fastload {command} ")
    monkeypatch.setattr(sys, "argv", [str(PACKAGE / f"{command}.py"), "--help"])
    with pytest.raises(SystemExit):
        module_of(command).main()
    by_module = capsys.readouterr().out
    assert by_module.startswith(f"usage: python -m fastload.{command} ")
    assert by_script == by_module.replace(
        f"python -m fastload.{command} ", f"fastload {command} ", 1
    )


@pytest.mark.parametrize("command", TRAINER)
def test_the_trainer_has_the_same_help_by_both_ways(command, script, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    by_script = capsys.readouterr().out
    module = TRAINER[command].removeprefix("train.")
    monkeypatch.setattr(sys, "argv", [str(PACKAGE.parent / "train" / f"{module}.py"), "--help"])
    with pytest.raises(SystemExit, match="0"):
        module_of(command).main()
    by_module = capsys.readouterr().out
    assert by_script.startswith(f"usage: fastload {command} ")
    assert by_script == by_module.replace(f"train/{module}.py ", f"fastload {command} ", 1)


def test_a_train_py_in_the_current_folder_is_not_taken_for_the_trainer(tmp_path):
    for name in ("train.py", "run.py"):
        (tmp_path / name).write_text("raise SystemExit('the script of the user')")
    done = subprocess.run(
        [sys.executable, "-m", "fastload", "train", "--epoch", "3"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == "fastload train: --epoch is no option; did you mean --epochs?\n"


def test_before_torch_is_loaded_its_threads_are_told_to_sleep_as_by_the_script(monkeypatch):
    program = (
        "import os, sys\n"
        "from fastload.__main__ import module_of\n"
        "assert 'torch' not in sys.modules\n"
        "module_of('predict')\n"
        "print(os.environ['OMP_WAIT_POLICY'])"
    )
    for given, kept in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        environment = {**os.environ, "OMP_WAIT_POLICY": given or ""}
        if given is None:
            del environment["OMP_WAIT_POLICY"]
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == f"{kept}\n"


# Ctrl-C where NumPy would be loaded, and a library would catch it, as some that torch loads do.
INTERRUPTED = """
import os, runpy, signal, sys

class Catches:
    def find_spec(self, name, *_):
        if name == "numpy":
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except BaseException:
                print("caught")

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Catches())
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    "words",
    [
        *([TRAINER.get(command, f"fastload.{command}")] for command in COMMANDS),
        *(["fastload", command] for command in COMMANDS),
    ],
    ids=" ".join,
)
def test_ctrl_c_while_a_command_is_imported_ends_it_at_once(words):
    called = [sys.executable, "-c", INTERRUPTED, *words, "--help"]
    done = subprocess.run(called, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_when_a_command_is_imported_ctrl_c_is_an_exception_again(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["verify", "--help"])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_status_and_the_sentence_of_a_command_are_passed_on(script, tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("fastload verify: ")
    with pytest.raises(SystemExit) as raised:
        main(["verify"])
    assert raised.value.code == 2
    assert capsys.readouterr().err == (
        "fastload verify: directory is missing; --help says what is expected\n"
    )


def test_alone_it_is_an_overview(script, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([]) == 0
    overview = capsys.readouterr().out
    with pytest.raises(SystemExit) as raised:
        main(["--help"])
    assert raised.value.code == 0
    assert capsys.readouterr().out == overview
    for command, what in COMMANDS.items():
        assert re.search(rf"^ +{command} +{re.escape(what)}$", overview, re.MULTILINE), command
    path = re.findall(r"^  (\S.*?) +# ", overview, re.MULTILINE)
    assert [line.rpartition("/fastload ")[2] for line in path[:3]] == [
        "sample data/",
        "inspect data/",
        "shard data/",
    ]
    assert path[3].rpartition("/fastload ")[2] == "train --data data/"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["shrad", "data/", "--out", "x"], "'shrad'; did you mean 'shard'?"),
        (["Verify"], "'Verify'; did you mean 'verify'?"),
        (["qqq"], "'qqq'"),
    ],
)
def test_an_unknown_command_is_one_sentence(words, said, script, capsys):
    with pytest.raises(SystemExit) as raised:
        main(words)
    assert raised.value.code == 2
    assert capsys.readouterr().err == (
        f"fastload: COMMAND must be one of {', '.join(COMMANDS)}, got {said}\n"
    )


def test_a_misspelt_option_is_one_sentence(script, capsys):
    with pytest.raises(SystemExit):
        main(["--verison"])
    assert capsys.readouterr().err == (
        "fastload: --verison is no option; did you mean --version?\n"
    )


def test_it_says_its_version(script, capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fastload {fastload.__version__}\n"


@pytest.mark.parametrize(
    ("words", "light"),
    [
        ([], ("numpy", "torch", "obstore", "shtab", "train", "ssl")),
        (["verify", "--help"], ("torch", "shtab")),
    ],
)
def test_only_the_command_that_is_typed_is_imported(words, light):
    program = (
        "import atexit, runpy, sys\n"
        f"sys.argv[1:] = {words}\n"
        "atexit.register(lambda: print('\\n', *sys.modules))\n"
        "runpy.run_module('fastload', run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "fastload.console.parser" in loaded
    assert not loaded & set(light)
    assert {name for name in COMMANDS if f"fastload.{name}" in loaded} == set(words) & set(COMMANDS)


def test_ctrl_c_is_heard_again_once_a_command_runs():
    def stopped() -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return 0

    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        assert run_command("fastload", stopped) == 130
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_closed_pipe_is_no_error():
    command = f"'{sys.executable}' -m fastload | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("usage: python -m fastload COMMAND ...\n0\n", "")
