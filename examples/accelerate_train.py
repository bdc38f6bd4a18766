"""Hugging Face Accelerate: the Loader is not prepared, but registered, so that it resumes.

    pip install -e '.[examples]'      # in the checkout
    accelerate launch examples/accelerate_train.py shards/ --out run/
    accelerate launch examples/accelerate_train.py shards/ --out run/ --resume run/

`accelerator.prepare` is for model and optimizer. A Loader already puts its batches on the device
and splits them over the ranks; make it after the Accelerator, which sets up torch.distributed.
`register_for_checkpointing` puts its position into every `save_state`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18

from fastload import Augment, Loader


@torch.inference_mode()
def evaluate(accelerator: Accelerator, model: nn.Module, loader: Loader) -> float:
    """Accuracy over all ranks, in [0, 1]: each sample counts once, as none is padded."""
    counts = torch.zeros(2, device=accelerator.device)
    model.eval()
    for images, labels in loader:
        hits = (model(images).argmax(1) == labels).sum()
        counts += torch.stack([hits, hits.new_tensor(len(labels))])
    right, total = accelerator.reduce(counts, "sum").tolist()
    return float(right / total)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards", help="the shard directory")
    parser.add_argument("--out", default="run", help="where the state is saved")
    parser.add_argument("--resume", help="a folder with a state to continue from")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--max-steps", type=int, default=0, help="stop earlier; 0 for not")
    parser.add_argument("--save-every", type=int, default=500, help="steps between saves")
    parser.add_argument("--batch-size", type=int, default=128, help="of each rank")
    parser.add_argument("--size", type=int, default=224, help="of the crops, pixels")
    options = parser.parse_args(argv)

    accelerator = Accelerator()
    load = partial(
        Loader,
        options.shards,
        batch_size=options.batch_size,
        device=accelerator.device,
        dtype=torch.float32,
    )
    train = load(augment=Augment.train(options.size), reweight="sqrt")
    val = load(split="val", augment=Augment.eval(options.size))
    model = resnet18(num_classes=len(train.classes)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(train)
    if options.resume:
        accelerator.load_state(options.resume)

    step = 0
    with train, val:
        for epoch in range(train.epoch, options.epochs):
            model.train()
            for images, labels in train:
                loss = cross_entropy(model(images), labels)
                optimizer.zero_grad()
                accelerator.backward(loss)
                optimizer.step()
                step += 1
                if step % options.save_every == 0:
                    accelerator.save_state(options.out)
                if step == options.max_steps:
                    return
            accuracy = evaluate(accelerator, model, val)
            accelerator.print(f"epoch {epoch}: loss {loss.item():.3f}, accuracy {accuracy:.1%}")


if __name__ == "__main__":
    main()
