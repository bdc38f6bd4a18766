"""Do the first steps on the GPU give the CPU's losses, in float32?

The trainer's own parts, ResNet-18 at 64 pixels, SGD, TF32 off: the same seed, batches and weights
on both. The first loss must agree within 1e-4 of its value, the first gradient within 1 % of its
length, and the losses of five steps within 1 %. Rounding grows from step to step: on a CPU, weights
changed by a millionth of their size give losses 5e-7 apart at first and 7e-4 at the fifth step.
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import islice

import torch
from torch import Tensor

from benchmarks.proof.part import Place, fail, run_part
from train.assembly import assemble
from train.command import parse
from train.model import set_training

STEPS, RATE = 5, 1e-4
FIRST, LATER = 1e-4, 1e-2


def first_steps(place: Place, device: str) -> tuple[list[float], Tensor]:
    """Losses of the first steps, and all gradients of the first one, on the CPU."""
    command = parse(
        [
            *("--data", str(place.shards), "--runs", str(place.out / "runs"), "--name", "steps"),
            *("--model", "resnet18", "--init", "scratch", "--size", "64", "--batch-size", "32"),
            *("--optimizer", "sgd", "--lr", "0.1", "--amp", "off", "--loader", "native"),
            *("--device", device),
        ]
    )
    losses: list[float] = []
    gradients = torch.zeros(0)
    with ExitStack() as stack:
        run = assemble(command.options, stack)
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
        model, stepper = run.network.model, run.stepper
        set_training(model)
        for images, labels in islice(run.loaders.train, STEPS):
            total = run.balance.loss(run.stage.forward(images), labels)
            stepper.backward(total)
            if not losses:
                of_all = [item.grad for item in model.parameters()]
                gradients = torch.cat([grad.flatten().cpu() for grad in of_all if grad is not None])
            stepper.step(RATE)
            losses.append(float(total.loss.detach()) / float(total.weight))
    return losses, gradients


def body(place: Place) -> str:
    """Compare the losses of the CPU with those of the device."""
    expected, right = first_steps(place, "cpu")
    found, gradients = first_steps(place, place.device.type)
    turned = float((gradients - right).norm() / right.norm())
    apart = [abs(a - b) / a for a, b in zip(expected, found, strict=True)]
    print(f"cpu {expected}\n{place.device.type} {found}")
    place.keep(
        [
            {
                "benchmark": "gpu-first-steps",
                "name": "resnet18, float32",
                "device": place.device.type,
                "first_relative_difference": apart[0],
                "worst_relative_difference": max(apart),
                "gradient_relative_difference": turned,
                "steps": STEPS,
            }
        ]
    )
    figure = (
        f"apart by {apart[0]:.1e} in the first loss, {turned:.1e} in its gradient, "
        f"{max(apart):.1e} in {STEPS} losses"
    )
    if apart[0] > FIRST or max(apart) > LATER or turned > LATER:
        fail(figure)
    return figure


if __name__ == "__main__":
    run_part(body)
