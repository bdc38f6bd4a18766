"""What is wrong with a command line is one sentence, which names the option that was typed."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest

from fastload import clean, doctor, fetch, index, inspect, sample, shard, tune, verify
from fastload.console.parser import CommandParser, in_options, positive_number, whole_number
from train.command import parse

COMMANDS: dict[str, Callable[[Sequence[str]], object]] = {
    "fastload.clean": clean.main,
    "fastload.doctor": doctor.main,
    "fastload.fetch": fetch.main,
    "fastload.index": index.main,
    "fastload.inspect": inspect.main,
    "fastload.sample": sample.main,
    "fastload.shard": shard.main,
    "fastload.tune": tune.main,
    "fastload.verify": verify.main,
    "train/run.py": parse,
}


def refusal(capsys: pytest.CaptureFixture[str], name: str, arguments: Sequence[str]) -> str:
    """What a command says of a wrong command line, without its name."""
    with pytest.raises(SystemExit) as raised:
        COMMANDS[name](arguments)
    assert raised.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith(f"{name}: ")
    return said.err.removeprefix(f"{name}: ").rstrip("\n")


EMPTY = "must not be empty; is a variable of the shell not set?"


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("fastload.clean", "''", f"data {EMPTY}"),
        ("fastload.index", "''", f"data {EMPTY}"),
        ("fastload.inspect", "''", f"shards {EMPTY}"),
        ("fastload.sample", "''", f"folder {EMPTY}"),
        ("fastload.shard", "''", f"data {EMPTY}"),
        ("fastload.tune", "''", f"shards {EMPTY}"),
        ("fastload.verify", "''", f"directory {EMPTY}"),
        ("fastload.fetch", "s3://bucket/shards ''", f"folder {EMPTY}"),
        ("fastload.clean", "data --report=", f"--report {EMPTY}"),
        ("fastload.shard", "data --out ''", f"--out {EMPTY}"),
        ("fastload.shard", "data --min-side 0", "--min-side must be at least 1, got 0"),
        ("fastload.shard", "data --max-side 0", "--max-side must be at least --min-side, got 0"),
        ("fastload.shard", "data --quality 101", "--quality must be in [1, 100], got 101"),
        ("fastload.shard", "data --quality best", "--quality must be a whole number, got 'best'"),
        (
            "fastload.shard",
            "data --shard-size x",
            "--shard-size must be a size such as 256MB, got 'x'",
        ),
        (
            "fastload.shard",
            "data --store raw",
            "--store must be one of seekable, original, got 'raw'",
        ),
        (
            "fastload.shard",
            "data --store orginal",
            "--store must be one of seekable, original, got 'orginal'; did you mean 'original'?",
        ),
        ("fastload.clean", "data --workers 0", "--workers must be at least 1, got 0"),
        ("fastload.clean", "data --min-side", "--min-side needs a value"),
        ("fastload.clean", "data --convert=yes", "--convert takes no value, got 'yes'"),
        (
            "fastload.index",
            "data --out s3://bucket/shards",
            "--out must be a folder of this machine, got 's3://bucket/shards'",
        ),
        *(
            (
                "fastload.shard",
                f"data --out {typed}",
                f"--out must be a folder, or an address such as s3://bucket/shards, got '{typed}'",
            )
            for typed in ("s3:/bucket/x", "s3:bucket/x", "s3//bucket/x", "s3a://b/x", "file:///x")
        ),
        ("fastload.sample", "data --images 3", "--images must be at least 100, got 3"),
        ("fastload.sample", "data --seed -1", "--seed must be at least 0, got -1"),
        ("fastload.inspect", "shards --size 7", "--size must be in [16, 1024], got 7"),
        ("fastload.tune", "shards --size 0", "--size must be at least 1, got 0"),
        ("fastload.tune", "shards --seconds inf", "--seconds must be a number above 0, got 'inf'"),
        (
            "fastload.tune",
            "shards --device gpu",
            "--device must be a device such as cpu or cuda:0, got 'gpu'",
        ),
        ("fastload.doctor", "--device cpu", "--device must be a GPU such as cuda:0, got 'cpu'"),
        ("train/run.py", "--batch-size 0", "--batch-size must be at least 1, got 0"),
        ("train/run.py", "--batch-size many", "--batch-size must be a whole number, got 'many'"),
        ("train/run.py", "--threads -1", "--threads must be in [0, 1024], got -1"),
        ("train/run.py", "--lr inf", "--lr must be a finite number, got inf"),
        ("train/run.py", "--lr fast", "--lr must be a number, got 'fast'"),
        (
            "train/run.py",
            "--max-corrupt-fraction 3",
            "--max-corrupt-fraction must be in [0, 1], got 3.0",
        ),
        (
            "train/run.py",
            "--step-epochs a",
            "--step-epochs must be whole numbers such as 20,25, got 'a'",
        ),
        (
            "train/run.py",
            "--ramp-from 0.9 --ramp-to 0.1",
            "--ramp-from and --ramp-to must rise within [0, 1], got 0.9 and 0.1",
        ),
        ("train/run.py", "--name a/b", '--name must be a plain folder name, got "a/b"'),
        ("train/run.py", "--compile=yes", "--compile takes no value, got 'yes'"),
    ],
)
def test_a_wrong_value_is_said_of_the_option_that_was_typed(capsys, name, arguments, said):
    assert refusal(capsys, name, shlex.split(arguments)) == said


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        (
            "fastload.shard",
            ["--minside", "3", "data"],
            "--minside is no option; did you mean --min-side?",
        ),
        (
            "fastload.shard",
            ["data", "--min_side=3"],
            "--min_side is no option; did you mean --min-side?",
        ),
        ("fastload.shard", ["data", "-out", "s"], "-out is no option; did you mean --out?"),
        ("fastload.verify", ["--fast"], "--fast is no option; --help lists all options"),
        ("train/run.py", ["--epoch", "3"], "--epoch is no option; did you mean --epochs?"),
    ],
)
def test_an_option_that_is_none_is_answered_with_the_nearest(capsys, name, arguments, said):
    assert refusal(capsys, name, arguments) == said


def test_a_folder_that_looks_like_an_option_is_explained(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-photographs").mkdir()
    said = refusal(capsys, "fastload.clean", ["-photographs"])
    assert said == "-photographs is no option; the file of that name is ./-photographs"


ONE_WORD, SEVERAL_WORDS = (
    ("verify", "inspect", "tune", "sample"),
    ("shard", "index", "clean", "fetch"),
)


@pytest.mark.parametrize("name", [*ONE_WORD, *SEVERAL_WORDS])
def test_a_word_too_few_is_one_sentence(capsys, name):
    said = refusal(capsys, f"fastload.{name}", [])
    assert said.endswith(" is missing; --help says what is expected")


@pytest.mark.parametrize("name", ONE_WORD)
def test_a_word_too_many_is_one_sentence(capsys, name):
    said = refusal(capsys, f"fastload.{name}", ["my", "photographs"])
    assert said == "'photographs' is too much; quote a name that has spaces in it"


def test_only_names_of_arguments_become_options_and_no_value_does():
    flags = {"size": "--size", "batch_size": "--batch-size"}
    assert in_options("size must be 1, got 'batch_size'", flags) == (
        "--size must be 1, got 'batch_size'"
    )
    assert in_options("no batch of that size; lower batch_size", flags) == (
        "no batch of that size; lower --batch-size"
    )
    assert in_options("drop_last must be a bool", flags) == "drop_last must be a bool"


def test_values_are_read():
    parser = CommandParser(prog="python -m x")
    parser.add_argument("--many", type=whole_number(1, 5))
    parser.add_argument("--long", type=positive_number)
    parser.add_argument("rest", nargs="*")
    read = parser.read(["--many", "5", "--long", "0.5", "--", "--many"])
    assert (read.many, read.long, read.rest) == (5, 0.5, ["--many"])
    assert parser.read(["-3", "a -b"]).rest == ["-3", "a -b"]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_help_is_printed_in_any_encoding_and_names_every_option(capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "40")
    with pytest.raises(SystemExit) as raised:
        COMMANDS[name](["--help"])
    assert raised.value.code == 0
    said = capsys.readouterr()
    assert said.out.isascii()
    assert "usage: " in said.out
    assert said.err == ""


def test_help_into_a_closed_pipe_is_quiet():
    command = f"{shlex.quote(sys.executable)} -m train.run --help | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout.startswith("usage: ")
    assert done.stderr == ""


def test_a_name_that_begins_with_a_hyphen_is_the_value_of_an_option_that_takes_names():
    parser = CommandParser(prog="x")
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--exclude", action="append")
    parser.add_argument("--seed", type=int)
    assert parser.read(["--exclude", "-x", "--exclude", "-1", "-5"]).exclude == ["-x", "-1"]
    assert parser.read(["--exclude=-x", "--", "-y"]).folder == "-y"
    for words in (["--exclude", "-h"], ["--seed", "-x"], ["--exclude", "--exclude"], ["-x"]):
        with pytest.raises(SystemExit):
            parser.read(words)
