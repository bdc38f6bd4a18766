"""What can go wrong with data, and how a command says it.

    FastloadError
    ├── ImageError                  one encoded image
    │   ├── CorruptImageError       its bytes are damaged or incomplete
    │   └── UnsupportedImageError   sound, perhaps, but not of a kind this decoder takes
    ├── ShardError                  a shard, index or manifest is missing, damaged or was replaced
    ├── TooManyCorruptError         more bad samples than `max_corrupt_fraction` allows
    ├── LayoutError                 a source folder is not laid out as class folders
    ├── OutputError                 the output cannot be written, or belongs to something else
    ├── StateMismatchError          a saved position does not fit this data, seed or these options
    ├── BackendUnavailableError     a back-end asked for by name cannot run here
    └── StalledError                a wait reached its time limit

A wrong argument is a `ValueError` or `TypeError`, never one of these. A message has three parts:
what was found, what was expected, what to do.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable


class FastloadError(Exception):
    """Any error about data or environment that fastload explains in one sentence."""


class ImageError(FastloadError):
    """One encoded image cannot be used.

    Args:
        reason: What was found, without the image's name, so that reasons can be counted.
        name: Path or key of the image, where it is known.
    """

    def __init__(self, reason: str, *, name: str = "") -> None:
        super().__init__(f"{name}: {reason}" if name else reason)
        self.reason = reason
        self.name = name


class CorruptImageError(ImageError):
    """The bytes of an image are damaged or incomplete."""


class UnsupportedImageError(ImageError):
    """The image is of a kind that the decoder asked does not take."""


class ShardError(FastloadError):
    """A shard, its index or its manifest is missing, damaged or was replaced.

    Args:
        reason: What was found, what was expected, what to do.
        shard: File name of the shard.
        key: Key of the sample, where one is concerned.
        offset: Byte offset within the shard, where one is concerned.
    """

    def __init__(
        self, reason: str, *, shard: str = "", key: str = "", offset: int | None = None
    ) -> None:
        place = shard
        if key:
            place += f", sample {key}"
        if offset is not None:
            place += f", offset {offset}"
        super().__init__(f"{place}: {reason}" if place else reason)
        self.reason = reason
        self.shard = shard
        self.key = key
        self.offset = offset


class TooManyCorruptError(FastloadError):
    """More samples failed than `max_corrupt_fraction` allows."""


class LayoutError(FastloadError):
    """A source folder does not hold images in class folders."""


class OutputError(FastloadError):
    """The output cannot be written, or belongs to something else."""


class StateMismatchError(FastloadError):
    """A saved position does not fit this data set, seed or these options."""


class BackendUnavailableError(FastloadError):
    """A back-end that was asked for by name cannot run on this machine."""


class StalledError(FastloadError):
    """A wait reached its time limit; the message says who was waited for."""


_SYSTEM_REASONS = {
    errno.ENOSPC: "no space is left on the device; free some, or choose another place",
    errno.EDQUOT: "the disk quota is used up; free some, or choose another place",
    errno.EACCES: "permission was denied; change the permissions, or choose another place",
    errno.EPERM: "the operation is not permitted; choose another place",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
}


def explain_os_error(error: OSError) -> str:
    """One sentence for an operating-system error: the path, what was found, what to do."""
    reason = _SYSTEM_REASONS.get(error.errno or 0, error.strerror or str(error))
    return f"{error.filename}: {reason}" if error.filename else reason


def run_command(name: str, body: Callable[[], int]) -> int:
    """Run the body of a command; turn an explained error into one sentence and an exit status.

    Args:
        name: The command as the user typed it, such as "fastload.shard".
        body: Does the work and returns the exit status.

    Returns:
        The body's status; 1 after an explained error, 130 after Ctrl-C, 0 where a pipe was closed.
    """
    try:
        return body()
    except KeyboardInterrupt:
        print(f"\n{name}: stopped by Ctrl-C", file=sys.stderr)  # noqa: T201  a command's own words
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough: `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"{name}: {explain_os_error(error)}", file=sys.stderr)  # noqa: T201
        return 1
    except FastloadError as error:
        print(f"{name}: {error}", file=sys.stderr)  # noqa: T201
        return 1
