"""How much GPU memory do a training and an evaluation loader take with DALI, and give back?

Bound: `dali.PART_BYTES` of decoded pixels for each graph and as much again for its work, for the
two loaders' three threads each. What is left after closing must be under 256 MiB.
"""

from __future__ import annotations

from itertools import islice

import torch

from benchmarks.harness import Row
from benchmarks.proof.part import Place, fail, run_part, skip
from fastload import Augment, Loader
from fastload.pixels import dali

BATCH_SIZE, BATCHES = 128, 8
LEFT_MIB = 256


def taken_mib() -> float:
    """MiB that all processes together take on the device."""
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**20


def loaders(place: Place, backend: str) -> tuple[Loader, Loader]:
    """Training and evaluation."""
    train, val = (
        Loader(
            place.shards,
            split=split,
            batch_size=BATCH_SIZE,
            augment=augment,
            backend=backend,
            device=place.device,
            dtype=torch.float16,
        )
        for split, augment in (("train", Augment.train(224)), ("val", Augment.eval(224)))
    )
    return train, val


def body(place: Place) -> str:
    """Open, run, close; three times, so that a leak shows."""
    reason = dali.why_unavailable(device=0)
    if reason:
        skip(reason)
    torch.zeros(1, device=place.device)
    rows: list[Row] = []
    for backend in ("native", "dali", "dali", "dali"):
        before = taken_mib()
        train, val = loaders(place, backend)
        if train.backend != backend:
            fail(train.backend_reason)
        for loader in (train, val):
            for _ in islice(loader, BATCHES):
                pass
        held = taken_mib() - before
        train.close()
        val.close()
        torch.cuda.empty_cache()
        left = taken_mib() - before
        rows.append(
            {
                "benchmark": "gpu-memory",
                "name": f"{backend}, train and val, batches of {BATCH_SIZE}",
                "held_mib": held,
                "left_mib": left,
            }
        )
        print(rows[-1], flush=True)
    place.keep(rows)
    figure = "; ".join(f"{row['held_mib']:.0f} MiB, {row['left_mib']:.0f} left" for row in rows)
    bound = 2 * 2 * dali.GRAPHS * dali.PART_BYTES / 2**20
    # The first graph also loads DALI's libraries and kernels, which stay.
    if any(row["held_mib"] > bound for row in rows) or rows[-1]["left_mib"] > LEFT_MIB:
        fail(figure)
    return f"native, dali three times: {figure}"


if __name__ == "__main__":
    run_part(body)
