"""Check a shard directory: sizes, SHA-256, CRC-32, and that index and tars agree.

`python -m fastload.verify shards/` reads every byte once and says which shard is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fastload.console.command import run_command
from fastload.console.parser import CommandParser
from fastload.console.progress import Progress
from fastload.console.terminal import counted, say
from fastload.store.faults import find_faults
from fastload.store.manifest import REBUILD, read_manifest


def _run(directory: Path) -> int:
    manifest = read_manifest(directory)
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    total = sum(shard.bytes for shard in shards)
    faults = []
    with Progress(total >> 20, "MB") as progress:
        done = 0
        for size, fault in find_faults(directory, manifest):
            progress.add((done + size >> 20) - (done >> 20))
            done += size
            if fault:
                faults.append(fault)
    samples = sum(split.samples for split in manifest.splits.values())
    if faults:
        say(*faults, f"{counted(len(faults), 'fault')} in {directory}; {REBUILD}", error=True)
        return 1
    found = f"{counted(len(shards), 'shard')} and {counted(samples, 'sample')}"
    say(f"{directory}: {found} are as the manifest says")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = CommandParser(
        prog="python -m fastload.verify",
        description="Check every byte of a shard directory; exit status 1 if anything is wrong.",
    )
    parser.add_argument("directory", type=Path, help="shard directory, such as shards/")
    options = parser.read(argv)
    return run_command("fastload.verify", lambda: _run(options.directory))


if __name__ == "__main__":
    sys.exit(main())
