"""fastload's Loader on shards that `python -m fastload.shard` wrote with its defaults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.contenders.contract import Batch, Epochs, Work
from fastload import Augment, Loader, shard


def prepare(images: Path, out: Path, work: Work) -> None:
    """Cleaned, transcoded without loss, sharded and indexed; every image goes to train."""
    source = out.with_name(f"{out.name}.source")
    source.mkdir(parents=True, exist_ok=True)
    (source / "train").unlink(missing_ok=True)
    (source / "train").symlink_to(images.resolve())
    status = shard.main([str(source), "--out", str(out), "--workers", str(work.cores)])
    if status:
        raise RuntimeError(f"fastload.shard ended with status {status}")


def open_loader(data: Path, work: Work) -> Epochs:
    """`work.option`: the back-end. Batches are uint8 [N, 3, S, S], channels-last."""
    backend, _, device = work.option.partition(":")
    loader = Loader(
        data,
        batch_size=work.batch_size,
        augment=Augment.train(work.size),
        backend=backend,
        num_threads=work.cores,
        device=device or "cpu",
        seed=work.seed,
    )

    def epoch(number: int) -> Iterator[Batch]:
        loader.set_epoch(number)
        return iter(loader)

    return epoch
