"""DistributedDataParallel in two processes: no sampler, no padding, every sample evaluated once.

    torchrun --standalone --nproc-per-node 2 examples/ddp_two_processes.py shards/

Each rank's Loader takes its part of every global batch. The global batches do not depend on the
number of ranks, so the position that one process saved can be continued by two.
"""

# mypy: disable-error-code="no-untyped-call"
# (torch's backward has no types)

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from functools import partial

import torch
from torch import distributed
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torchvision.models import resnet18

from fastload import Augment, Loader


def train(shards: str, *, epochs: int, batch_size: int, size: int) -> None:
    """Train on this rank's device; rank 0 prints the accuracy over all ranks."""
    local_rank = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    load = partial(Loader, shards, batch_size=batch_size, device=device, dtype=torch.float32)
    train_loader = load(augment=Augment.train(size), reweight="sqrt")
    val_loader = load(split="val", augment=Augment.eval(size))
    net = resnet18(num_classes=len(train_loader.classes))
    model = DistributedDataParallel(net.to(device, memory_format=torch.channels_last))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with train_loader, val_loader:
        for epoch in range(epochs):
            model.train()
            for images, labels in train_loader:
                loss = cross_entropy(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            counts = torch.zeros(2, device=device)
            model.eval()
            with torch.inference_mode():
                for images, labels in val_loader:
                    hits = (net(images).argmax(1) == labels).sum()
                    counts += torch.stack([hits, hits.new_tensor(len(labels))])
            distributed.all_reduce(counts)
            if distributed.get_rank() == 0:
                right, total = counts.tolist()
                print(f"epoch {epoch}: {right:.0f} of {total:.0f} right")


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, join the other processes and train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards", help="the shard directory")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=128, help="of each process")
    parser.add_argument("--size", type=int, default=224, help="of the crops, pixels")
    options = parser.parse_args(argv)
    if "LOCAL_RANK" not in os.environ:
        parser.error("start it with: torchrun --standalone --nproc-per-node 2 " + parser.prog)
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        train(**vars(options))
    finally:
        time.sleep(0.1)  # on CPUs, torch 2.5 could wait for ever where a tensor is still let go
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
