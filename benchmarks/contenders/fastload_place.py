"""fastload's Loader on data that nobody rewrote: a folder, or WebDataset tars, and an index."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.contenders.contract import Epochs, Work, write_tars
from benchmarks.contenders.fastload_loader import open_loader as open_shards
from fastload import index

TARS = 8


def prepare(images: Path, out: Path, work: Work) -> None:
    """`work.option`: "folder" or "tars". Indexed where they lie; every image goes to train."""
    out.mkdir(parents=True, exist_ok=True)
    if work.option == "folder":
        (out / "train").unlink(missing_ok=True)
        (out / "train").symlink_to(images.resolve())
    else:
        write_tars(images, out, shards=TARS)
    status = index.main([str(out), "--workers", str(work.cores)])
    if status:
        raise RuntimeError(f"fastload.index ended with status {status}")


def open_loader(data: Path, work: Work) -> Epochs:
    """As over shards, with the native core."""
    return open_shards(data, replace(work, option="native"))
