"""Train a ResNet-18 on a shard directory: the whole loop, and nothing but PyTorch.

    python -m fastload.shard data/
    python examples/plain_loop.py shards/

One iteration of a Loader is one epoch; batches come normalised, on the device, channels last.
"""

# mypy: disable-error-code="no-untyped-call"
# (torch's backward has no types)

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

import torch
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18

from fastload import Augment, Loader


def train(shards: str, *, epochs: int, batch_size: int, size: int, device: str) -> float:
    """Train from nothing; return the accuracy on the validation split, in [0, 1]."""
    load = partial(Loader, shards, batch_size=batch_size, device=device, dtype=torch.float32)
    train_loader = load(augment=Augment.train(size), reweight="sqrt")
    val_loader = load(split="val", augment=Augment.eval(size))
    model = resnet18(num_classes=len(train_loader.classes))
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with train_loader, val_loader:
        for epoch in range(epochs):
            model.train()
            for images, labels in train_loader:
                loss = cross_entropy(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            model.eval()
            with torch.inference_mode():
                hits = [model(images).argmax(1) == labels for images, labels in val_loader]
            accuracy = float(torch.cat(hits).float().mean())
            print(f"epoch {epoch}: loss {loss.item():.3f}, accuracy {accuracy:.1%}")
    return accuracy


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards", help="the shard directory")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--size", type=int, default=224, help="of the crops, pixels")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
