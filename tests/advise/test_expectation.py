"""What is expected of a card that is not here, against the figures it is made from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from fastload.advise import expectation
from fastload.advise.advice import gpu_room
from fastload.advise.cards import card_table, find_card
from fastload.advise.expectation import (
    CHANNELS_LAST_GAIN,
    FIXED_MIB,
    MIB_PER_IMAGE,
    RESNET50,
    SPREAD,
    Expectation,
    Work,
    count_work,
    expect,
)
from fastload.advise.trials import Question
from fastload.errors import FastloadError
from fastload.load.backend import BackendName

OURS = Path(__file__).parents[2] / "benchmarks/rows/gpu.jsonl"


def expected(card: str, **question) -> Expectation:
    found = find_card(card)
    room = gpu_room(found.memory_gib * 2**30, BackendName.NATIVE)
    return expect(found, Question(shards="s", **question), classes=1000, room=room)


@pytest.fixture(autouse=True)
def counted_once(monkeypatch: pytest.MonkeyPatch):
    """ResNet-50 is counted by the test of its constants alone: it takes seconds."""
    count = count_work

    def remembered(model: str, size: int, classes: int) -> Work:
        if model != "resnet50":
            return count(model, size, classes)
        area = (size / 224) ** 2
        operations, activations = RESNET50.operations * area, RESNET50.activations * area
        return Work(operations=operations, activations=activations, weights=RESNET50.weights)

    monkeypatch.setattr(expectation, "count_work", remembered)


def test_resnet50_is_counted_as_the_constants_say():
    assert count_work("resnet50", 224, 1000) == RESNET50


def test_a_small_network_is_counted_exactly(monkeypatch: pytest.MonkeyPatch):
    def tiny(name: str, classes: int, *, size: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten()).to("meta")

    monkeypatch.setattr(expectation, "skeleton", tiny)
    work = count_work("tiny", 10, 2)
    assert work.operations == 8 * 27 * 100
    assert work.activations == 3 * 100 + 8 * 100  # the convolution's input, the ReLU's output
    assert work.weights == 8 * 27 + 8


def test_a_card_that_we_measured_is_marked_so():
    found = expected("H200")
    assert found.slowest == found.fastest == 4638
    assert found.kind == "measured by us"
    assert "gpu.jsonl" in found.basis[0]


def test_a_published_rate_is_taken_as_it_is_where_the_layout_is_the_trainers():
    found = expected("3090")
    assert found.slowest == found.fastest == 1218
    assert found.kind == "published"
    assert len(found.basis) == 1
    assert "rtx3090.csv" in found.basis[0]


def test_a_rate_of_the_other_layout_is_the_lower_end():
    found = expected("4090")
    assert (found.slowest, found.fastest) == (1301, 1301 * CHANNELS_LAST_GAIN)
    assert found.kind == "published"
    old = expected("1080 ti")
    assert old.slowest == old.fastest == 240  # nothing to gain without tensor cores


def test_a_card_without_a_rate_is_estimated_and_says_from_what():
    found = expected("3060")
    assert found.kind == "estimated"
    assert found.slowest == pytest.approx(1218 * 3584 / 10496 * (1 - SPREAD))
    assert found.fastest == pytest.approx(1218 * 360 / 936 * (1 + SPREAD))
    assert "RTX 3090: 1,218 images/s" in found.basis[0]
    assert "no published rate of RTX 3060 12 GB" in found.basis[1]


def test_a_card_of_which_nothing_is_known_has_no_rate_but_a_batch_size():
    found = expected("3060 laptop")
    assert (found.slowest, found.fastest, found.kind) == (0, 0, "unknown")
    assert found.step
    assert (found.step.batch_size, found.step.amp) == (64, "bf16")


@pytest.mark.parametrize("names", [("resnet18",), ("timm:resnet18", "timm:resnet18.a1_in1k")])
def test_another_model_takes_its_published_rate(names, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(expectation, "count_work", lambda *_: RESNET50)
    for name in names:
        found = expected("3090", model=name)
        assert found.slowest == found.fastest == pytest.approx(3481.78, rel=1e-4)
        assert found.kind == "estimated"
        assert found.basis[1].startswith(f"{name} instead")


def test_a_model_without_a_rate_lies_between_its_operations_and_its_activations():
    found = expected("3090", model="squeezenet1_1")
    work = count_work("squeezenet1_1", 224, 1000)
    ends = (
        1218 * RESNET50.operations / work.operations,
        1218 * RESNET50.activations / work.activations,
    )
    assert (found.slowest, found.fastest) == pytest.approx(sorted(ends))
    assert found.kind == "estimated"
    assert "no published rate" in found.basis[1]


def test_models_of_published_rates_cost_what_their_work_says_or_a_half_more():
    rates = card_table().models
    for name in ("resnet18", "mobilenet_v3_large", "vgg16", "densenet121", "swin_t"):
        work = count_work(name, rates[name].size, 1000)
        costs = (
            work.operations / RESNET50.operations,
            work.activations / RESNET50.activations,
        )
        assert min(costs) < rates["resnet50"].rate / rates[name].rate < 1.55 * max(costs)


def test_another_size_is_estimated_by_its_pixels():
    found = expected("3090", size=448)
    assert found.slowest == pytest.approx(1218 / 4)
    assert found.kind == "estimated"
    assert found.step
    assert found.step.batch_size == 64


def test_steps_that_are_short_are_said_to_wait_for_python():
    assert "wait for Python" in expected("H200", size=64).basis[-1]


def test_the_memory_is_that_of_the_batches_that_we_measured():
    rows = [json.loads(line) for line in OURS.read_text().splitlines()]
    steps = [
        row
        for row in rows
        if row["benchmark"] == "training-step" and row["memory_format"] == "channels-last"
    ]
    assert len(steps) >= 4
    for row in steps:
        assert FIXED_MIB + MIB_PER_IMAGE * row["batch_size"] == pytest.approx(
            row["peak_gpu_mib"], rel=0.01
        )


@pytest.mark.parametrize(
    ("card", "batch_size", "amp"),
    [
        ("1060", 64, "fp16"),
        ("2080 ti", 128, "fp16"),
        ("3060", 128, "bf16"),
        ("v100", 256, "fp16"),
        ("a100", 256, "bf16"),
    ],
)
def test_the_batch_fits_and_is_not_above_the_effective_batch(card, batch_size, amp):
    found = expected(card)
    assert found.step
    assert (found.step.batch_size, found.step.amp) == (batch_size, amp)
    assert found.step.gpu_bytes < 0.9 * found.card.memory_gib * 2**30
    small = expected(card, effective_batch=50).step
    assert small
    assert small.batch_size == 32


def test_a_model_that_does_not_fit_gets_no_batch(monkeypatch: pytest.MonkeyPatch):
    giant = Work(operations=1e12, activations=1e11, weights=10**10)
    monkeypatch.setattr(expectation, "count_work", lambda *_: giant)
    assert expected("3060", model="regnet_y_128gf").step is None


def test_a_size_that_the_model_does_not_take_is_one_sentence():
    with pytest.raises(FastloadError, match="vgg11 does not take images of 8 pixels: "):
        expected("3060", model="vgg11", size=8)


def test_counting_leaves_the_default_device_alone():
    count_work("squeezenet1_1", 64, 10)
    assert torch.empty(1).device.type == "cpu"
