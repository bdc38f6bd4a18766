"""Copy shards from an object store: `python -m fastload.fetch s3://bucket/shards shards/`.

What is copied is verified by SHA-256. An interrupted copy goes on where it was. Where there are no
shards, the files are copied as they are, such as class folders of photographs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fastload.console.interrupt import leave_to_system

if __name__ == "__main__":
    leave_to_system()

from fastload.console.command import run_command
from fastload.console.parser import CommandParser, local_folder
from fastload.console.progress import Progress
from fastload.console.shell import module_command, program
from fastload.console.terminal import byte_size, counted, say
from fastload.errors import ShardError
from fastload.store.copying import copy_shards, plan_copy
from fastload.store.objects import MissingObjectError
from fastload.store.plain_copy import FileCopy, copy_files, plan_files
from fastload.store.remote import SCHEMES, Bucket, is_remote


def _run(address: str, folder: Path, splits: Sequence[str]) -> int:
    if not is_remote(address):
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ShardError(f"is not an address of an object store ({known})", where=address)
    bucket = Bucket(address)
    try:
        copy = plan_copy(bucket, folder, splits)
    except MissingObjectError:
        files = None if splits else plan_files(bucket, folder)
        if files is None:
            raise
        return _copy_files(files)
    done = 0
    with Progress(copy.bytes >> 20, "MB") as progress:
        for size in copy_shards(copy):
            progress.add((done + size >> 20) - (done >> 20))
            done += size
    samples = sum(copy.manifest.splits[split].samples for split in copy.splits)
    found = f"{counted(len(copy.shards), 'shard')} and {counted(samples, 'sample')}"
    say(f"{folder}: {found} are as the manifest says")
    if len(copy.splits) < len(copy.manifest.splits):
        say(f"only {', '.join(copy.splits)} was copied; run it without --split for the rest")
    else:
        say(f"next: {module_command('train.run', '--data', folder)}")
    return 0


def _copy_files(copy: FileCopy) -> int:
    say(f"no shards: {counted(copy.files, 'file')} are copied as they are", error=True)
    done = 0
    with Progress(copy.bytes >> 20, "MB") as progress:
        for size in copy_files(copy):
            progress.add((done + size >> 20) - (done >> 20))
            done += size
    say(f"{copy.folder}: {counted(copy.files, 'file')}, {byte_size(done)}")
    say(f"next: {module_command('fastload.shard', copy.folder, '--out', Path('shards'))}")
    return 0


def command_line() -> CommandParser:
    """What the command takes."""
    parser = CommandParser(
        prog=program("fastload.fetch"),
        description="Copy shards from an object store to a folder, and verify them; or photographs,"
        " as they are. Credentials and endpoint come from the environment, such as"
        " AWS_ACCESS_KEY_ID; see docs/scale.md.",
    )
    parser.add_argument("address", help="where the shards lie, such as s3://bucket/shards")
    parser.add_argument("folder", type=local_folder, help="folder to write, such as shards/")
    parser.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="NAME",
        help="copy only this split; may be given several times",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = command_line()
    options = parser.read(argv)
    return run_command(parser.name, lambda: _run(options.address, options.folder, options.split))


if __name__ == "__main__":
    sys.exit(main())
