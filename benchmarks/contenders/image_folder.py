"""torchvision's ImageFolder behind a PyTorch DataLoader: decoded by Pillow, or to tensors (v2)."""

from __future__ import annotations

from pathlib import Path

from torchvision.datasets import ImageFolder

from benchmarks.contenders.contract import Epochs, Work
from benchmarks.contenders.crops import crop_pil, crop_tensor, decode, epochs_of, nothing_to_prepare

prepare = nothing_to_prepare


def open_loader(data: Path, work: Work) -> Epochs:
    """`work.option`: "pil" or "tensor"."""
    if work.option == "pil":
        return epochs_of(ImageFolder(data, crop_pil(work.size)), work, shuffle=True, drop_last=True)
    folder = ImageFolder(
        data, crop_tensor(work.size), loader=lambda path: decode(Path(path).read_bytes())
    )
    return epochs_of(folder, work, shuffle=True, drop_last=True)
