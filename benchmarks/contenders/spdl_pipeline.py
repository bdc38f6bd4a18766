"""SPDL: threads that decode, crop and resize with FFmpeg, whose filter widens when shrinking."""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders.boxes import random_resized_box
from benchmarks.contenders.contract import Batch, Epochs, Work, list_images

io: Any = importlib.import_module("spdl.io")
pipeline: Any = importlib.import_module("spdl.pipeline")


def prepare(_images: Path, out: Path, _work: Work) -> None:
    """Nothing: it reads the image folder itself."""
    out.mkdir(parents=True, exist_ok=True)


def open_loader(data: Path, work: Work) -> Epochs:
    """Batches are uint8 [N, S, S, 3]."""
    listed = list_images(data)

    def decode(item: tuple[Path, int]) -> tuple[Any, int]:
        packets = io.demux_image(item[0].read_bytes())
        draws = np.random.default_rng().random(23)
        top, left, height, width = random_resized_box(packets.height, packets.width, draws)
        filters = [
            f"crop=w={width}:h={height}:x={left}:y={top}:exact=1",
            f"scale=w={work.size}:h={work.size}:flags=bilinear",
            *(["hflip"] if draws[22] < 0.5 else []),
            "format=pix_fmts=rgb24",
        ]
        return io.decode_packets(packets, filter_desc=",".join(filters)), item[1]

    def batch(samples: list[tuple[Any, int]]) -> Batch:
        frames, labels = zip(*samples, strict=True)
        return io.to_numpy(io.convert_frames(list(frames))), np.array(labels)

    def epoch(number: int) -> Iterator[Batch]:
        order = list(listed)
        random.Random(number).shuffle(order)
        built = (
            pipeline.PipelineBuilder()
            .add_source(order)
            .pipe(decode, concurrency=work.cores)
            .aggregate(work.batch_size, drop_last=True)
            .pipe(batch)
            .add_sink(4)
            .build(num_threads=work.cores + 1)
        )
        with built.auto_stop():
            yield from built.get_iterator(timeout=60)

    return epoch
