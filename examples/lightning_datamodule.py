"""PyTorch Lightning: a DataModule that resumes in the middle of an epoch.

    pip install -e '.[examples]'      # in the checkout
    python examples/lightning_datamodule.py shards/ --out run/
    python examples/lightning_datamodule.py shards/ --out run/ --resume run/last.ckpt

Lightning stores the loader's `state_dict` in its checkpoints by itself and gives it back before the
first batch: the run goes on with the very next one, on another number of GPUs too. Its sampler for
several GPUs is not needed: each rank's Loader takes its own part.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18

from fastload import Augment, Loader
from fastload.store.manifest import read_manifest


class ShardData(LightningDataModule):
    """The splits train and val of a shard directory.

    Args:
        shards: The directory.
        batch_size: Samples for each rank in each batch.
        size: Of the crops, in pixels.
        reweight: How often rare classes are drawn, as `Loader` takes it.
    """

    def __init__(
        self,
        shards: str | os.PathLike[str],
        *,
        batch_size: int = 128,
        size: int = 224,
        reweight: str | None = "sqrt",
    ) -> None:
        super().__init__()
        self.shards = shards
        self.batch_size = batch_size
        self.size = size
        self.reweight = reweight
        self.num_classes = len(read_manifest(shards).classes)

    def train_dataloader(self) -> Loader:
        """A new Loader, on each rank, once a run or with `reload_dataloaders_every_n_epochs`.

        A new Loader begins at epoch 0, and the order of an epoch depends on its number alone.
        So the Loader is told the epoch.
        """
        loader = Loader(
            self.shards,
            batch_size=self.batch_size,
            augment=Augment.train(self.size),
            reweight=self.reweight,
            device=self._device(),
            dtype=torch.float32,
        )
        if self.trainer is not None:
            loader.set_epoch(self.trainer.current_epoch)
        return loader

    def val_dataloader(self) -> Loader:
        """Each sample once over all ranks."""
        return Loader(
            self.shards,
            split="val",
            batch_size=self.batch_size,
            augment=Augment.eval(self.size),
            device=self._device(),
            dtype=torch.float32,
        )

    def _device(self) -> torch.device:
        if self.trainer is None:
            raise RuntimeError("a Trainer must ask for the batches: it knows the device")
        return self.trainer.strategy.root_device


class Classifier(LightningModule):
    """A ResNet-18."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.model = resnet18(num_classes=num_classes).to(memory_format=torch.channels_last)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """The loss of one batch."""
        images, labels = batch
        return cross_entropy(self.model(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Log the accuracy: a mean over samples, whatever the sizes of batches."""
        images, labels = batch
        hits = (self.model(images).argmax(1) == labels).float().mean()
        self.log("accuracy", hits, batch_size=len(labels), sync_dist=True, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def main(argv: Sequence[str] | None = None) -> Trainer:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards", help="the shard directory")
    parser.add_argument("--out", default="run", help="where checkpoints go")
    parser.add_argument("--resume", help="a checkpoint to continue from")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--max-steps", type=int, default=-1, help="stop earlier")
    parser.add_argument("--save-every", type=int, default=500, help="steps between checkpoints")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--size", type=int, default=224, help="of the crops, pixels")
    options = parser.parse_args(argv)
    data = ShardData(options.shards, batch_size=options.batch_size, size=options.size)
    save = ModelCheckpoint(options.out, every_n_train_steps=options.save_every, save_last=True)
    trainer = Trainer(
        max_epochs=options.epochs, max_steps=options.max_steps, callbacks=[save], logger=False
    )
    trainer.fit(Classifier(data.num_classes), datamodule=data, ckpt_path=options.resume)
    return trainer


if __name__ == "__main__":
    main()
