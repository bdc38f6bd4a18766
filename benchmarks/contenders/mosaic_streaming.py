"""MosaicML Streaming: MDS shards of the files' own bytes, torchvision's decoder."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from benchmarks.contenders.contract import Epochs, Work, list_images
from benchmarks.contenders.crops import crop_tensor, decode, epochs_of

streaming: Any = importlib.import_module("streaming")


def prepare(images: Path, out: Path, _work: Work) -> None:
    """Shards of 64 MiB (the default size), uncompressed."""
    columns = {"jpeg": "bytes", "label": "int"}
    with streaming.MDSWriter(out=str(out), columns=columns) as writer:
        for path, label in list_images(images):
            writer.write({"jpeg": path.read_bytes(), "label": label})


class Crops(streaming.StreamingDataset):  # type: ignore[misc]  # the class is known at run time only
    """Decoded and cropped in the DataLoader's worker processes."""

    def __init__(self, data: Path, work: Work) -> None:
        remote = work.option or None
        super().__init__(remote=remote, local=str(data), shuffle=True, batch_size=work.batch_size)
        # Its client has fetched the index. Forked workers that go on with the same connection get
        # each other's answers: 60 s without bytes, or wrong ones (0.13.0).
        for stream in self.streams:
            stream._downloader.clean_up()
        self.crop = crop_tensor(work.size)

    def __getitem__(self, index: Any) -> tuple[Any, int]:
        sample = super().__getitem__(index)
        return self.crop(decode(sample["jpeg"])), sample["label"]


def open_loader(data: Path, work: Work) -> Epochs:
    """`work.option`: an address whose shards go to `data`. Batches are uint8 [N, 3, S, S]."""
    # A killed run leaves shared memory behind that a later run would wait for.
    streaming.base.util.clean_stale_shared_memory()
    return epochs_of(Crops(data, work), work, drop_last=True)
