"""What a card that is not here would do: rate, batch size and precision, each with its basis.

    table of cards ──> ResNet-50 at 224 pixels on this card      published, or estimated from a
                                                                 card of a published rate
    work of a model ──> this model at this size                  published ratio, or estimated from
                                                                 its operations and activations
    our H200's rows ──> the batch size that fits its memory

Nothing of it is measured on the card, except where the card is the one that we have measured.
Rates are ranges: the lower end is what a plan should count on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fastload.advise.cards import Card, ModelRate, card_table
from fastload.advise.models import skeleton
from fastload.advise.trials import BATCH_SIZES, Question, StepTrial
from fastload.errors import FastloadError, first_line

SIZE = 224  # of all published rates of cards

# Channels-last, which the trainer takes, over contiguous: ResNet-50 on an RTX 3090, 1,218.01 over
# 826.06 images/s (timm's tables of PyTorch 1.12). On our H200 it is 4,638 over 2,427.
CHANNELS_LAST_GAIN = 1.47

# Either way, for a rate that is estimated from another card's. Tried on cards whose rates Lambda
# published: RTX 3070 and 3080 from RTX 3090 0.53 and 0.80, expected 0.48 to 0.56 and 0.81 to 0.83;
# RTX 6000 Ada from RTX 4090 0.88, expected 0.95 to 1.11.
SPREAD = 0.1

# ResNet-50 at 224 pixels on an H200, bf16, channels-last (benchmarks/rows/gpu.jsonl,
# training-step): PyTorch held 1,902 MiB at a batch of 32 and 12,438 MiB at 256, in a line between.
MIB_PER_IMAGE, FIXED_MIB = 47.03, 398.0
# Above it Python's launches of small kernels limit the step, which no rate here knows: ResNet-18 at
# 128 pixels in batches of 64 trained 5,043 images/s on an H200 (docs/training.md).
SHORT_STEPS = 5000.0
_SHORT_STEPS = (
    "such short steps wait for Python: ResNet-18 at 128 pixels in batches of 64 trained 5,043"
    " images/s on an H200; benchmarks/rows/gpu.jsonl"
)

BYTES_PER_WEIGHT = 12  # float32: the weight, its gradient, the momentum of SGD


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What to expect of a card.

    Attributes:
        card: The card.
        slowest: Images per second to count on; 0 where the rate is unknown.
        fastest: Images per second that the loader should be ready for.
        kind: "measured by us", "published", "estimated" or "unknown".
        basis: Sentences that say from what, the last words of each a link or a file.
        step: The training step to take; None where not even one image fits.
    """

    card: Card
    slowest: float
    fastest: float
    kind: str
    basis: tuple[str, ...]
    step: StepTrial | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one image costs a model in training, counted and not measured.

    Attributes:
        operations: Multiplications with addition of the forward pass.
        activations: Numbers that the forward pass keeps for the backward pass.
        weights: Parameters of the model.
    """

    operations: float
    activations: float
    weights: int


RESNET50 = Work(operations=4_089_184_256, activations=21_329_792, weights=25_557_032)  # at SIZE


def expect(card: Card, question: Question, *, classes: int, room: float) -> Expectation:
    """What to expect of a card for a model at a size.

    Args:
        card: The card.
        question: Model, size and effective batch.
        classes: Outputs of the model.
        room: Bytes of the card's memory that the training step may take.

    Raises:
        FastloadError: If there is no such model.
    """
    work = count_work(question.model, question.size, classes)
    slowest, fastest, kind, basis = _card_rate(card)
    least, most, more = _model_cost(question, work)
    if slowest and more:
        kind, basis = "estimated", [*basis, *more]
    if fastest / least > SHORT_STEPS:
        basis = [*basis, _SHORT_STEPS]
    return Expectation(
        card=card,
        slowest=slowest / most,
        fastest=fastest / least,
        kind=kind,
        basis=tuple(basis),
        step=_choose_step(card, question, work, room=room, rate=slowest / most),
    )


def count_work(model: str, size: int, classes: int) -> Work:
    """Count the work of one training image by a forward pass without data.

    Raises:
        FastloadError: If there is no such model, or it does not take images of that size.
    """
    network = skeleton(model, classes, size=size).train()
    weights = {weight.untyped_storage()._cdata for weight in network.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in weights:
            kept[storage] = tensor.numel()
        return tensor

    images = torch.empty(2, 3, size, size, device="meta")  # BatchNorm wants more than one
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    try:
        with FlopCounterMode(display=False) as counter, hooks:
            network(images)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise FastloadError(
            f"{model} does not take images of {size} pixels: {first_line(error)}"
        ) from error
    return Work(
        operations=counter.get_total_flops() / 4,  # a multiplication and an addition, two images
        activations=sum(kept.values()) / 2,
        weights=sum(weight.numel() for weight in network.parameters()),
    )


def _card_rate(card: Card) -> tuple[float, float, str, list[str]]:
    """Rate of ResNet-50 at 224 pixels: slowest, fastest, kind, basis."""
    table = card_table()
    if card.rate:
        source = table.sources[card.source]
        kind = "measured by us" if card.source == "ours" else "published"
        text = f"{_conditions(card)}; {source.title}: {source.link}"
        if card.layout == "contiguous" and card.has_tensor_cores:
            gain = (
                f"channels-last, which the trainer takes, may give up to {CHANNELS_LAST_GAIN:g}"
                f" times that, as on an RTX 3090; {table.sources['timm'].link}"
            )
            return card.rate, card.rate * CHANNELS_LAST_GAIN, kind, [text, gain]
        return card.rate, card.rate, kind, [text]
    if not card.basis:
        return 0.0, 0.0, "unknown", ["no published training rate of this card was found"]
    other = table.cards[card.basis]
    slowest, fastest, _, basis = _card_rate(other)
    ratios = sorted((card.cuda_cores / other.cuda_cores, card.gb_per_second / other.gb_per_second))
    least, most = ratios
    text = (
        f"no published rate of {card.name} was found: that of {other.name} times {least:.2f} to"
        f" {most:.2f}, the ratios of CUDA cores ({card.cuda_cores:,} to {other.cuda_cores:,}) and"
        f" memory bandwidth ({card.gb_per_second:g} to {other.gb_per_second:g} GB/s), and"
        f" {SPREAD:.0%} either way; limits of power are not in it; {table.sources[card.specs].link}"
    )
    ends = slowest * least * (1 - SPREAD), fastest * most * (1 + SPREAD)
    return *ends, "estimated", [*basis, text]


def _conditions(card: Card) -> str:
    return (
        f"ResNet-50 at {SIZE} pixels on {card.name}: {card.rate:,.0f} images/s, {card.amp},"
        f" {card.layout}, batches of {card.batch:,}"
    )


def _model_cost(question: Question, work: Work) -> tuple[float, float, list[str]]:
    """Time of an image over that of ResNet-50 at 224 pixels: least, most, basis."""
    table = card_table()
    known = table.models.get(question.model.removeprefix("timm:").partition(".")[0])
    if known:
        return _known_cost(question, known, table.models["resnet50"])
    costs = sorted((work.operations / RESNET50.operations, work.activations / RESNET50.activations))
    text = (
        f"{question.model} at {question.size} pixels: no published rate in the table; it has"
        f" {work.operations / RESNET50.operations:.2g} times ResNet-50's operations and"
        f" {work.activations / RESNET50.activations:.2g} times its activations (at {SIZE} pixels)"
    )
    return costs[0], costs[1], [text]


def _known_cost(
    question: Question, known: ModelRate, reference: ModelRate
) -> tuple[float, float, list[str]]:
    cost = reference.rate / known.rate * (question.size / known.size) ** 2
    basis = []
    if known is not reference:
        basis.append(
            f"{question.model} instead: on an RTX 3090 {known.rate:,.0f} images/s at {known.size}"
            f" pixels, ResNet-50 {reference.rate:,.0f}; {card_table().sources['timm'].link}"
        )
    if question.size != known.size:
        basis.append(f"{question.size} pixels instead of {known.size}: by the number of pixels")
    return cost, cost, basis


def _choose_step(
    card: Card, question: Question, work: Work, *, room: float, rate: float
) -> StepTrial | None:
    """The largest usual batch that fits and is not above the effective batch."""
    each = MIB_PER_IMAGE * 2**20 * work.activations / RESNET50.activations
    fixed = FIXED_MIB * 2**20 + BYTES_PER_WEIGHT * (work.weights - RESNET50.weights)
    fitting = [size for size in (1, 2, 4, 8, *BATCH_SIZES) if fixed + size * each <= room]
    if not fitting:
        return None
    batch_size = max(size for size in fitting if size <= question.effective_batch)
    return StepTrial(
        batch_size=batch_size,
        channels_last=True,
        amp="bf16" if card.computes_bf16 else "fp16",
        images_per_second=rate,
        gpu_bytes=int(fixed + batch_size * each),
    )
