"""Check a shard directory: sizes, SHA-256, CRC-32, and that index and tars agree.

`python -m fastload.verify shards/` reads every byte once and says which shard is wrong. Of data in
place it reads every image of the index, and says which file is another. Shards in an object store
are streamed through memory: nothing is written to the disk.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastload.console.interrupt import leave_to_system

if __name__ == "__main__":
    leave_to_system()

from fastload.console.command import run_command
from fastload.console.parser import CommandParser
from fastload.console.progress import Progress
from fastload.console.shell import program
from fastload.console.terminal import counted, say
from fastload.store.collection import ShardBucket, find_data
from fastload.store.faults import find_faults, find_placed_faults
from fastload.store.manifest import REBUILD, Manifest
from fastload.store.places import PlacedData, Places
from fastload.store.remote import is_remote
from fastload.store.remote_faults import find_remote_faults


def _run(path: str) -> int:
    data = find_data(path)
    place = path if is_remote(path) else Path(path)
    if isinstance(data, PlacedData):
        total, remedy = data.places.bytes, data.remedy
        found, said = _samples(data.places), "the index"
        checked = find_placed_faults(data)
    else:
        shards = [shard for split in data.manifest.splits.values() for shard in split.shards]
        total, remedy = sum(shard.bytes for shard in shards), REBUILD
        found = f"{counted(len(shards), 'shard')} and " + _samples(data.manifest)
        said = "the manifest"
        if isinstance(data, ShardBucket):
            remedy = f"copy the shards there again, or {REBUILD}"
            checked = find_remote_faults(data.bucket, data.manifest)
        else:
            checked = find_faults(data.path, data.manifest)
    faults: list[str] = []
    try:
        _collect(checked, total, faults)
    finally:  # also where the rest cannot be read
        if faults:
            say(*faults, error=True)
    if faults:
        say(f"{counted(len(faults), 'fault')} in {place}; {remedy}", error=True)
        return 1
    say(f"{place}: {found} are as {said} says")
    return 0


def _samples(contents: Manifest | Places) -> str:
    return counted(sum(split.samples for split in contents.splits.values()), "sample")


def _collect(checked: Iterator[tuple[int, str]], total: int, faults: list[str]) -> None:
    """Append the faults of data of so many bytes as they are found."""
    done = 0
    with Progress(total >> 20, "MB") as progress:
        for size, fault in checked:
            progress.add((done + size >> 20) - (done >> 20))
            done += size
            if fault:
                faults.append(fault)


def command_line() -> CommandParser:
    """What the command takes."""
    parser = CommandParser(
        prog=program("fastload.verify"),
        description="Check every byte of a shard directory, or of indexed images where they lie; "
        "exit status 1 if anything is wrong.",
    )
    parser.add_argument(
        "directory",
        help="a shard directory, its address such as s3://bucket/shards, or indexed images: the"
        " same word as for fastload.index",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = command_line()
    options = parser.read(argv)
    return run_command(parser.name, lambda: _run(options.directory))


if __name__ == "__main__":
    sys.exit(main())
