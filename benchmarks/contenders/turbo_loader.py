"""TurboLoader on a tar, its fused RandomResizedCrop and flip; float32, no labels from tars."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.contenders.contract import Batch, Epochs, Work, write_tars


def prepare(images: Path, out: Path, _work: Work) -> None:
    """One tar of the files' own bytes."""
    write_tars(images, out, shards=1)


def open_loader(data: Path, work: Work) -> Epochs:
    """`work.option`: "antialiased" or "plain" resizing."""
    turboloader = importlib.import_module("turboloader")
    (tar,) = data.glob("*.tar")
    loader = turboloader.DataLoader(
        str(tar),
        batch_size=work.batch_size,
        num_workers=work.cores,
        shuffle=True,
        image_size=work.size,
        output_format="pytorch",
        drop_last=True,
        antialias=work.option == "antialiased",
        pin_memory=True,  # its ring of recycled buffers, which needs no GPU
        train_aug=True,
        seed=work.seed,
    )

    def epoch(number: int) -> Iterator[Batch]:
        loader.set_epoch(number)
        return iter(loader)

    return epoch
