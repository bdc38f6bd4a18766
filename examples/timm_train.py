"""timm: a loader with the interface that its train.py expects of `timm.data.create_loader`.

    pip install -e '.[examples]'      # in the checkout
    python examples/timm_train.py shards/ --model resnet50 --mixup 0.2 --cutmix 1.0

In timm's own train.py, copy `TimmLoader` and replace the two calls of `create_loader` by

    loader_train = TimmLoader(Loader("shards", augment=Augment(..., mix=Mix(...)), device=device,
                                     dtype=torch.float32, batch_size=args.batch_size))
    loader_eval = TimmLoader(Loader("shards", split="val", device=device, dtype=torch.float32))

and leave its prefetcher on, which means that batches come normalised and on the device. Ranks are
found out from torch.distributed. Label smoothing without MixUp stays timm's loss function.
"""

# mypy: disable-error-code="no-untyped-call,attr-defined"
# (timm and torch's backward have no types)

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import timm
import torch
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, accuracy
from torch import Tensor, nn

from fastload import Augment, Loader, Mix


class TimmLoader:
    """What timm's train.py asks of a loader: batches, len, `sampler.set_epoch`, `mixup_enabled`.

    With MixUp or CutMix the targets are soft, and stay soft when `mixup_enabled` is set to False,
    as timm's are: its loss function is chosen once.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        self.sampler = loader  # train.py calls loader.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.loader)

    @property
    def mixup_enabled(self) -> bool:
        """Whether images are mixed; train.py switches it off at --mixup-off-epoch."""
        mix = self.loader.augment.mix
        return mix is not None and mix.probability > 0

    @mixup_enabled.setter
    def mixup_enabled(self, enabled: bool) -> None:
        mix = self.loader.augment.mix
        if mix is not None:
            mix = replace(mix, probability=float(enabled))
            self.loader.augment = replace(self.loader.augment, mix=mix)


def train_one_epoch(
    epoch: int,
    model: nn.Module,
    loader: TimmLoader,
    optimizer: torch.optim.Optimizer,
    loss_fn: nn.Module,
    *,
    mixup_off_epoch: int = 0,
) -> float:
    """The part of timm's function of this name that touches the loader; the mean loss."""
    if mixup_off_epoch and epoch >= mixup_off_epoch and loader.mixup_enabled:
        loader.mixup_enabled = False
    loader.sampler.set_epoch(epoch)
    losses = AverageMeter()
    model.train()
    for images, target in loader:
        loss = loss_fn(model(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.update(loss.item(), len(images))
    return float(losses.avg)


@torch.inference_mode()
def validate(model: nn.Module, loader: TimmLoader) -> float:
    """Top-1 accuracy in percent."""
    top1 = AverageMeter()
    model.eval()
    for images, target in loader:
        (hits,) = accuracy(model(images), target, topk=(1,))
        top1.update(float(hits), len(images))
    return float(top1.avg)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards", help="the shard directory")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--size", type=int, default=224, help="of the crops, pixels")
    parser.add_argument("--mixup", type=float, default=0.0, help="alpha, 0 for none")
    parser.add_argument("--cutmix", type=float, default=0.0, help="alpha, 0 for none")
    parser.add_argument("--mixup-off-epoch", type=int, default=0, help="0 for never")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(argv)
    mixed = options.mixup or options.cutmix
    mix = Mix(mixup=options.mixup, cutmix=options.cutmix) if mixed else None
    load = partial(
        Loader,
        options.shards,
        batch_size=options.batch_size,
        device=options.device,
        dtype=torch.float32,
    )
    train = load(augment=Augment(size=options.size, mix=mix))
    val = load(split="val", augment=Augment.eval(options.size))
    model = timm.create_model(options.model, num_classes=len(train.classes)).to(options.device)
    model = model.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.05, momentum=0.9)
    schedule, epochs = create_scheduler_v2(optimizer, num_epochs=options.epochs)
    loss_fn = SoftTargetCrossEntropy() if mixed else nn.CrossEntropyLoss()
    with train, val:
        for epoch in range(epochs):
            off = options.mixup_off_epoch
            loss = train_one_epoch(
                epoch, model, TimmLoader(train), optimizer, loss_fn, mixup_off_epoch=off
            )
            top1 = validate(model, TimmLoader(val))
            schedule.step(epoch + 1, top1)
            print(f"epoch {epoch}: loss {loss:.3f}, top-1 {top1:.1f} %")


if __name__ == "__main__":
    main()
