"""Check a shard directory: sizes, SHA-256, CRC-32, and that index and tars agree.

`python -m fastload.verify shards/` reads every byte once and says which shard is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastload.clean import printable_lines
from fastload.errors import ImageError, ShardError, explain_os_error, run_command
from fastload.index import REBUILD, TAR_BLOCK, Manifest, Shard, read_index, read_manifest
from fastload.jpeg import read_header
from fastload.progress import Progress
from fastload.tar import READ_BYTES, label_bytes, label_offset, next_offset, tar_header


def find_faults(directory: Path, manifest: Manifest) -> Iterator[tuple[int, str]]:
    """Check every file that the manifest lists, and look for others.

    Yields:
        (bytes checked since the last one, fault); the fault is "" where there is none, else one
        sentence that names the file.
    """
    listed = {shard.name for split in manifest.splits.values() for shard in split.shards}
    for path in sorted(directory.glob("*.tar")):
        if path.name not in listed:
            yield 0, f"{path.name}: is not in the manifest; remove it"
    for split in manifest.splits:
        try:
            samples = read_index(directory, split)
        except ShardError as error:
            yield 0, str(error)
            samples = None
        for number, shard in enumerate(manifest.splits[split].shards):
            mine = None if samples is None else samples[samples["shard"] == number]
            fault = shard_fault(directory / shard.name, shard, mine, len(manifest.classes))
            yield shard.bytes, f"{shard.name}: {fault}" if fault else ""


def shard_fault(
    path: Path, shard: Shard, samples: NDArray[np.void] | None, num_classes: int
) -> str:
    """What is wrong with one shard, the first thing found; "" if nothing is.

    Args:
        path: The tar.
        shard: What the manifest says of it.
        samples: What the index says of it, SAMPLE [N]; None where there is no index.
        num_classes: Classes of the manifest.
    """
    try:
        size = path.stat().st_size
        if size != shard.bytes:
            return f"has {size:,} bytes, the manifest says {shard.bytes:,}"
        with path.open("rb") as file:
            fault = "" if samples is None else _samples_fault(file, shard, samples, num_classes)
            file.seek(0)
            digest = hashlib.sha256()
            while block := file.read(READ_BYTES):
                digest.update(block)
    except OSError as error:
        return explain_os_error(error)
    if not fault and digest.hexdigest() != shard.sha256:
        return "has another SHA-256 than the manifest says"
    return fault


def _samples_fault(
    file: BinaryIO, shard: Shard, samples: NDArray[np.void], num_classes: int
) -> str:
    if len(samples) != shard.samples:
        return f"index lists {len(samples):,} samples, the manifest says {shard.samples:,}"
    expected = TAR_BLOCK
    for sample in samples:
        offset, size = int(sample["offset"]), int(sample["size"])
        if offset != expected:
            return f"index says a sample begins at {offset}, the tar's next lies at {expected}"
        file.seek(offset - TAR_BLOCK)
        block = file.read(next_offset(offset, size) - offset)
        fault = _sample_fault(block, sample, num_classes)
        if fault:
            key = block[: block.find(b".")].decode("ascii", "replace")
            return f"sample {key}, offset {offset}: {fault}"
        expected = next_offset(offset, size)
    file.seek(expected - TAR_BLOCK)
    rest = file.read()
    if len(rest) < 2 * TAR_BLOCK or rest.strip(b"\0"):
        return "holds more than its index lists, or does not end as a tar does"
    return ""


def _sample_fault(block: bytes, sample: NDArray[np.void], num_classes: int) -> str:
    """`block` runs from the header of KEY.jpg to the end of KEY.cls."""
    size = int(sample["size"])
    key = block[: block.find(b".")].decode("ascii", "replace")
    label = label_bytes(int(sample["label"]), num_classes)
    if block[:TAR_BLOCK] != tar_header(f"{key}.jpg", size):
        return f"no header of a JPEG of {size} bytes stands before it"
    jpeg = block[TAR_BLOCK : TAR_BLOCK + size]
    if zlib.crc32(jpeg) != int(sample["crc32"]):
        return "has another CRC-32 than the index says"
    behind = label_offset(TAR_BLOCK, size)
    header = block[behind - TAR_BLOCK : behind]
    found = block[behind : behind + len(label)]
    if header != tar_header(f"{key}.cls", len(label)) or found != label:
        return f"its label in the tar is not {int(sample['label'])}, as the index says"
    try:
        facts = read_header(jpeg)
    except ImageError as error:
        return error.reason
    if (facts.height, facts.width) != (int(sample["height"]), int(sample["width"])):
        return f"is {facts.height} x {facts.width} pixels, the index says otherwise"
    return ""


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
        lines = [*faults, f"{len(faults)} faults in {directory}; {REBUILD}"]
        print(printable_lines(lines), file=sys.stderr)  # noqa: T201  a command's own words
        return 1
    print(  # noqa: T201
        f"{directory}: {len(shards):,} shards and {samples:,} samples are as the manifest says"
    )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fastload.verify",
        description="Check every byte of a shard directory; exit status 1 if anything is wrong.",
    )
    parser.add_argument("directory", type=Path, help="shard directory, such as shards/")
    options = parser.parse_args(argv)
    return run_command("fastload.verify", lambda: _run(options.directory))


if __name__ == "__main__":
    sys.exit(main())
