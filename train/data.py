"""The loaders of a run: the same images for every back-end, batch size and number of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastload import Loader
from fastload.console.parser import in_options
from fastload.console.progress import Progress
from fastload.console.shell import module_command, program
from fastload.cores import usable_cores
from fastload.errors import FastloadError, TooManyCorruptError
from fastload.load.augment import (
    Augment,
    CenterCrop,
    ColourJitter,
    Crop,
    Erasing,
    Mix,
    RandomCrop,
    RandomResizedCrop,
)
from fastload.load.backend import find_backend
from fastload.store.collection import Collection, open_collection, read_contents
from fastload.store.making import make_missing_indexes
from fastload.store.manifest import Manifest
from fastload.store.places import Places
from fastload.store.reader import Scratch
from fastload.store.remote import Access
from fastload.store.remote_reader import open_reader
from fastload.world import World
from train.options import (
    AugmentOptions,
    DataOptions,
    Normalisation,
    Options,
    auto_augment,
    fields,
)
from train.ranks import Ranks
from train.weights import normalisation_for

_CHECKED_AT_ONCE = 64  # images of some 100 kB: few enough for the memory, many for one call
_AHEAD = 16 * _CHECKED_AT_ONCE


class DataError(FastloadError):
    """The shards do not fit the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaders:
    """What is read.

    Attributes:
        train: The training split; each epoch has an order of its own.
        val: The validation split: each sample once, in the order of the index.
        test: The test split, read as `val` is; None where the data has no test split.
        classes: Names of the class folders; the position is the label.
        class_names: Readable names of the classes, by label.
        train_counts: int64 [C], training images of each class.
    """

    train: Loader
    val: Loader
    test: Loader | None
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    train_counts: NDArray[np.int64]


def augment_for(options: AugmentOptions, size: int, normalise: Normalisation) -> Augment:
    """The training augmentation that the options describe."""
    crops: dict[str, Crop] = {
        "random-resized": RandomResizedCrop(area=(options.crop_area, 1.0)),
        "random": RandomCrop(),
        "centre": CenterCrop(),
    }
    strength = options.jitter
    jitter = ColourJitter(
        brightness=strength, contrast=strength, saturation=strength, hue=options.hue
    )
    mix = (
        Mix(mixup=options.mixup, cutmix=options.cutmix) if options.mixup or options.cutmix else None
    )
    return Augment(
        size=size,
        crop=crops[options.crop],
        flip=options.flip,
        auto=auto_augment(options.auto_augment),
        rotation=options.rotation,
        jitter=jitter if strength or options.hue else None,
        erasing=Erasing(probability=options.erasing) if options.erasing else None,
        mix=mix,
        normalise=normalise,
    )


def open_loaders(
    options: Options, ranks: Ranks, stack: ExitStack, *, dtype: torch.dtype
) -> Loaders:
    """Open the splits of a run.

    Args:
        options: Which shards, and how they are read.
        ranks: The processes that share each global batch.
        stack: Closes the loaders.
        dtype: Floating-point type of the images.

    Raises:
        FastloadError: If the shards cannot be read, lack a split, or are too few for a batch.
    """
    data = options.data
    normalise = normalisation_for(options.model)
    train = _open(
        options,
        data.data,
        "train",
        ranks,
        # Which one it is, and why, is said once, by the console: the log of each rank is silent.
        backend=find_backend(data.loader, ranks.device, num_threads=data.threads or usable_cores()),
        augment=augment_for(options.augment, options.resolution.size, normalise),
        reweight=None if data.reweight == "none" else data.reweight,
        dtype=dtype,
        seed=options.run.seed,
        max_corrupt_fraction=data.max_corrupt_fraction,
    )
    stack.enter_context(train)
    place = data.val_data or data.data
    make_missing_indexes(place, quiet=not ranks.writes)
    contents = read_contents(place)
    splits = contents.splits
    present = [name for name in ("val", "test") if name in splits and splits[name].samples]
    if "val" not in present:
        raise DataError(
            f"{place}: has no images in its val split, which chooses the best epoch; take val from "
            f"train with `{_val_from_train(place, contents)}`, or name other data with --val-data"
        )
    view = Augment.eval(options.resolution.eval_size or options.resolution.size)
    view = replace(view, normalise=normalise)
    held_out = {
        name: stack.enter_context(
            _open(
                options,
                place,
                name,
                ranks,
                backend=train.backend,
                augment=view,
                dtype=dtype,
                max_corrupt_fraction=data.max_corrupt_val,
            )
        )
        for name in present
    }
    return Loaders(
        train=train,
        val=held_out["val"],
        test=held_out.get("test"),
        classes=tuple(train.classes),
        class_names=tuple(train.class_names),
        train_counts=np.asarray(train.class_counts, np.int64),
    )


