"""What can go wrong with data, and where: the tree of errors.

    FastloadError
    ├── ImageError                  one encoded image
    │   ├── CorruptImageError       its bytes are damaged or incomplete
    │   └── UnsupportedImageError   its kind is none that this decoder takes
    ├── ShardError                  a shard, index or manifest is missing, damaged or replaced
    ├── TooManyCorruptError         more bad samples than `max_corrupt_fraction` allows
    ├── LayoutError                 a source folder is not laid out as class folders
    ├── OutputError                 the output cannot be written, or belongs to something else
    ├── StateMismatchError          a saved position does not fit this data, seed or these options
    ├── BackendUnavailableError     a back-end asked for by name cannot run here
    ├── ResourceError               the system has not the memory or threads that it takes
    └── StalledError                a wait reached its time limit

A wrong argument is a `ValueError` or `TypeError`, never one of these. A message has three parts:
what was found, what was expected, what to do.
"""

from __future__ import annotations

from typing import NamedTuple


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
    """The image is of a kind that this decoder does not take; it may be sound."""


class SamplePlace(NamedTuple):
    """Where a sample is stored. `str` puts the place in words, as every message says it.

    Attributes:
        shard: File name of the shard; of data in place the path of the file.
        key: Key of the sample within the shard; that path again where the file is the image.
        offset: Byte offset of the sample's image within the file.
    """

    shard: str
    key: str
    offset: int

    def __str__(self) -> str:
        if self.key == self.shard:
            return self.shard
        return f"{self.shard}, sample {self.key}, offset {self.offset}"


class ShardError(FastloadError):
    """A shard, its index or its manifest is missing, damaged or was replaced.

    Args:
        reason: What was found, what was expected, what to do.
        where: The file or folder that is concerned, or the place of the one sample.
    """

    def __init__(self, reason: str, *, where: str | SamplePlace = "") -> None:
        super().__init__(f"{where}: {reason}" if where else reason)
        self.reason = reason
        self.where = where


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


class ResourceError(FastloadError):
    """The system has not the memory or the threads that it takes."""


class StalledError(FastloadError):
    """A wait reached its time limit; the message says what each thread was doing."""


def first_line(error: BaseException) -> str:
    """The first line of another library's message, at most 120 characters; never empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


def shortage_of(error: MemoryError | RuntimeError) -> str:
    """What the system ran out of, in one sentence; "" where the error says nothing of the kind."""
    text = first_line(error)
    words = text.lower()
    if isinstance(error, MemoryError) or any(
        phrase in words for phrase in ("allocate memory", "not enough memory", "out of memory")
    ):
        return f"the memory does not suffice ({text}); take smaller batches, or fewer workers"
    if "start new thread" in words:
        return "the system allows no more threads; take fewer, or raise `ulimit -u`"
    return ""
