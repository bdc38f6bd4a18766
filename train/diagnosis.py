"""What is known to be wrong with a run, before its first step and in its first batch."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional

from train import checks
from train.data import Loaders
from train.losses import compounding
from train.metrics import ks_for
from train.model import set_training
from train.network import Network
from train.options import Options


def check_setup(options: Options, loaders: Loaders, network: Network) -> list[str]:
    """What is wrong with options, data and model.

    Returns:
        Warnings, one sentence each.

    Raises:
        CheckError: If training cannot work at all.
    """
    num_classes = len(loaders.classes)
    if num_classes < 2:
        raise checks.CheckError("the data has one class only, so there is nothing to tell apart")
    figure = options.run.best_by
    k = int(figure[-1]) if figure[-1].isdigit() else 1
    if k not in ks_for(num_classes):
        raise checks.CheckError(
            f"--best-by {figure} says nothing about {num_classes} classes; choose a smaller k"
        )
    found = [
        compounding(options.data.reweight, options.loss),
        checks.check_trainable(network.model),
        checks.check_classes(
            loaders.classes,
            tuple(loaders.val.classes),
            train_counts=loaders.train_counts,
            val_counts=np.asarray(loaders.val.class_counts, np.int64),
        ),
        network.doubt and f"--init {options.model.init}: {network.doubt}",
        checks.check_normalisation(loaders.train.augment.normalise, network.normalise),
    ]
    return [sentence for sentence in found if sentence]


def check_first_batch(
    loaders: Loaders, network: Network, images: Tensor, labels: Tensor, logits: Tensor
) -> list[str]:
    """What the first batch of a run shows to be wrong, one sentence each.

    Args:
        loaders: What is read.
        network: What learns.
        images: float [N, 3, H, W], the first batch.
        labels: int64 [N].
        logits: float [N, C], the answers before any step.
    """
    loss = float(functional.cross_entropy(logits.detach().float(), labels))
    num_classes = len(loaders.classes)
    found = [
        checks.check_labels(labels, loaders.train_counts),
        checks.check_pixels(images),
        checks.check_first_loss(loss, num_classes, fresh_head=network.fresh_head),
    ]
    return [sentence for sentence in found if sentence]


def overfit_one_batch(loaders: Loaders, network: Network) -> checks.Overfit:
    """Learn up to 32 training images by heart; see `checks.overfit`."""
    images, labels = next(iter(loaders.train))
    labels = labels if labels.ndim == 1 else labels.argmax(1)
    set_training(network.model)
    return checks.overfit(network.model, images[:32].float(), labels[:32])
