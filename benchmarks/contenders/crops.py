"""The crop that loaders without one of their own are given: torchvision's, antialiased."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

from benchmarks.contenders.contract import Batch, Epochs, Work

warnings.filterwarnings("ignore", category=FutureWarning)  # decode_jpeg's, once per worker
warnings.filterwarnings("ignore", category=DeprecationWarning)


def crop_tensor(size: int) -> Callable[[Any], Any]:
    """uint8 [3, H, W] -> uint8 [3, size, size]: RandomResizedCrop with antialiasing, and flip."""
    crop: Callable[[Any], Any] = v2.Compose(
        [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]
    )
    return crop


def crop_pil(size: int) -> Callable[[Any], Any]:
    """PIL image -> uint8 [3, size, size]: the same crop by Pillow, whose resize is antialiased."""
    crop: Callable[[Any], Any] = v2.Compose(
        [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    )
    return crop


def decode(jpeg: bytes) -> torch.Tensor:
    """uint8 [3, H, W], RGB."""
    data = torch.frombuffer(bytearray(jpeg), dtype=torch.uint8)
    pixels: torch.Tensor = decode_jpeg(data, mode=ImageReadMode.RGB)
    return pixels


def epochs_of(dataset: Dataset[Any], work: Work, **options: Any) -> Epochs:
    """Epochs of a PyTorch DataLoader with `work.cores` worker processes that live on."""
    arguments: dict[str, Any] = {
        "batch_size": work.batch_size,
        "num_workers": work.cores,
        "persistent_workers": True,
        "prefetch_factor": 4,
        **options,
    }
    loader: DataLoader[Any] = DataLoader(dataset, **arguments)

    def epoch(_number: int) -> Iterator[Batch]:
        return iter(loader)

    return epoch


def nothing_to_prepare(_images: Path, out: Path, _work: Work) -> None:
    """The contender reads the image folder itself."""
    out.mkdir(parents=True, exist_ok=True)
