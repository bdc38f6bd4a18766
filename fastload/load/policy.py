"""What an epoch and its batches are: the options of a Loader, resolved and checked."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import DTypeLike

from fastload.arguments import (
    check_choice,
    check_integer,
    check_kind,
    check_number,
    did_you_mean,
    make_plain,
    shown,
)
from fastload.load.augment import Augment
from fastload.load.order import ORDERS, OrderKind
from fastload.world import World

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.uint8, torch.float32, torch.float16, torch.bfloat16, torch.float64)
}
CORRUPT_FRACTION = 0.01  # of a training epoch; evaluation allows none


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What an epoch and its batches are; see `Loader` for the meaning of each option.

    Attributes:
        order: Kind of the order.
        batch_size: Samples for each rank in each batch.
        augment: What happens to each image.
        drop_last: Whether the tail of an epoch is dropped.
        max_corrupt_fraction: Share of this rank's samples of an epoch that may be bad.
        dtype: torch.uint8, or a floating-point type for normalised images.
        seed: In [0, 2**63).
        world: This rank among all.
        num_threads: Threads that may work for the loader.
        timeout_seconds: Longest wait for one batch.
    """

    order: OrderKind
    batch_size: int
    augment: Augment
    drop_last: bool
    max_corrupt_fraction: float
    dtype: torch.dtype
    seed: int
    world: World
    num_threads: int
    timeout_seconds: float

    def __post_init__(self) -> None:
        make_plain(self)
        check_integer("batch_size", self.batch_size, 1)
        check_integer("num_threads", self.num_threads, 1)
        _check_augment(self.augment)
        check_kind("world", self.world, World)
        check_number("max_corrupt_fraction", self.max_corrupt_fraction, 0, 1)
        check_kind("drop_last", self.drop_last, bool)
        if self.drop_last and self.order == "index":
            raise ValueError('drop_last must be False with order "index": evaluation drops nothing')
        check_number("timeout_seconds", self.timeout_seconds, 0)
        if self.timeout_seconds == 0:
            raise ValueError("timeout_seconds must be above 0, got 0")
        if self.augment.mix and self.batch_size == 1:
            raise ValueError(
                "batch_size must be at least 2 with augment.mix, which mixes the images of a batch"
            )
        if self.augment.mix and self.order == "index" and self.max_corrupt_fraction:
            raise ValueError('augment.mix cannot be used with order "index" and bad samples')

    @property
    def replaces_bad(self) -> bool:
        """Whether another sample takes the place of a bad one; otherwise it is left out."""
        return self.order != "index"


def dtype_of(dtype: object) -> torch.dtype:
    """The type of images that an argument names: torch's, its name, or NumPy's.

    Raises:
        TypeError: If it is no type.
        ValueError: If it is none that images may have.
    """
    found = dtype
    if isinstance(dtype, str):
        name = dtype.removeprefix("torch.")
        found = DTYPES.get(name) or getattr(torch, name, None)  # "half" is a name of torch's
    elif isinstance(dtype, np.dtype) or (isinstance(dtype, type) and issubclass(dtype, np.generic)):
        found = DTYPES.get(np.dtype(dtype).name)
    if isinstance(found, torch.dtype) and found in DTYPES.values():
        return found
    named = isinstance(dtype, str | torch.dtype | np.dtype | type)
    short = re.sub(r"^(b?)fp?(\d+)$", _whole_name, dtype) if isinstance(dtype, str) else dtype
    message = (
        f"dtype must be torch.uint8 or a floating-point type, one of {', '.join(DTYPES)}, got"
        f" {shown(dtype)}{did_you_mean(short, DTYPES)}"
    )
    raise ValueError(message) if named else TypeError(message)


def _whole_name(short: re.Match[str]) -> str:
    return f"{'b' if short[1] else ''}float{short[2]}"  # fp16 and bf16


def _check_augment(augment: object) -> None:
    if isinstance(augment, Augment):
        return
    instead = "write one such as Augment.train(224)"
    if callable(augment):
        instead += (
            ". Functions and transforms of your own go to Loader(transform=…), which is given the"
            " cropped images, or to TarDataset(transform=…), which is given whole ones"
        )
    raise TypeError(f"augment must be Augment, got {shown(augment)}; {instead}")


def resolve_policy(  # noqa: PLR0913  the options of a Loader, keyword-only
    split: str,
    *,
    order: OrderKind | None,
    batch_size: int,
    augment: Augment | None,
    drop_last: bool | None,
    max_corrupt_fraction: float | None,
    dtype: torch.dtype | str | DTypeLike,
    seed: int,
    world: World,
    num_threads: int,
    timeout_seconds: float,
) -> Policy:
    """Fill in what the caller left open: "train" is for training, each other split for evaluation.

    Raises:
        TypeError: If an option is of a wrong type.
        ValueError: If an option is out of range, or two do not fit together.
    """
    check_kind("split", split, str)
    if order is not None:
        check_choice("order", order, ORDERS)
    training = split == "train"
    if order is None:
        order = "shuffled" if training else "index"
    if drop_last is None:
        drop_last = order != "index"
    if max_corrupt_fraction is None:
        max_corrupt_fraction = 0.0 if order == "index" else CORRUPT_FRACTION
    default = Augment.train() if training else Augment.eval()
    return Policy(
        order=order,
        batch_size=batch_size,
        augment=augment if augment is not None else default,
        drop_last=drop_last,
        max_corrupt_fraction=max_corrupt_fraction,
        dtype=dtype_of(dtype),
        seed=seed,
        world=world,
        num_threads=num_threads,
        timeout_seconds=timeout_seconds,
    )
