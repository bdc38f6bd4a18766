"""Keras 3 on PyTorch: `fit` takes a generator of the batches of a Loader.

    pip install -e '.[examples]'      # in the checkout
    python examples/keras_fit.py shards/
    python examples/keras_fit.py shards/ --channels first

Keras wants to be told how many batches an epoch has: `steps_per_epoch=len(loader)`. Images are
[N, H, W, 3] where Keras's image data format is "channels_last", its default, and [N, 3, H, W] where
it is "channels_first". A Loader's batches serve both: their memory is channels-last, so the first
is a view, and no pixel is moved.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from fastload import Augment, Loader

os.environ["KERAS_BACKEND"] = "torch"

import keras  # it looks for its back-end as it is imported


def batches(loader: Loader) -> Iterator[tuple[Tensor, Tensor]]:
    """Epoch after epoch, without end: Keras counts the steps."""
    channels_last = keras.config.image_data_format() == "channels_last"
    while True:
        for images, labels in loader:
            yield images.permute(0, 2, 3, 1) if channels_last else images, labels


def network(size: int, classes: int) -> keras.Model:
    """A small convolutional network, in the image data format that is set."""
    last = keras.config.image_data_format() == "channels_last"
    convolution = partial(keras.layers.Conv2D, strides=2, padding="same", activation="relu")
    return keras.Sequential(
        [
            keras.layers.Input((size, size, 3) if last else (3, size, size)),
            *(convolution(width, 3) for width in (16, 32, 64)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(classes),
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards", help="the shard directory")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--size", type=int, default=224, help="of the crops, pixels")
    parser.add_argument("--channels", choices=["last", "first"], default="last")
    options = parser.parse_args(argv)

    keras.config.set_image_data_format(f"channels_{options.channels}")
    load = partial(
        Loader,
        options.shards,
        batch_size=options.batch_size,
        device="cuda" if torch.cuda.is_available() else "cpu",
        dtype=torch.float32,
    )
    train = load(augment=Augment.train(options.size), reweight="sqrt")
    val = load(split="val", augment=Augment.eval(options.size))
    model = network(options.size, len(train.classes))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss=loss, metrics=["accuracy"])
    with train, val:
        history = model.fit(
            batches(train),
            steps_per_epoch=len(train),
            validation_data=batches(val),
            validation_steps=len(val),
            epochs=options.epochs,
            shuffle=False,  # the Loader did
            verbose=0,
        ).history
    for epoch, (value, right) in enumerate(
        zip(history["loss"], history["val_accuracy"], strict=True)
    ):
        print(f"epoch {epoch}: loss {value:.3f}, accuracy {right:.1%}")


if __name__ == "__main__":
    main()
