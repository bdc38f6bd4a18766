"""Does every back-end give the GPU the CPU's batches, of photographs, in every dtype?

Training views and evaluation views of shards, and training views of the photographs in place, whose
regions are cut out by their seek tables.

Reference: libjpeg-turbo with torch's antialiased resize on the CPU, uint8. Labels must be equal,
pixels within one grey on average over each image: normalised ones are brought back to greys first.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import Row
from benchmarks.proof.part import Place, fail, run_part
from fastload import Augment, Loader
from fastload.errors import BackendUnavailableError
from fastload.load.augment import IMAGENET_MEAN, IMAGENET_STD
from fastload.load.backend import BackendName

ALLOWED = 1.0  # greys of 255, mean of an image
BATCHES, BATCH_SIZE = 3, 64
DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)
BACKENDS = tuple(name.value for name in BackendName)
PLANS = {"train": Augment.train(224), "val": Augment.eval(224)}


def batches(
    data: Path, split: str, backend: str, device: torch.device, dtype: torch.dtype
) -> list[tuple[Tensor, Tensor]]:
    """The first batches, on the CPU."""
    with Loader(
        data,
        split=split,
        batch_size=BATCH_SIZE,
        augment=PLANS[split],
        backend=backend,
        device=device,
        dtype=dtype,
        num_threads=4,
    ) as loader:
        if loader.backend != backend:
            raise BackendUnavailableError(loader.backend_reason)
        return [(images.cpu(), labels.cpu()) for images, labels in islice(loader, BATCHES)]


def greys(images: Tensor) -> Tensor:
    """Pixels on the scale of uint8, float32."""
    if images.dtype == torch.uint8:
        return images.float()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (images.float() * std + mean) * 255


def body(place: Place) -> str:
    """Compare all combinations; report the worst image of each back-end."""
    rows: list[Row] = []
    missing = []
    asked = (
        ("shards", place.shards, "train", DTYPES),
        ("shards", place.shards, "val", DTYPES),
        ("in place", place.pictures, "train", (torch.uint8,)),
    )
    for source, data, split, dtypes in asked:
        reference = batches(data, split, "libjpeg", torch.device("cpu"), torch.uint8)
        for backend in BACKENDS:
            for dtype in dtypes:
                try:
                    found = batches(data, split, backend, place.device, dtype)
                except BackendUnavailableError as error:
                    missing.append(f"{backend}: {error}")
                    break
                apart = [
                    (greys(images) - greys(others)).abs()
                    for (images, _), (others, _) in zip(found, reference, strict=True)
                ]
                rows.append(
                    {
                        "benchmark": "gpu-parity",
                        "name": backend,
                        "data": source,
                        "split": split,
                        "device": place.device.type,
                        "dtype": str(dtype).removeprefix("torch."),
                        "images": sum(len(part) for part in apart),
                        "labels_equal": all(
                            torch.equal(labels, others)
                            for (_, labels), (_, others) in zip(found, reference, strict=True)
                        ),
                        "worst_mean_difference": max(
                            float(part.mean((1, 2, 3)).max()) for part in apart
                        ),
                        "worst_difference": max(float(part.max()) for part in apart),
                    }
                )
                place.keep(rows[-1:])
                print(rows[-1], flush=True)
    for reason in sorted(set(missing)):
        print(reason)
    wrong = [
        f"{row['name']} {row['dtype']} {row['data']} {row['split']}"
        for row in rows
        if not row["labels_equal"] or row["worst_mean_difference"] > ALLOWED
    ]
    names = sorted({row["name"] for row in rows})
    worst = {
        name: max(row["worst_mean_difference"] for row in rows if row["name"] == name)
        for name in names
    }
    figure = ", ".join(f"{name} {value:.2f}" for name, value in worst.items())
    if wrong:
        fail(f"apart: {'; '.join(wrong)} ({figure} greys at worst)")
    return f"worst image's mean difference in greys: {figure}"


if __name__ == "__main__":
    run_part(body)
