"""What becomes of damaged photographs on the DALI graph, and are they named as on the CPU?

1. Through the loader: bytes of some samples in a copy of the shards are flipped; `dali` must give
   the batches of `native`, the bad samples replaced and counted.
2. Through the renderer, past the CRC: each kind of damage in one of 16 photographs. The healthy 15
   must come out right whatever DALI does. Whether DALI noticed the damage itself is recorded.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.proof.part import Place, fail, run_part
from fastload import Augment, Loader, TarDataset
from fastload.advise.examples import stored_examples
from fastload.load.device import GpuMemory, SideStream
from fastload.pixels import dali
from fastload.pixels.dali import DaliRenderer
from fastload.pixels.decode import cpu_renderer
from fastload.pixels.jpeg import Encoded
from fastload.store.index import read_index

BAD = (3, 17, 40)
COUNT = 16


def flipped(jpeg: bytearray) -> None:
    """Turn a run of bytes in the middle of the entropy-coded data."""
    middle = len(jpeg) // 2
    jpeg[middle : middle + 64] = bytes(value ^ 0x55 for value in jpeg[middle : middle + 64])


def cut(jpeg: bytearray) -> None:
    """Lose the second half, and end properly."""
    del jpeg[len(jpeg) // 2 : -2]


def no_tables(jpeg: bytearray) -> None:
    """Overwrite the Huffman tables."""
    place = jpeg.index(b"\xff\xc4")
    jpeg[place + 5 : place + 21] = bytes([255] * 16)


def restarts(jpeg: bytearray) -> None:
    """Number a restart marker wrongly."""
    place = jpeg.find(b"\xff\xd3")
    if place > 0:
        jpeg[place + 1] = 0xD6


DAMAGES: dict[str, Callable[[bytearray], None]] = {
    "flipped bytes": flipped,
    "cut": cut,
    "Huffman tables": no_tables,
    "restart numbers": restarts,
}


def through_loader(place: Place, backend: str) -> str:
    """Compare a back-end with native on shards of which some samples are damaged."""
    shards = place.out / "damaged"
    shutil.rmtree(shards, ignore_errors=True)
    shutil.copytree(place.shards, shards)
    samples, sizes = TarDataset(shards, "train"), read_index(shards, "train")["size"]
    for row in BAD:
        shard, _, offset = samples.locate(row)
        with (shards / shard).open("r+b") as tar:
            tar.seek(offset + int(sizes[row]) // 2)
            tar.write(b"\x00\x11\x22\x33\x44\x55")
    options: dict[str, Any] = {
        "batch_size": 32,
        "augment": Augment.train(128),
        "max_corrupt_fraction": 0.5,
    }
    apart, bad = 0.0, []
    with (
        Loader(shards, backend="native", **options) as reference,
        Loader(shards, backend=backend, device=place.device, **options) as loader,
    ):
        for (images, labels), (others, targets) in zip(loader, reference, strict=True):
            if not torch.equal(labels.cpu(), targets):
                fail("through the loader the labels differ")
            difference = (images.cpu().float() - others.float()).abs().mean((1, 2, 3))
            apart = max(apart, float(difference.max()))
        bad = [loader.stats().bad_samples, reference.stats().bad_samples]
    if apart > 1 or bad[0] != bad[1] or bad[0] < len(BAD):
        fail(f"through the loader: {apart:.2f} greys apart, bad samples {bad}")
    return f"{bad[0]} bad samples replaced as on the CPU"


def through_renderer(place: Place) -> list[dict[str, Any]]:
    """Each kind of damage, past the CRC."""
    examples = stored_examples(place.shards)
    jpegs = (list(examples.jpegs) * 2)[:COUNT]
    boxes = np.concatenate([examples.boxes] * 2)[:COUNT]
    boxes[5] = (0, 0, int(boxes[5, 0] + boxes[5, 2]), int(boxes[5, 1] + boxes[5, 3]))
    flips = np.zeros(COUNT, np.bool_)
    memory = None if place.dry else GpuMemory(SideStream(place.device))
    rows = []
    for name, damage in DAMAGES.items():
        batch = list(jpegs)
        spoiled = bytearray(batch[5])
        damage(spoiled)
        batch[5] = bytes(spoiled)
        encoded = Encoded.join(batch)
        expected = np.zeros((COUNT, 128, 128, 3), np.uint8)
        failures = cpu_renderer("libjpeg").render(encoded, boxes, flips, expected)
        renderer = DaliRenderer(memory=memory)
        shape = expected.shape
        out: Any = memory.take(shape) if memory else np.zeros(shape, np.uint8)
        found = renderer.render(encoded, boxes, flips, out)
        pixels: NDArray[np.uint8] = out.cpu().numpy() if memory else out
        apart = np.abs(pixels.astype(np.int16) - expected).mean((1, 2, 3))
        healthy = np.delete(apart, 5)
        rows.append(
            {
                "benchmark": "gpu-damage",
                "name": name,
                "device": place.device.type,
                "noticed_by_cpu": sorted(failures) == [5],
                "noticed": sorted(found) == [5],
                "rebuilds": renderer.rebuilds,
                "fallbacks": renderer.fallbacks,
                "healthy_worst_mean_difference": float(healthy.max()),
                "damaged_mean_difference": float(apart[5]),
            }
        )
        print(rows[-1], flush=True)
        renderer.close()
    return rows


def body(place: Place) -> str:
    """Damage through the loader, then past the CRC."""
    reason = dali.why_unavailable(device=None if place.dry else 0)
    said = through_loader(place, "libjpeg" if reason else "dali-cpu" if place.dry else "dali")
    if reason:
        return f"{said}; the graph itself was not tried: {reason}"
    rows = through_renderer(place)
    place.keep(rows)
    wrong = [row["name"] for row in rows if row["healthy_worst_mean_difference"] > 1]
    if wrong:
        fail(f"healthy photographs beside damaged ones are wrong: {', '.join(wrong)}")
    silent = [row["name"] for row in rows if row["noticed_by_cpu"] and not row["noticed"]]
    return f"{said}; past the CRC DALI does not notice: {', '.join(silent) or 'nothing'}"


if __name__ == "__main__":
    run_part(body)
