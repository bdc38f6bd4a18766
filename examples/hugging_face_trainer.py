"""Hugging Face Trainer: two of its methods give it batches of Loaders.

    pip install -e '.[examples]'      # in the checkout
    python examples/hugging_face_trainer.py shards/ --out run/
    python examples/hugging_face_trainer.py shards/ --out run/ --epochs 20 --resume

Of a loader the Trainer asks dictionaries, their number, the data set and `set_epoch`. A Loader puts
its batches on the device and is made after the TrainingArguments, which set up torch.distributed.
Save by epochs: to go on within one, the Trainer would skip batches with a sampler, and a Loader has
none.
"""

# mypy: disable-error-code="misc"
# (the Trainer has no types where it is not installed)

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

from fastload import Augment, Loader


class Batches:
    """Batches of a Loader as the Trainer wants them."""

    def __init__(self, loader: Loader) -> None:
        self.dataset, self.set_epoch = loader.dataset, loader.set_epoch
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for images, labels in self._loader:
            yield {"pixel_values": images, "labels": labels}


class LoaderTrainer(Trainer):
    """A Trainer that is given Loaders."""

    def __init__(self, *, train: Loader, val: Loader, **options: Any) -> None:  # noqa: ANN401
        super().__init__(train_dataset=train.dataset, eval_dataset=val.dataset, **options)
        self._train, self._val = train, val

    def get_train_dataloader(self) -> Batches:
        """See Trainer."""
        return Batches(self._train)

    def get_eval_dataloader(self, eval_dataset: object = None) -> Batches:  # noqa: ARG002  Trainer's
        """See Trainer."""
        return Batches(self._val)


def accuracy(prediction: Any) -> dict[str, float]:  # noqa: ANN401  an EvalPrediction
    """Share of right answers, in [0, 1]."""
    right = prediction.predictions.argmax(1) == prediction.label_ids
    return {"accuracy": float(right.mean())}


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards", help="the shard directory")
    parser.add_argument("--out", default="run", help="where checkpoints are saved")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=128, help="of each rank")
    parser.add_argument("--size", type=int, default=224, help="of the crops, pixels")
    options = parser.parse_args(argv)

    arguments = TrainingArguments(
        options.out,
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        eval_strategy="epoch",
        save_strategy="epoch",
        report_to="none",
    )
    load = partial(
        Loader,
        options.shards,
        batch_size=options.batch_size,
        device=arguments.device,
        dtype=torch.float32,
    )
    train = load(augment=Augment.train(options.size), reweight="sqrt")
    val = load(split="val", augment=Augment.eval(options.size))
    model = ResNetForImageClassification(
        ResNetConfig(
            embedding_size=32,
            hidden_sizes=[32, 64, 128],
            depths=[1, 1, 1],
            layer_type="basic",
            num_labels=len(train.classes),
        )
    )
    with train, val:
        trainer = LoaderTrainer(
            model=model, args=arguments, train=train, val=val, compute_metrics=accuracy
        )
        trainer.train(resume_from_checkpoint=options.resume or None)
        print(f"accuracy {trainer.evaluate()['eval_accuracy']:.1%}")


if __name__ == "__main__":
    main()
