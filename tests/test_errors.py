"""A command explains every error in one sentence and an exit status."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from fastload.console.command import run_command
from fastload.errors import FastloadError, ImageError, SamplePlace, ShardError


def fail(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (FastloadError("found 3; expected 4"), 1, "fastload.x: found 3; expected 4\n"),
        (OSError(errno.ENOSPC, "full", "out/a.tar"), 1, "out/a.tar: no space is left"),
        (PermissionError(errno.EACCES, "no", "out"), 1, "out: permission was denied"),
        (OSError(errno.EDQUOT, "quota", "out"), 1, "out: the disk quota is used up; free some"),
        (OSError(errno.EFBIG, "large", "a"), 1, "a: the file grows beyond what the file system"),
        (OSError(errno.EROFS, "ro", "out"), 1, "out: the file system is read-only; choose another"),
        (OSError(errno.EIO, "Input/output error", "a"), 1, "a: the device failed to read or write"),
        (OSError(errno.ENOSYS, "no", "a"), 1, "a: the file system cannot do this; choose a place"),
        (OSError(errno.ENOTSUP, "no", "a"), 1, "a: the file system cannot do this; choose a place"),
        (OSError(errno.EMFILE, "many", "a"), 1, "a: this process may open no more files; raise"),
        (OSError(errno.EAGAIN, "try again"), 1, "x: the system allows no more processes"),
        (OSError(errno.ENXIO, "No such device", "a"), 1, "fastload.x: a: No such device\n"),
        (MemoryError(), 1, "fastload.x: the memory does not suffice (MemoryError); take smaller"),
        (RuntimeError("can't start new thread"), 1, "x: the system allows no more threads; take"),
        (RuntimeError("CUDA out of memory. Tried"), 1, "x: the memory does not suffice (CUDA out"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
    ],
)
def test_an_explained_error_is_one_sentence(error, status, sentence, capsys):
    assert run_command("fastload.x", lambda: fail(error)) == status
    printed = capsys.readouterr().err
    assert sentence in printed
    assert "Traceback" not in printed


def test_a_closed_pipe_is_no_error():
    program = (
        "import sys; from fastload.console.command import run_command\n"
        "from fastload.console.terminal import say\n"
        "sys.exit(run_command('x', lambda: [say(str(i)) for i in range(10**5)] and 0))"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize("error", [ZeroDivisionError(), RuntimeError("a size is wrong")])
def test_a_bug_is_not_explained_away(error):
    with pytest.raises(type(error)):
        run_command("fastload.x", lambda: fail(error))


def test_a_shard_error_names_the_place():
    place = SamplePlace("train-000001.tar", "00000012", 1536)
    error = ShardError("its CRC is wrong", where=place)
    assert str(error) == "train-000001.tar, sample 00000012, offset 1536: its CRC is wrong"
    assert (error.where, error.reason) == (place, "its CRC is wrong")
    assert str(ShardError("is missing", where="a.tar")) == "a.tar: is missing"
    assert str(ShardError("is missing")) == "is missing"


def test_an_image_error_keeps_the_reason_apart_from_the_name():
    error = ImageError("is empty", name="train/rose/1.jpg")
    assert (str(error), error.reason) == ("train/rose/1.jpg: is empty", "is empty")
