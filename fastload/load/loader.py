"""Loader: choose a back-end; iterate, len, state_dict.

    index -> Order.epoch -> EpochPlan -> Rendering (threads) -> Device -> images, labels

One iteration is one epoch. The state of a run is the epoch and the position in it that the caller
has received. So it can be saved at any step and continued with the very next batch, on another
number of ranks too.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike, NDArray
from torch import Tensor

from fastload import world as worlds
from fastload.arguments import check_integer, check_kind
from fastload.calls import explain_calls
from fastload.cores import usable_cores
from fastload.errors import ResourceError, StalledError, StateMismatchError, shortage_of
from fastload.load import repeats
from fastload.load.apply import augment_images
from fastload.load.augment import Augment
from fastload.load.backend import Backend, choose_backend
from fastload.load.bad_samples import BadSamples
from fastload.load.dataset import TarDataset
from fastload.load.device import Sent, device_of
from fastload.load.drawing import Drawing, drawing_of
from fastload.load.order import OrderKind, describe_order
from fastload.load.per_image import Transform, check_transform, seeds_of, transform_images
from fastload.load.plan import EpochPlan
from fastload.load.policy import resolve_policy
from fastload.load.ranks import Batches
from fastload.load.rendering import Batch, Rendering
from fastload.load.rows import rows_of
from fastload.load.sampling import order_of
from fastload.load.selection import SampleTable, Select
from fastload.load.stats import DeliveryCounter, Stats
from fastload.pixels.decode import Renderer
from fastload.stages import Stages
from fastload.store.collection import Paths, listed, open_collection
from fastload.store.making import make_missing_indexes
from fastload.store.reader import Reader
from fastload.store.remote import Access
from fastload.store.remote_reader import RemoteReader, open_reader
from fastload.world import World

_log = logging.getLogger(__name__)

STATE_VERSION = 2  # 1 had an order that was made as a whole


@explain_calls(
    shuffle='write order="shuffled", which is what "train" has, or order="index"',
    num_workers="write num_threads=…, as there are threads and no processes",
    workers="write num_threads=…",
    pin_memory="leave it out, memory is pinned where device is a GPU",
    sampler="write reweight=…, select=… or order=…; ranks share the batches by themselves",
    batch_sampler="write batch_size=… and order=…; ranks share the batches by themselves",
    collate_fn="leave it out; what is done with whole batches is a line in your loop",
    prefetch_factor="leave it out, the threads work ahead as far as memory is bounded",
    persistent_workers="leave it out, there are no processes",
    worker_init_fn="leave it out, there are no processes",
    generator="write seed=…",
    distributed="leave it out, or write world=World(rank=…, size=…)",
    rank="write world=World(rank=…, size=…)",
    world_size="write world=World(rank=…, size=…)",
    device_id='write device="cuda:0"',
    epoch="call set_epoch(…) on the loader",
    dataset="write path=…, the shard directory",
    root="write path=…, the shard directory",
    size="write augment=Augment.train(size)",
    image_size="write augment=Augment.train(size)",
    mean="write augment=Augment.train(224, normalise=(mean, std))",
    std="write augment=Augment.train(224, normalise=(mean, std))",
    mix="write augment=Augment.train(224, mix=Mix(…))",
    classes="write select=Select(classes=…)",
    indices="write select=Select(indices=…)",
)
class Loader:
    """Batches of a split, one epoch for each iteration.

    The same seed gives the same batches with any number of threads and ranks. Training (`split`
    "train", or any `order` but "index") shuffles, drops the tail and replaces bad samples;
    evaluation gives each sample exactly once, split evenly over the ranks, without padding.

    Not thread-safe: one thread iterates. A new iteration ends the one before it.

    Args:
        path: A shard directory, its address in an object store ("s3://bucket/shards"), or a folder
            of images, which is indexed where it has no index yet; or several of them with the same
            classes.
        split: Name of the split.
        batch_size: Samples for each rank in each batch.
        augment: What happens to each image; `Augment.train(224)` for "train", else
            `Augment.eval(224)`.
        reweight: None, "inverse", "sqrt", "effective:BETA" (see `reweighting.class_weights`), or a
            weight at least 0 for each row of the index.
        epoch_size: Samples in an epoch over all ranks; as many as there are when None.
        order: "shuffled", "sequential" (see `order.Order`) or "index"; shuffled for "train".
        select: A part of the split, and proportions of several directories.
        device: Where batches go, as torch names it.
        backend: "auto", "native", "libjpeg", "dali-cpu" or "dali"; or a `Backend` to use as it is.
        dtype: torch.uint8, or a floating-point type for normalised images; or its name.
        num_threads: Threads that read and decode; one for each of `cores.usable_cores` when None.
        seed: In [0, 2**63).
        drop_last: Drop the tail; True, except for the order "index", where it must not be.
        max_corrupt_fraction: Share of this rank's samples of an epoch that may be bad: 0.01, and 0
            for the order "index", where bad samples are left out, not replaced.
        transform: Called with each image on the device, after crop and flip and before the rest of
            `augment`: uint8 [3, S, S] to uint8 [3, S, S]. See `per_image`.
        world: This rank; taken from torch.distributed or torchrun when None.
        timeout_seconds: Longest wait for one batch.
        storage_options: What the client of an object store takes besides the environment; see
            docs/scale.md.
        cache: Folder on a local disk for what was read of an object store.
        cache_bytes: Bytes that the cache may take; as the disk allows when None.

    Raises:
        ShardError: If the shards are missing, damaged or do not fit together.
        BackendUnavailableError: If the back-end cannot run here.
        TypeError: If an argument is of a wrong type.
        ValueError: If an argument is out of range.
    """

    def __init__(  # noqa: PLR0913  keyword-only; `Policy` groups them
        self,
        path: Paths,
        *,
        split: str = "train",
        batch_size: int = 128,
        augment: Augment | None = None,
        reweight: str | ArrayLike | None = None,
        epoch_size: int | None = None,
        order: OrderKind | None = None,
        select: Select | None = None,
        device: str | int | torch.device = "cpu",
        backend: str | Backend = "auto",
        dtype: torch.dtype | DTypeLike = torch.uint8,
        num_threads: int | None = None,
        seed: int = 0,
        drop_last: bool | None = None,
        max_corrupt_fraction: float | None = None,
        transform: Transform | None = None,
        world: World | None = None,
        timeout_seconds: float = 300.0,
        storage_options: Mapping[str, Any] | None = None,
        cache: str | os.PathLike[str] | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        self._policy = resolve_policy(
            split,
            order=order,
            batch_size=batch_size,
            augment=augment,
            drop_last=drop_last,
            max_corrupt_fraction=max_corrupt_fraction,
            dtype=dtype,
            seed=seed,
            world=worlds.detect() if world is None else world,
            num_threads=usable_cores() if num_threads is None else num_threads,
            timeout_seconds=timeout_seconds,
        )
        check_transform(transform)
        self._transform = transform
        make_missing_indexes(path, quiet=self.world.rank > 0)
        access = Access(storage_options=storage_options, cache=cache, cache_bytes=cache_bytes)
        collection = open_collection(path, split, access)
        self._collection = collection
        self._name = f"split {split} of {', '.join(map(str, listed(path)))}"
        self.classes = collection.classes
        self.class_names = collection.class_names
        self._order = order_of(
            SampleTable.of(collection),
            kind=self._policy.order,
            select=Select() if select is None else select,
            reweight=reweight,
            epoch_size=epoch_size,
            seed=self.seed,
        )
        chosen = self._order.sampling.taking_part.chosen
        self.class_counts = collection.class_counts
        if chosen is not None:
            labels = collection.index["label"][chosen]
            self.class_counts = np.bincount(labels, minlength=len(self.classes))
        self._sampling = describe_order(self._order)
        if not len(self):
            length, ranks = self._order.length, self.world.size
            raise ValueError(
                f"an epoch of {length} sample{'s' * (length != 1)} has no batch of"
                f" {self.batch_size} on {f'each of {ranks} ranks' if ranks > 1 else 'one rank'};"
                " lower batch_size, or set drop_last=False"
            )
        self.device = device_of(device)
        check_kind("backend", backend, str, Backend)
        self._backend = (
            backend
            if isinstance(backend, Backend)
            else choose_backend(backend, self.device, num_threads=self.num_threads)
        )
        self.backend, self.backend_reason = self._backend.renderer.name, self._backend.reason
        self._next = self._received = (0, 0)
        self._epoch_told, self._made_at = False, repeats.line_of_caller()
        self._begin()

    def _begin(self) -> None:
        """Open the files, and count from 0."""
        self._reader = open_reader(self._collection, timeout_seconds=self._policy.timeout_seconds)
        self._process = os.getpid()
        self._bad = BadSamples(self._reader, self._policy, epoch_samples=self._order.length)
        # The seconds of each worker, over all iterations.
        self._spent = [Stages() for _ in range(self._backend.num_threads)]
        self._counter, self._stages_before = DeliveryCounter(), Stages()
        self._last_rows = np.zeros(0, np.int64)
        # Shared with the finalizer, which must not hold the loader itself.
        self._running: list[Rendering] = []
        parts = (self._running, self._reader, self._backend.renderer)
        self._finalizer = weakref.finalize(self, _end_unattended, *parts)

    def __repr__(self) -> str:
        ranks = f", rank {self.world.rank} of {self.world.size}" if self.world.size > 1 else ""
        return (
            f"Loader({len(self):,} batches of {self.batch_size} from {self._name},"
            f" {self._policy.order}, {self.augment.size} pixels, {self.dtype} on {self.device},"
            f" back-end {self.backend}{ranks}, epoch {self.epoch} is next"
            f"{'' if self._finalizer.alive else ', closed'})"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Loader has threads and open files, it cannot be copied or pickled: make one in each"
            " process, and save what its state_dict() gives"
        )

    def __len__(self) -> int:
        """Batches of a whole epoch, the same on every rank."""
        return self._batches(0).steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The next epoch, or the rest of the one that was loaded by `load_state_dict`.

        Yields:
            Images [N, 3, S, S], channels-last, uint8 in [0, 255] or normalised, and labels, int64
            [N] or with MixUp or CutMix float32 [N, classes]; both on the device. The caller may
            keep them: their memory is used again only after the caller has dropped them.
        """
        self._refuse_closed()
        if os.getpid() != self._process:
            self._process = os.getpid()
            self._reader.renew()
        self._stop()
        number, start = self._next
        plan = EpochPlan(
            number=number,
            order=self._order.epoch(number),
            batches=self._batches(start),
            world=self.world,
            augment=self.augment,
            seed=self.seed,
            index=self._collection.index,
            # Ranks share the page cache of a disk, and read the stream together. From an object
            # store each rank fetches its own samples, not those of all.
            reads_stream=self.world.size == 1 or not isinstance(self._reader, RemoteReader),
        )
        self._received = (number, start)
        rendering = Rendering(
            plan,
            self._reader,
            self._backend.renderer,
            self._backend.memory,
            spent=self._spent,
            chunk=self.batch_size if self._backend.whole_batches else None,
            replace_bad=self._policy.replaces_bad,
            timeout_seconds=self._policy.timeout_seconds,
        )
        iteration = _Iteration(rendering=rendering, plan=plan)
        self._running.append(rendering)
        try:
            rendering.start(owner=iteration)
        except BaseException:
            self._stop(rendering)
            raise
        return self._iterate(iteration)

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is this epoch, from its beginning.

        If a state in the middle of this very epoch was loaded, the epoch goes on from there: a
        training loop may call `set_epoch` before each epoch, the one that it resumes included.
        """
        check_integer("epoch", epoch, 0, 2**63 - 1)
        self._epoch_told = True
        if epoch != self._next[0]:
            self._next = (int(epoch), 0)
        self._received = self._next

    def set_size(self, size: int) -> None:
        """Change the output size from the next iteration on: progressive resizing."""
        self.augment = self.augment.resized(size)

    @cached_property
    def dataset(self) -> TarDataset:
        """The samples that take part, in the order of the index: their number, targets, pictures.

        It is for reading, as from the data set of a DataLoader; a transform given to it changes no
        batch.
        """
        collection, rows = self._collection, self._order.sampling.taking_part.chosen
        if rows is not None:
            collection = collection.part(rows)
        return TarDataset.of_collection(collection, self._name)

    def show(self, count: int = 16) -> Drawing:
        """The first images of the epoch to come with the names of their classes, to look at.

        They are as the model will get them, but for `dtype` and `transform`. Nothing changes by it:
        not the position, not the numbers of `stats`; an epoch under way goes on.

        Args:
            count: Images at most; those of one batch.

        Returns:
            What a notebook shows as pictures; its `write(path)` makes a page of them.
        """
        check_integer("count", count, 1)
        self._refuse_closed()
        twin = object.__new__(Loader)
        vars(twin).update(vars(self))
        twin._policy = replace(self._policy, dtype=torch.uint8)
        twin._transform, twin._epoch_told = None, True
        twin._backend = choose_backend(self.backend, self.device, num_threads=self.num_threads)
        twin._begin()
        with twin:
            images, labels = next(iter(twin))
            title = f"{self._name}, epoch {self.epoch}"
            return drawing_of(images[:count], labels[:count], self.class_names, title=title)

    @property
    def batch_size(self) -> int:
        """Samples for each rank in each batch."""
        return self._policy.batch_size

    @property
    def augment(self) -> Augment:
        """What happens to each image, from the next iteration on."""
        return self._policy.augment

    @augment.setter
    def augment(self, augment: Augment) -> None:
        self._policy = replace(self._policy, augment=augment)

    @property
    def drop_last(self) -> bool:
        """Whether the tail of an epoch is dropped."""
        return self._policy.drop_last

    @property
    def max_corrupt_fraction(self) -> float:
        """Share of this rank's samples of an epoch that may be bad."""
        return self._policy.max_corrupt_fraction

    @property
    def dtype(self) -> torch.dtype:
        """Type of the images."""
        return self._policy.dtype

    @property
    def seed(self) -> int:
        """The seed, in [0, 2**63)."""
        return self._policy.seed

    @property
    def world(self) -> World:
        """This rank among all."""
        return self._policy.world

    @property
    def num_threads(self) -> int:
        """Threads that read and decode."""
        return self._policy.num_threads

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration is, or continues."""
        return self._next[0]

    def state_dict(self) -> dict[str, Any]:
        """Where the run is: what the caller has received, not what was prepared for the caller.

        Returns:
            Integers and strings only, fit for JSON and `torch.save`; the same on every rank.
        """
        epoch, position = self._received
        return {
            "version": STATE_VERSION,
            "epoch": epoch,
            "position": position,
            "size": self.augment.size,
            "seed": self.seed,
            "data": self._collection.fingerprint,
            "sampling": self._sampling,
            "augment": repr(self.augment.resized(1)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken: the next batch is the very next one.

        The number of ranks and threads, the back-end, the device and the batch size may differ.

        Raises:
            StateMismatchError: If data, seed, sampling or augmentation differ; says which.
        """
        check_kind("state", state, dict)
        here = self.state_dict()
        if state.get("version") == 1:
            raise StateMismatchError(
                "the saved state is of a fastload whose epochs had another order: finish that run"
                " with the fastload that began it, or begin a new run"
            )
        for name in ("version", "data", "seed", "sampling", "augment"):
            if state.get(name) != here[name]:
                raise StateMismatchError(
                    f"the saved state has {name} {state.get(name)!r}, this loader {here[name]!r};"
                    " make the loader as it was, or begin a new run"
                )
        for name in ("epoch", "position", "size"):
            if type(state.get(name)) is not int:
                raise StateMismatchError(
                    f"the saved state has {name} {state.get(name)!r}, which must be an integer;"
                    " the state is damaged"
                )
        epoch, position = state["epoch"], state["position"]
        if not (0 <= epoch < 2**63 and 0 <= position <= self._order.length):
            raise StateMismatchError(
                f"the saved state is at position {position} of epoch {epoch}, an epoch has"
                f" {self._order.length}; the state is damaged"
            )
        self.set_size(state["size"])
        finished = self._batches(position).steps == 0
        self._next = self._received = (epoch + 1, 0) if finished else (epoch, position)
        self._epoch_told = True

    def stats(self) -> Stats:
        """Images per second, seconds by stage, stalls, bad samples; since the loader was made.

        Printed, `Stats` is a table that names the bottleneck.
        """
        return self._counter.snapshot(
            self._stages() - self._stages_before,
            num_threads=self.num_threads,
            backend=self.backend,
        )

    def reset_stats(self) -> None:
        """Count from 0 again; in the middle of an epoch too."""
        self._counter = DeliveryCounter(most_ready=self._counter.most_ready)
        self._stages_before = self._stages()

    def _stages(self) -> Stages:
        copied = Stages(copy=self._backend.device.copy_seconds)
        return Stages.total([*self._spent, self._counter.stages, copied])

    def keys(self, rows: ArrayLike) -> list[str]:
        """Keys of samples by their rows of the index; read from the shards: for messages only."""
        chosen = rows_of("rows", rows, len(self._collection.index))
        return [self._reader.locate(row).key for row in chosen.tolist()]

    def last_keys(self) -> list[str]:
        """Keys of the samples of the last batch."""
        return self.keys(self._last_rows)

    def last_indices(self) -> NDArray[np.int64]:
        """Rows of the split's index of the samples of the last batch: int64 [N]."""
        return self._last_rows.copy()

    def close(self) -> None:
        """End all threads and close all files. May be called more than once.

        Raises:
            StalledError: If a thread does not end.
        """
        if parts := self._finalizer.detach():
            _end(*parts[2])

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _batches(self, start: int) -> Batches:
        return Batches(
            length=self._order.length,
            start=start,
            # No more than leaves an epoch one batch too small: NumPy's integers end somewhere.
            global_batch=min(self.batch_size * self.world.size, self._order.length + 1),
            world_size=self.world.size,
            drop_last=self.drop_last,
        )

    def _iterate(self, iteration: _Iteration) -> Iterator[tuple[Tensor, Tensor]]:
        # Only now that a batch is asked for: Lightning calls iter() once more than it iterates.
        self._next = (iteration.plan.number + 1, 0)
        try:
            depth = iteration.rendering.depth + self._backend.device.ahead
            self._counter.begin(most_ready=depth)
            self._bad.begin(iteration.plan.number)
            for step in range(iteration.plan.steps):
                # The second batch, as a look at the first one is no epoch; or the only one.
                if step == min(1, iteration.plan.steps - 1) and self._may_repeat:
                    repeats.note(self._run, iteration.plan.number, self._finalizer)
                # Without a name: while this line waits, the caller alone refers to the batch.
                yield self._deliver(iteration, step)
        finally:
            self._stop(iteration.rendering)

    def _deliver(self, iteration: _Iteration, step: int) -> tuple[Tensor, Tensor]:
        """The next batch, once the ones behind it are on their way."""
        plan = iteration.plan
        ready = len(iteration.sent) + iteration.rendering.ready()
        began = time.perf_counter()
        self._send_ahead(iteration)
        waited = time.perf_counter() - began
        batch, sent = iteration.sent.popleft()
        self._bad.add(batch.bad)
        images, labels = self._backend.device.receive(sent)
        self._last_rows = batch.rows
        last = step + 1 == plan.steps
        self._received = (plan.number + 1, 0) if last else (plan.number, batch.end)
        self._counter.delivered(
            images=len(batch.rows), waited=waited, ready=ready, bad=len(batch.bad)
        )
        return images, labels

    def _send_ahead(self, iteration: _Iteration) -> None:
        """Send the next batch, waiting for it, and those behind it that are ready."""
        rendering, sent = iteration.rendering, iteration.sent
        while not sent or (len(sent) <= self._backend.device.ahead and rendering.ready()):
            asked = time.perf_counter()
            with _shortages_explained():
                batch = rendering.take()
            self._counter.stages.wait += time.perf_counter() - asked
            if batch is None:
                break
            sent.append((batch, self._send(batch, iteration.plan)))

    def _send(self, batch: Batch, plan: EpochPlan) -> Sent:
        with self._backend.device.sending(batch.pixels, batch.labels) as sent:
            began = time.perf_counter()
            if self._transform:
                seeds = seeds_of(self.seed, plan.number, batch.positions)
                sent.images = transform_images(self._transform, sent.images, seeds)
            with _shortages_explained():
                sent.images, sent.labels = augment_images(
                    plan.augment,
                    sent.images,
                    sent.labels,
                    batch.choices,
                    dtype=self.dtype,
                    num_classes=len(self.classes),
                )
            self._counter.stages.finish += time.perf_counter() - began
        return sent

    def _refuse_closed(self) -> None:
        if not self._finalizer.alive:
            raise RuntimeError("the loader was closed; make a new one")

    @property
    def _may_repeat(self) -> bool:
        """Whether epochs differ, and the caller did not say which one comes."""
        return self._policy.order != "index" and not self._epoch_told

    @property
    def _run(self) -> Hashable:
        """All that decides the batches; equal for Loaders that give the same."""
        data = (self._made_at, self._collection.fingerprint, self._name, self._sampling)
        return (*data, self._policy, self.device, self.backend)

    def _stop(self, only: Rendering | None = None) -> None:
        for rendering in [only] if only else list(self._running):
            rendering.close()
            if rendering in self._running:
                self._running.remove(rendering)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Iteration:
    """An epoch under way. The iterator alone refers to it: with it the threads end."""

    rendering: Rendering
    plan: EpochPlan
    sent: deque[tuple[Batch, Sent]] = field(default_factory=deque)  # not yet delivered


@contextmanager
def _shortages_explained() -> Iterator[None]:
    """Memory of the system that does not suffice is a `ResourceError`.

    That of a GPU stays torch's own error: a search for the largest batch size waits for it.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (MemoryError, RuntimeError) as error:
        if words := shortage_of(error):
            raise ResourceError(words) from error
        raise


def _end(running: list[Rendering], reader: Reader, renderer: Renderer) -> None:
    try:
        while running:
            running.pop().close()
    finally:
        reader.close()
        renderer.close()


def _end_unattended(running: list[Rendering], reader: Reader, renderer: Renderer) -> None:
    """`_end` for a loader that nobody closed: there is no caller to raise an error to."""
    try:
        _end(running, reader, renderer)
    except StalledError as error:
        _log.warning("a loader that was dropped could not be ended: %s", error)
