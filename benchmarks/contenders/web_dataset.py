"""webdataset: tars read in sequence by DataLoader workers, a shuffle buffer of 1,000 samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import webdataset

from benchmarks.contenders.contract import Epochs, Work, write_tars
from benchmarks.contenders.crops import crop_pil, crop_tensor, decode, epochs_of

SHARDS = 8  # at least as many as workers


def prepare(images: Path, out: Path, _work: Work) -> None:
    """Tars of the files' own bytes."""
    write_tars(images, out, shards=SHARDS)


def open_loader(data: Path, work: Work) -> Epochs:
    """`work.option`: "pil" (webdataset's own decoder) or "tensor"."""
    tars = webdataset.WebDataset(
        sorted(map(str, data.glob("*.tar"))), shardshuffle=SHARDS, seed=work.seed
    ).shuffle(1000)
    if work.option == "pil":
        pil = crop_pil(work.size)
        samples = tars.decode("pil").to_tuple("jpg", "cls").map_tuple(pil, _same)
    else:
        crop = crop_tensor(work.size)
        samples = tars.to_tuple("jpg", "cls").map_tuple(lambda jpeg: crop(decode(jpeg)), int)
    batches = samples.batched(work.batch_size, partial=False)
    return epochs_of(batches, work, batch_size=None)


def _same(value: Any) -> Any:
    return value
