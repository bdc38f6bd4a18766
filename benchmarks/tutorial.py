"""A training script of the tutorial kind: the one that people have before they have a recipe.

    python benchmarks/tutorial.py DATA --epochs 20 --out log.jsonl

Plain PyTorch, in the order of its tutorials: ImageFolder, RandomResizedCrop and flip, DataLoader,
a torchvision network from random weights, SGD with momentum, a cosine over the epochs. It imports
nothing of fastload. `bench_recipe.py` runs it beside `train/run.py`.

DATA has class folders under train/ and val/. A line of JSON follows each epoch: seconds since the
start of the script's training (evaluation included, and said), top-1 and macro-average top-1.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

NORMALISE = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def loaders_of(data: Path, size: int, batch_size: int, workers: int) -> dict[str, DataLoader[Any]]:
    """The two splits, as the tutorials read them."""
    views = {
        "train": transforms.Compose(
            [
                transforms.RandomResizedCrop(size),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                NORMALISE,
            ]
        ),
        "val": transforms.Compose(
            [
                transforms.Resize(round(size * 256 / 224)),
                transforms.CenterCrop(size),
                transforms.ToTensor(),
                NORMALISE,
            ]
        ),
    }
    return {
        split: DataLoader(
            datasets.ImageFolder(str(data / split), view),
            batch_size=batch_size,
            shuffle=split == "train",
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        for split, view in views.items()
    }


@torch.no_grad()
def accuracies(model: nn.Module, loader: Iterable[Any]) -> tuple[float, float]:
    """Top-1 and macro-average top-1."""
    model.eval()
    answers: list[Tensor] = []
    truths: list[Tensor] = []
    for images, labels in loader:
        answers.append(model(images).argmax(1))
        truths.append(labels)
    right = (torch.cat(answers) == torch.cat(truths)).double()
    truth = torch.cat(truths)
    by_class = [right[truth == label].mean() for label in set(truth.tolist())]
    return float(right.mean()), float(torch.stack(by_class).mean())


def main() -> None:
    """Train, and write a line for each epoch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("tutorial.jsonl"))
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    loaders = loaders_of(options.data, options.size, options.batch_size, options.workers)
    classes = len(loaders["train"].dataset.classes)  # type: ignore[attr-defined]  # ImageFolder's
    model = models.get_model(options.model, weights=None, num_classes=classes)
    loss_of = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), options.lr, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)

    began = time.perf_counter()
    evaluating = 0.0
    with options.out.open("w", encoding="utf-8") as out:
        for epoch in range(options.epochs):
            model.train()
            for images, labels in loaders["train"]:
                optimizer.zero_grad()
                loss_of(model(images), labels).backward()
                optimizer.step()
            schedule.step()
            trained = time.perf_counter()
            top1, macro = accuracies(model, loaders["val"])
            evaluating += time.perf_counter() - trained
            row = {
                "epoch": epoch + 1,
                "seconds": time.perf_counter() - began,
                "evaluating_seconds": evaluating,
                "top1": top1,
                "macro_top1": macro,
            }
            out.write(json.dumps(row) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
