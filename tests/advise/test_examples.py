"""Images to try back-ends with are sound, and as varied as photographs."""

from __future__ import annotations

import io

from PIL import Image

from fastload.advise.examples import made_examples
from fastload.pixels.jpeg import read_header


def test_the_made_examples_are_sound_jpegs_of_two_samplings():
    examples = made_examples()
    assert len(examples.jpegs) == len(examples.boxes) == len(examples.flips) == 10
    for jpeg, box in zip(examples.jpegs, examples.boxes.tolist(), strict=True):
        width, height = Image.open(io.BytesIO(jpeg)).size
        top, left, tall, wide = box
        assert 0 <= top < top + tall <= height
        assert 0 <= left < left + wide <= width
    assert len({read_header(jpeg).sampling for jpeg in examples.jpegs}) == 2
    assert set(examples.flips.tolist()) == {True, False}
