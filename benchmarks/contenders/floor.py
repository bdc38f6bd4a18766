"""What is left without the loader: decoders alone, on bytes in memory, in plain threads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from benchmarks.contenders.contract import Batch, Epochs, Work
from benchmarks.contenders.fastload_loader import prepare as prepare
from fastload import Augment
from fastload.pixels import native
from fastload.pixels.jpeg import Encoded
from fastload.store.collection import open_collection
from fastload.store.reader import FileReader, Scratch

CHUNK = 16  # images that a thread takes at once


def open_loader(data: Path, work: Work) -> Epochs:
    """`work.option`: "native" (crops, as in training) or "libjpeg-turbo" (whole images)."""
    jpegs, sizes = _load(data)
    render = _native if work.option == "native" else _libjpeg
    pool = ThreadPoolExecutor(work.cores)

    def epoch(number: int) -> Iterator[Batch]:
        order = np.random.default_rng(number).permutation(len(jpegs))
        for start in range(0, len(order) - work.batch_size + 1, work.batch_size):
            positions = np.arange(start, start + work.batch_size)
            rows = order[positions]
            out = np.empty((work.batch_size, work.size, work.size, 3), np.uint8)
            choices = Augment.train(work.size).draw(0, number, positions, sizes[rows])
            chunks = [slice(first, first + CHUNK) for first in range(0, len(rows), CHUNK)]
            done = [
                pool.submit(
                    render,
                    [jpegs[row] for row in rows[chunk]],
                    choices.boxes[chunk],
                    choices.flips[chunk],
                    out[chunk],
                )
                for chunk in chunks
            ]
            for future in done:
                future.result()
            yield out, rows

    return epoch


def _load(data: Path) -> tuple[list[bytes], Any]:
    collection = open_collection([data], "train")
    index = collection.index
    encoded, bad = FileReader(collection).read(np.arange(len(index)), Scratch())
    if bad:
        raise RuntimeError(f"{len(bad)} samples of {data} are damaged")
    jpegs = [bytes(encoded[row]) for row in range(len(index))]
    return jpegs, np.stack([index["height"], index["width"]], axis=1)


def _native(jpegs: list[bytes], boxes: Any, flips: Any, out: Any) -> None:
    statuses = native.decode_boxes(Encoded.join(jpegs), boxes, flips, out)
    if statuses.any():
        raise RuntimeError(f"the native core refused: {native.reason(int(statuses.max()))}")


def _libjpeg(jpegs: list[bytes], _boxes: Any, _flips: Any, _out: Any) -> None:
    for jpeg in jpegs:
        simplejpeg.decode_jpeg(jpeg, "RGB")
