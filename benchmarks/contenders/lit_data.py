"""LitData: chunks of the files' own bytes, its streaming loader, torchvision's decoder."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.contenders.contract import Batch, Epochs, Work, list_images
from benchmarks.contenders.crops import crop_tensor, decode

os.environ.setdefault("DISABLE_VERSION_CHECK", "1")
litdata: Any = importlib.import_module("litdata")

ACCESS = {
    option: os.environ[variable]
    for option, variable in (
        ("endpoint_url", "AWS_ENDPOINT_URL"),
        ("aws_access_key_id", "AWS_ACCESS_KEY_ID"),
        ("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY"),
        ("region_name", "AWS_REGION"),
    )
    if variable in os.environ
}
"""Where the object store is, as LitData's clients are told."""
# It fetches chunks with obstore where that is installed, and 0.2.76 has no option for http://.
_downloader: Any = importlib.import_module("litdata.streaming.downloader")
getattr(_downloader, "_OBSTORE_CLIENT_OPTIONS", {})["allow_http"] = "true"


def _sample(item: tuple[str, int]) -> dict[str, Any]:
    return {"jpeg": Path(item[0]).read_bytes(), "label": item[1]}


def prepare(images: Path, out: Path, work: Work) -> None:
    """Chunks of 64 MB."""
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        # It empties its cache folders first: by default /tmp/data and /tmp/chunks, which may be
        # in use.
        os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = f"{folder}/chunks"
        os.environ["DATA_OPTIMIZER_DATA_CACHE_FOLDER"] = f"{folder}/data"
        litdata.optimize(
            fn=_sample,
            inputs=[(str(path), label) for path, label in list_images(images)],
            output_dir=str(out),
            chunk_bytes="64MB",
            num_workers=work.cores,
        )


class Crops(litdata.StreamingDataset):  # type: ignore[misc]  # the class is known at run time only
    """Decoded and cropped in the loader's worker processes."""

    def __init__(self, data: Path, work: Work) -> None:
        where: dict[str, Any] = {"input_dir": str(data)}
        if work.option:
            where = {"input_dir": work.option, "cache_dir": str(data), "storage_options": ACCESS}
        super().__init__(**where, shuffle=True, drop_last=True, seed=work.seed)
        self.crop = crop_tensor(work.size)

    def __getitem__(self, index: Any) -> tuple[Any, int]:
        sample = super().__getitem__(index)
        return self.crop(decode(sample["jpeg"])), sample["label"]


def open_loader(data: Path, work: Work) -> Epochs:
    """`work.option`: an address whose chunks go to `data`. Batches are uint8 [N, 3, S, S]."""
    loader = litdata.StreamingDataLoader(
        Crops(data, work),
        batch_size=work.batch_size,
        num_workers=work.cores,
        prefetch_factor=4,
        persistent_workers=True,
        drop_last=True,
    )

    def epoch(_number: int) -> Iterator[Batch]:
        return iter(loader)

    return epoch
