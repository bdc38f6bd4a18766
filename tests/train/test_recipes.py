"""The shipped recipes: what they say of themselves is true."""

from __future__ import annotations

import re

import pytest

from train.recipe import RECIPES, build_options, read_recipe
from train.schedule import size_at

TRAIN_IMAGES, VAL_IMAGES = 243_916, 31_118  # of Pl@ntNet-300K
SLOWEST = 350.0  # images/s of ResNet-50 at 224 pixels on an RTX 3060, the lower end of the estimate
EVALUATION = 3.0  # a forward pass, against forward, backward and step


@pytest.mark.parametrize("name", ["2h", "5h", "12h"])
def test_a_recipe_for_the_hours_fits_into_them(name: str):
    path = RECIPES / f"plantnet300k-rtx3060-{name}.toml"
    options = build_options(read_recipe(path), path.name)
    resolution, epochs = options.resolution, options.schedule.epochs
    sides = [size_at(resolution, epoch=epoch, epochs=epochs) for epoch in range(epochs)]
    pixels = TRAIN_IMAGES * sum((side / 224) ** 2 for side in sides)
    pixels += epochs * VAL_IMAGES * (resolution.eval_size / 224) ** 2 / EVALUATION
    hours = pixels / SLOWEST / 3600
    assert hours <= int(name.removesuffix("h"))
    text = " ".join(path.read_text(encoding="utf-8").replace("\n#", " ").split())
    assert re.findall(r"take ([\d.]+) hours", text) == [f"{hours:.1f}"]
