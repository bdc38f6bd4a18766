"""A trained model as a program of its own, pixels to probabilities, and what must go with it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastload.installation import version
from fastload.load.augment import CenterCrop
from fastload.load.box import resized_shorter_side
from train.trained import Trained


class Answering(nn.Module):
    """Normalises, asks the model, and divides by the temperature.

    Args:
        trained: The model, on the CPU.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self.model = trained.model.to(memory_format=torch.contiguous_format)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in trained.normalise)
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", mean / std)
        self.temperature = trained.temperature

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [N, 3, S, S], RGB, to probabilities and logits, float32 [N, C] each."""
        logits = self.model(images.float() * self.scale - self.shift).float()
        return torch.softmax(logits / self.temperature, 1), logits


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a program that uses the model must know, as JSON has it.

    Attributes:
        fastload: The version that wrote it.
        model: The name of the model, for `build_model`.
        classes: Names of the class folders; the position is the label.
        class_names: Readable names of the classes.
        size: The side of the images in pixels; no other will do.
        resize: The shorter side of a photograph before the middle is cut out.
        preprocessing: The same in words.
        mean: Of red, green and blue, on the scale [0, 1].
        std: The standard deviation of the same.
        temperature: What the logits are divided by to be probabilities.
        thresholds: k -> the threshold on softmax(logits) that gives sets of k classes on average.
    """

    fastload: str
    model: str
    classes: list[str]
    class_names: list[str]
    size: int
    resize: int
    preprocessing: str
    mean: list[float]
    std: list[float]
    temperature: float
    thresholds: dict[str, float]

    def json(self) -> str:
        """One object of JSON."""
        return _json(asdict(self))

    def strings(self) -> dict[str, str]:
        """Each fact as a text; JSON where it is none."""
        found = asdict(self)
        return {
            key: value if isinstance(value, str) else _json(value) for key, value in found.items()
        }


def facts_of(trained: Trained) -> Facts:
    """What must go with a model."""
    size, resize = trained.size, resize_for(trained.size)
    mean, std = trained.normalise
    return Facts(
        fastload=version(),
        model=trained.name,
        classes=list(trained.classes),
        class_names=list(trained.class_names),
        size=size,
        resize=resize,
        preprocessing=(
            f"turn upright by EXIF, to RGB; resize the shorter side to {resize} (bilinear, "
            f"antialiased; the longer side is rounded down); cut {size} x {size} out of the middle"
        ),
        mean=list(mean),
        std=list(std),
        temperature=trained.temperature,
        thresholds={str(k): value for k, value in trained.thresholds.items()},
    )


def resize_for(size: int) -> int:
    """The shorter side of a photograph of which evaluation sees the middle `size` pixels."""
    return resized_shorter_side(size, CenterCrop().fraction)


def _json(value: Any) -> str:  # noqa: ANN401  any of JSON's types
    """JSON with letters of any script; escapes where a name is no text."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value)
    return text