def _val_from_train(place: str, contents: Manifest | Places) -> str:
    options = ("--val-fraction", "0.1")
    if isinstance(contents, Places):
        return module_command("fastload.index", place, *options)
    return module_command("fastload.shard", "FOLDER", *options, "--out", "OTHER")


def _open(options: Options, path: str, split: str, ranks: Ranks, **arguments: Any) -> Loader:  # noqa: ANN401  passed on
    try:
        return Loader(
            path,
            split=split,
            batch_size=options.data.batch_size,
            device=ranks.device,
            num_threads=options.data.threads or None,
            world=ranks.world,
            cache=options.data.cache or None,
            **arguments,
        )
    except ValueError as error:
        # The library's names become flags; of its remedies a run has the first one only.
        flags = {key: f"--{key.replace('_', '-')}" for key in fields(DataOptions)}
        reason = in_options(str(error), {**flags, "num_threads": "--threads"})
        reason = reason.removesuffix(", or set drop_last=False")
        raise DataError(f"{path}, {split}: {reason}") from error


@contextmanager
def corrupt_share(option: str) -> Iterator[None]:
    """Within: too many bad samples are told in the words of the option that allows them."""
    try:
        yield
    except TooManyCorruptError as error:
        words = in_options(str(error), {"max_corrupt_fraction": option})
        raise TooManyCorruptError(words) from error


def check_held_out(options: Options, ranks: Ranks) -> None:
    """Compare the bytes of val and test with their CRC-32. Every rank must call this.

    Evaluation would find a damaged image too, after an epoch of training. To read the bytes costs
    less than one evaluation.

    Raises:
        DataError: If more images are damaged than --max-corrupt-val allows.
    """
    place = options.data.val_data or options.data.data
    access = Access(cache=options.data.cache or None)
    contents = read_contents(place)
    splits = contents.splits
    for split in (name for name in ("val", "test") if name in splits and splits[name].samples):
        total = splits[split].samples
        progress = Progress(
            total,
            "images",
            what=f"checking {split}",
            quiet_seconds=options.record.quiet_seconds,
            silent=not ranks.writes,
        )
        with progress:
            found = _damaged(open_collection(place, split, access), ranks.world, progress)
        damaged = [item for part in ranks.gathered(found) for item in part]
        if len(damaged) > options.data.max_corrupt_val * total:
            verify = module_command("fastload.verify", place)
            again = f"`{program('fastload.shard')}` writes the shards again"
            if isinstance(contents, Places):
                again = f"`{module_command('fastload.index', place)}` takes what is there now"
            raise DataError(
                f"{damaged[0]}; {len(damaged)} of {total} {split} images are damaged, and figures "
                f"over fewer images would not compare: `{verify}` names them all, {again}, and "
                "--max-corrupt-val SHARE leaves the images out"
            )


def _damaged(collection: Collection, world: World, progress: Progress) -> list[str]:
    """Where damaged images of this rank's part of a split are stored, with reasons."""
    reader, scratch = open_reader(collection), Scratch()
    part = np.array_split(np.arange(len(collection.index)), world.size)[world.rank]
    found = []
    for start in range(0, len(part), _CHECKED_AT_ONCE):
        rows = part[start : start + _CHECKED_AT_ONCE]
        if start % _AHEAD == 0:
            reader.read_ahead(part[start : start + _AHEAD])
        _, bad = reader.read(rows, scratch)
        found += [f"{reader.locate(int(rows[i]))}: {reason}" for i, reason in bad.items()]
        progress.add(len(rows) * world.size)
    reader.close()
    return found
