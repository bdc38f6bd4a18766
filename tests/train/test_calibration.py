"""The temperature, against a slow and obvious search, and what it does to probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from train.calibration import (
    TemperatureFit,
    calibration,
    calibration_of,
    fit_temperature,
    temperature_of,
)


def calibrated(samples: int, classes: int, *, spread: float = 2.0, seed: int = 0):
    """Logits whose softmax is the very probability with which each label was drawn."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(samples, classes)) * spread
    powers = np.exp(logits - logits.max(1, keepdims=True))
    edges = (powers / powers.sum(1, keepdims=True)).cumsum(1)
    labels = (random.random((samples, 1)) > edges).sum(1).clip(max=classes - 1)
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(labels)


def loss_at(logits: torch.Tensor, labels: torch.Tensor, temperature: float) -> float:
    logs = torch.log_softmax(logits.double() / temperature, 1)
    return float(-logs.gather(1, labels[:, None]).mean())


@pytest.mark.parametrize("factor", [0.25, 0.5, 0.9, 1.0, 1.7, 3.0, 5.0])
@pytest.mark.parametrize("classes", [2, 10, 200])
def test_the_temperature_is_where_the_loss_is_least(factor, classes):
    logits, labels = calibrated(3000, classes)
    logits *= factor

    found = fit_temperature(logits, labels)

    assert found == pytest.approx(factor, rel=0.1)  # by how the labels were drawn
    fine = np.exp(np.linspace(math.log(found) - 0.05, math.log(found) + 0.05, 201))
    losses = [loss_at(logits, labels, temperature) for temperature in fine]
    assert fine[int(np.argmin(losses))] == pytest.approx(found, rel=5e-3)


def test_the_temperature_does_not_depend_on_batches_or_ranks():
    logits, labels = calibrated(1000, 30)
    whole = fit_temperature(logits, labels)

    for sizes in ([1000], [1, 999], [300, 300, 400]):
        fits = [TemperatureFit() for _ in sizes]
        for fit, part, truth in zip(fits, logits.split(sizes), labels.split(sizes), strict=True):
            fit.add(part, truth)
        sums = torch.stack([fit.sums() for fit in fits]).sum(0)
        assert temperature_of(sums) == whole


def test_the_loss_does_not_rise_and_the_order_stays():
    logits, labels = calibrated(2000, 20, seed=3)
    logits *= 2.5

    temperature = fit_temperature(logits, labels)

    assert loss_at(logits, labels, temperature) < loss_at(logits, labels, 1.0)
    before = calibration(torch.softmax(logits, 1), labels).error
    after = calibration(torch.softmax(logits / temperature, 1), labels).error
    assert after < 0.03 < 0.2 < before


@pytest.mark.parametrize("samples", [1, 5, 100])
@pytest.mark.parametrize("margin", [0.0, 0.3, 1.0, 2.0])
def test_answers_that_are_all_right_are_believed_as_far_as_there_are_samples(samples, margin):
    labels = torch.arange(samples) % 4
    logits = margin * torch.eye(4)[labels]

    temperature = fit_temperature(logits, labels)

    sure = float(torch.softmax(logits / temperature, 1)[0, labels[0]])
    assert float(torch.softmax(logits, 1)[0, labels[0]]) <= sure + 1e-6
    assert sure < 1 - 0.1 / samples
    assert temperature >= 0.125


def test_answers_that_are_right_and_sure_stay_as_they_are():
    labels = torch.arange(1000) % 4

    assert fit_temperature(50 * torch.eye(4)[labels], labels) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3, 1e6])
def test_answers_that_are_all_wrong_are_not_believed(scale):
    labels = torch.arange(40) % 4
    logits = scale * torch.eye(4)[(labels + 1) % 4]

    temperature = fit_temperature(logits, labels)

    assert temperature == pytest.approx(1.0, abs=1e-3) if scale == 1e-6 else temperature > 2
    assert temperature <= 8


def test_no_sample_no_temperature():
    assert fit_temperature(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)) == 1.0


def test_large_logits_are_no_infinity():
    logits, labels = calibrated(200, 5)

    assert fit_temperature(logits + 1e4, labels) == pytest.approx(
        fit_temperature(logits, labels), rel=1e-2
    )


def slow_error(confidences: list[float], right: list[bool], bins: int) -> float:
    total = 0.0
    for number in range(bins):
        inside = [
            (sure, hit)
            for sure, hit in zip(confidences, right, strict=True)
            if number / bins < sure <= (number + 1) / bins or (sure == 0 and number == 0)
        ]
        if inside:
            mean = sum(sure for sure, _ in inside) / len(inside)
            share = sum(hit for _, hit in inside) / len(inside)
            total += len(inside) / len(confidences) * abs(mean - share)
    return total


@pytest.mark.parametrize("bins", [1, 2, 10, 15])
def test_the_calibration_error_is_that_of_its_definition(bins):
    random = np.random.default_rng(bins)
    sure = np.concatenate([random.random(300), [0.0, 1.0, 0.5, 0.2, 0.1]])
    right = random.random(305) < sure

    found = calibration_of(torch.tensor(sure), torch.tensor(right), bins)

    assert found.error == pytest.approx(slow_error(sure.tolist(), right.tolist(), bins))
    assert len(found.bins) == bins
    assert sum(each.count for each in found.bins) == 305


def test_bins_tell_how_sure_and_how_right_their_answers_are():
    sure = torch.tensor([0.95, 0.85, 0.9, 0.3])
    right = torch.tensor([True, False, True, False])

    least, *_, most = calibration_of(sure, right, 2).bins

    assert (least.count, least.accuracy) == (1, 0.0)
    assert least.confidence == pytest.approx(0.3)
    assert most.count == 3
    assert most.accuracy == pytest.approx(2 / 3)
    assert most.confidence == pytest.approx(0.9)
    assert math.isnan(calibration_of(sure[:0], right[:0]).error)
