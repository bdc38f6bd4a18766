"""The same image under several names: which copies go.

Under several classes, in whatever splits: all copies go, since nobody knows which class is right.
In several splits of one class: all copies go but those of test, or of val where none is in test, so
that evaluation stays as it was published. Repeats within one class and split stay.

The rule depends on the stored bytes, the paths, the splits and the classes alone: not on the order,
nor on how many processes read the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastload.console.terminal import printable
from fastload.prepare.reasons import Reason
from fastload.prepare.source import File
from fastload.prepare.verdict import Dropped, Kept, Verdict

COPY_OF = "is also "  # before the path of another copy, in the report
_KEEP_FIRST = ("test", "val", "train")


def without_duplicates(
    examined: Sequence[tuple[File, Verdict]],
) -> list[tuple[File, Verdict]]:
    """The same files in the same order; those that are copies of others are dropped."""
    images = ((file, verdict.digest) for file, verdict in examined if isinstance(verdict, Kept))
    duplicates = find_duplicates(images)
    return [(file, duplicates.get(file.path, verdict)) for file, verdict in examined]


def find_duplicates(images: Iterable[tuple[File, str]]) -> dict[str, Dropped]:
    """Which files must go because the same image stands elsewhere.

    Args:
        images: Each file with the digest of its stored bytes.

    Returns:
        Path -> why the file goes; the reason names the other path.
    """
    copies: dict[str, list[File]] = {}
    for file, digest in images:
        copies.setdefault(digest, []).append(file)
    dropped = {}
    for files in copies.values():
        files.sort(key=lambda file: (_KEEP_FIRST.index(file.split), file.path))
        first = files[0]
        stranger = next((file for file in files if file.label != first.label), None)
        for file in files:
            if stranger is not None:
                other = stranger if file.label == first.label else first
                dropped[file.path] = Dropped(
                    Reason.TWO_CLASSES, f"{COPY_OF}{printable(other.path)}"
                )
            elif file.split != first.split:
                dropped[file.path] = Dropped(Reason.TWO_SPLITS, f"{COPY_OF}{printable(first.path)}")
    return dropped
