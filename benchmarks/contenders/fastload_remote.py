"""fastload's Loader on shards in an object store; the environment says endpoint and credentials."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.contenders.contract import Batch, Epochs, Work
from benchmarks.contenders.fastload_loader import prepare as prepare  # the same shards
from fastload import Augment, Loader


def open_loader(data: Path, work: Work) -> Epochs:
    """`work.option`: "shuffled", "sequential" or "cached" (in `data`), a space, the address."""
    how, _, address = work.option.partition(" ")
    loader = Loader(
        address,
        batch_size=work.batch_size,
        augment=Augment.train(work.size),
        order="sequential" if how == "sequential" else "shuffled",
        backend="native",
        num_threads=work.cores,
        seed=work.seed,
        cache=data if how == "cached" else None,
    )

    def epoch(number: int) -> Iterator[Batch]:
        loader.set_epoch(number)
        return iter(loader)

    return epoch
