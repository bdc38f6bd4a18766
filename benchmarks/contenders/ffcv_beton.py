"""FFCV: one .beton file of re-encoded JPEGs, cropped and resized by OpenCV's INTER_AREA."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.contenders.contract import Batch, Epochs, Work, list_images

QUALITIES = range(60, 100, 5)  # FFCV cannot store a file's own bytes
TRIED = 64  # images whose sizes choose the quality


class Photographs:
    """Images and labels by number, as FFCV's writer wants them."""

    def __init__(self, images: Path) -> None:
        self.listed = list_images(images)

    def __len__(self) -> int:
        return len(self.listed)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        path, label = self.listed[number]
        return Image.open(path).convert("RGB"), label


def prepare(images: Path, out: Path, work: Work) -> None:
    """One file; every image is encoded again, at the quality that comes nearest to its bytes."""
    fields = importlib.import_module("ffcv.fields")
    writer = importlib.import_module("ffcv.writer")
    out.mkdir(parents=True, exist_ok=True)
    columns = {
        "image": fields.RGBImageField(write_mode="jpg", jpeg_quality=nearest_quality(images)),
        "label": fields.IntField(),
    }
    file = writer.DatasetWriter(str(out / "train.beton"), columns, num_workers=work.cores)
    file.from_indexed_dataset(Photographs(images))


def nearest_quality(images: Path) -> int:
    """The JPEG quality at which some of the images take the bytes that their files take."""
    paths = [path for path, _ in list_images(images)[:TRIED]]
    wanted = sum(path.stat().st_size for path in paths)
    sizes = {}
    for quality in QUALITIES:
        sizes[quality] = 0
        for path in paths:
            encoded = io.BytesIO()
            Image.open(path).convert("RGB").save(encoded, "JPEG", quality=quality)
            sizes[quality] += len(encoded.getvalue())
    return min(sizes, key=lambda quality: abs(sizes[quality] - wanted))


def open_loader(data: Path, work: Work) -> Epochs:
    """Batches are uint8 [N, 3, S, S]."""
    module = importlib.import_module("ffcv.loader")
    decoders = importlib.import_module("ffcv.fields.decoders")
    transforms = importlib.import_module("ffcv.transforms")
    loader = module.Loader(
        str(data / "train.beton"),
        batch_size=work.batch_size,
        num_workers=work.cores,
        order=module.OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        seed=work.seed,
        pipelines={
            "image": [
                decoders.RandomResizedCropRGBImageDecoder((work.size, work.size)),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.ToTorchImage(convert_back_int16=False),
            ],
            "label": [decoders.IntDecoder(), transforms.ToTensor()],
        },
    )

    def epoch(_number: int) -> Iterator[Batch]:
        return iter(loader)

    return epoch
