"""The same image under several names: which copies go, and which are told of.

Under several classes, in whatever splits: all copies go, since nobody knows which class is right.
In several splits of one class: all copies go but those of test, or of val where none is in test, so
that evaluation stays as it was published. Repeats within one class and split stay: some
copy them on purpose, so that a class is seen more often. The report names them.

The rule depends on the stored bytes, the paths, the splits and the classes alone: not on the order,
nor on how many processes read the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fastload.console.terminal import printable
from fastload.prepare.reasons import Reason
from fastload.prepare.source import File
from fastload.prepare.verdict import Dropped, Kept, Verdict

COPY_OF = "is also "  # before the path of another copy, in the report
_KEEP_FIRST = ("test", "val", "train")


class Copies(NamedTuple):
    """Files whose image stands elsewhere, too.

    Attributes:
        dropped: Path -> why the file goes; the detail names another copy.
        repeats: Path -> the first copy in words, of files that stay although their class and split
            have the same image already.
    """

    dropped: dict[str, Dropped]
    repeats: dict[str, str]


def without_duplicates(
    examined: Sequence[tuple[File, Verdict]],
) -> tuple[list[tuple[File, Verdict]], dict[str, str]]:
    """Drop what is a copy of something else.

    Returns:
        The same files in the same order, and `Copies.repeats`.
    """
    images = ((file, verdict.digest) for file, verdict in examined if isinstance(verdict, Kept))
    dropped, repeats = find_copies(images)
    return [(file, dropped.get(file.path, verdict)) for file, verdict in examined], repeats


def find_copies(images: Iterable[tuple[File, str]]) -> Copies:
    """Which files must go because the same image stands elsewhere, and which only repeat others.

    Args:
        images: Each file with the digest of its stored bytes.
    """
    copies: dict[str, list[File]] = {}
    for file, digest in images:
        copies.setdefault(digest, []).append(file)
    found = Copies({}, {})
    for files in copies.values():
        files.sort(key=lambda file: (_KEEP_FIRST.index(file.split), file.path))
        first = files[0]
        stranger = next((file for file in files if file.label != first.label), None)
        for file in files:
            if stranger is not None:
                other = stranger if file.label == first.label else first
                found.dropped[file.path] = Dropped(Reason.TWO_CLASSES, _copy_of(other))
            elif file.split != first.split:
                found.dropped[file.path] = Dropped(Reason.TWO_SPLITS, _copy_of(first))
            elif file is not first:
                found.repeats[file.path] = _copy_of(first)
    return found


def _copy_of(file: File) -> str:
    return f"{COPY_OF}{printable(file.path)}"
