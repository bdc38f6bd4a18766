"""DALI's own reader on fastload's shards: nothing of fastload runs, only its files are read.

    pip install -e '.[dali]'      # in the checkout
    python -m fastload.shard data/
    python examples/dali_native.py shards/ --split val --device cpu

The tars are plain WebDataset: KEY.jpg and KEY.cls, the label in ASCII digits of one width. Beside
each tar lies its DALI index (.idx), so that DALI starts without reading them through.

What this gives up, against `Loader(backend="dali")`: DALI shuffles within a buffer only (the shards
were shuffled once, when they were written), cannot draw rare classes more often, reads whole files
where a box would do, and one damaged image ends the epoch.
"""

# mypy: disable-error-code="attr-defined,misc,assignment,no-untyped-def"
# (DALI's type stubs leave out what its modules make at run time.)

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.base_iterator import LastBatchPolicy
from nvidia.dali.plugin.pytorch import DALIGenericIterator

MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)


@pipeline_def
def webdataset_pipeline(tars: list[Path], *, size: int, training: bool, gpu: bool):  # noqa: ANN201
    """Read, decode a random box (or the middle), resize, flip, normalise."""
    jpegs, labels = fn.readers.webdataset(
        name="samples",
        paths=[str(tar) for tar in tars],
        index_paths=[str(tar.with_suffix(".idx")) for tar in tars],
        ext=["jpg", "cls"],
        missing_component_behavior="error",
        random_shuffle=training,
        pad_last_batch=True,  # else the last batch runs on into the next epoch
    )
    decoder, device = ("mixed", "gpu") if gpu else ("cpu", "cpu")
    if training:
        images = fn.decoders.image_random_crop(
            jpegs, device=decoder, random_area=[0.08, 1.0], random_aspect_ratio=[3 / 4, 4 / 3]
        )
        images = fn.resize(images, device=device, size=[size, size], antialias=True)
        mirror = fn.random.coin_flip()
    else:
        images = fn.decoders.image(jpegs, device=decoder)
        images = fn.resize(images, device=device, resize_shorter=size * 8 // 7, antialias=True)
        mirror = 0
    images = fn.crop_mirror_normalize(
        images,
        device=device,
        crop=(size, size),
        mirror=mirror,
        mean=MEAN,
        std=STD,
        dtype=types.FLOAT,
        output_layout="CHW",
    )
    return images, labels


def read_labels(digits: torch.Tensor) -> torch.Tensor:
    """ASCII digits, uint8 [N, width], to int64 [N]."""
    powers = 10 ** torch.arange(digits.shape[1] - 1, -1, -1)
    return ((digits.cpu().long() - ord("0")) * powers).sum(1)


def batches(
    directory: Path,
    split: str,
    *,
    batch_size: int = 128,
    size: int = 224,
    device: str = "cpu",
    num_threads: int = 2,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """One epoch of a split: images float32 [N, 3, S, S] and labels int64 [N]."""
    pipeline = webdataset_pipeline(
        tars=sorted(directory.glob(f"{split}-*.tar")),
        size=size,
        training=split == "train",
        gpu=device != "cpu",
        batch_size=batch_size,
        num_threads=num_threads,
        device_id=None if device == "cpu" else torch.device(device).index or 0,
    )
    iterator = DALIGenericIterator(
        [pipeline],
        ["images", "labels"],
        reader_name="samples",
        last_batch_policy=LastBatchPolicy.PARTIAL,  # each sample once, in evaluation too
    )
    for (outputs,) in iterator:
        yield outputs["images"], read_labels(outputs["labels"])


def main() -> None:
    """Read one epoch; print what came and how fast."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    counts: dict[int, int] = {}
    started = time.perf_counter()
    for _, labels in batches(
        options.shards, options.split, batch_size=options.batch_size, device=options.device
    ):
        for label in labels.tolist():
            counts[label] = counts.get(label, 0) + 1
    seconds = time.perf_counter() - started
    images = sum(counts.values())
    print(f"{images} images of {len(counts)} classes, {images / seconds:.0f} images/s")


if __name__ == "__main__":
    main()
