"""The figures of an evaluation, against a reference that is slow and obvious."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from train.metrics import (
    KS,
    Evaluation,
    Largest,
    average_k_thresholds,
    confused_pairs,
    correct_prior,
    evaluate_logits,
    ks_for,
    macro_average,
    rates_by_class,
    shot_groups,
    true_ranks,
)


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(value - max(row)) for value in row]
    return [power / sum(powers) for power in powers]


def reference(
    logits: list[list[float]], labels: list[int], thresholds: dict[int, float] | None = None
) -> dict[str, float]:
    """Pl@ntNet-300K's definitions, word by word, in plain Python."""
    num_classes = len(logits[0])
    probabilities = [softmax(row) for row in logits]
    everything = sorted((p for row in probabilities for p in row), reverse=True)
    figures = {}
    for k in KS:
        if k >= num_classes:
            continue
        size = len(labels) * k
        threshold = (everything[size - 1] + everything[size]) / 2
        if thresholds is not None:
            threshold = thresholds[k]
        hits: dict[str, dict[int, list[bool]]] = {"top": {}, "average": {}}
        for row, probability, label in zip(logits, probabilities, labels, strict=True):
            best = sorted(range(num_classes), key=lambda c: (-row[c], c))[:k]
            hits["top"].setdefault(label, []).append(label in best)
            inside = probability[label] >= threshold
            hits["average"].setdefault(label, []).append(inside)
        for family, by_class in hits.items():
            every = [hit for of_class in by_class.values() for hit in of_class]
            means = [sum(of_class) / len(of_class) for of_class in by_class.values()]
            figures[f"{family}{k}"] = sum(every) / len(every)
            figures[f"macro_{family}{k}"] = sum(means) / len(means)
    losses = [-math.log(p[label]) for p, label in zip(probabilities, labels, strict=True)]
    figures["loss"] = sum(losses) / len(losses)
    return figures


def all_at_once(logits: torch.Tensor, labels: torch.Tensor) -> Evaluation:
    """The figures from the whole matrix of probabilities, some copies of which are in memory."""
    samples, classes = logits.shape
    probabilities = torch.softmax(logits, 1)
    ks = ks_for(classes)
    ordered = probabilities.flatten().sort(descending=True).values
    thresholds = {k: float(0.5 * (ordered[samples * k - 1] + ordered[samples * k])) for k in ks}
    own = probabilities[torch.arange(samples), labels]
    ranks = logits.sort(dim=1, descending=True, stable=True).indices.eq(labels[:, None]).int()
    ranks = ranks.argmax(1)
    figures = {"loss": float(-torch.log_softmax(logits, 1)[range(samples), labels].double().mean())}
    for k in ks:
        for name, hits in ((f"top{k}", ranks < k), (f"average{k}", own >= thresholds[k])):
            figures[name] = float(hits.double().mean())
            figures[f"macro_{name}"] = macro_average(rates_by_class(hits, labels, classes))
    nothing = torch.zeros(0)
    return Evaluation(
        figures=figures,
        thresholds=thresholds,
        class_counts=torch.bincount(labels, minlength=classes),
        class_top1=rates_by_class(ranks < 1, labels, classes),
        class_top5=nothing,
    )


def random_scores(seed: int, samples: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and long-tailed labels; some classes have no sample."""
    random = np.random.default_rng(seed)
    shares = 1 / (1 + np.arange(classes)) ** 1.5
    labels = random.choice(classes, samples, p=shares / shares.sum())
    logits = random.normal(size=(samples, classes)) * 2
    logits[np.arange(samples), labels] += 1.5
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(labels)


@pytest.mark.parametrize(("samples", "classes"), [(200, 30), (57, 12), (40, 11), (25, 6), (9, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_every_figure_is_that_of_the_reference(seed, samples, classes):
    logits, labels = random_scores(seed, samples, classes)

    found = evaluate_logits(logits, labels, train_counts=torch.ones(classes, dtype=torch.int64))

    expected = reference(logits.tolist(), labels.tolist())
    assert {name: found.figures[name] for name in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("steps", [0, 4])
@pytest.mark.parametrize(("samples", "classes"), [(1, 2), (255, 3), (256, 30), (900, 40), (700, 2)])
def test_the_figures_are_to_the_last_bit_those_of_all_logits_at_once(samples, classes, steps):
    logits, labels = random_scores(samples, samples, classes)
    if steps:  # many equal scores, also across samples
        logits = (logits * steps).round() / steps

    found = evaluate_logits(logits, labels, train_counts=torch.ones(classes, dtype=torch.int64))

    expected = all_at_once(logits, labels)
    assert found.thresholds == expected.thresholds
    assert {name: found.figures[name] for name in expected.figures} == expected.figures
    assert torch.equal(found.class_counts, expected.class_counts)
    assert torch.allclose(found.class_top1, expected.class_top1, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("kept", [1, 7, 100, 5000])
@pytest.mark.parametrize("levels", [3, 10**9])
def test_the_largest_values_are_found_in_parts(kept, levels):
    values = torch.from_numpy(np.random.default_rng(kept).integers(levels, size=4000)).double()
    largest = Largest(kept)

    for part in values.split([0, 1, 99, 900, 2000, 1000]):
        largest.add(part)
        assert sum(map(len, largest._parts)) <= max(2 * kept, len(part) + kept)

    assert largest.values().sort().values.tolist() == values.sort().values[-kept:].tolist()


def test_the_thresholds_of_validation_are_used_again_on_test():
    val, val_labels = random_scores(1, 80, 15)
    test, test_labels = random_scores(2, 50, 15)
    counts = torch.ones(15, dtype=torch.int64)
    chosen = evaluate_logits(val, val_labels, train_counts=counts).thresholds

    found = evaluate_logits(test, test_labels, train_counts=counts, thresholds=chosen)

    expected = reference(test.tolist(), test_labels.tolist(), chosen)
    assert found.thresholds == chosen
    assert {name: found.figures[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    own = reference(test.tolist(), test_labels.tolist())
    assert own["average3"] != expected["average3"]


def test_sets_hold_k_classes_on_average_at_the_threshold():
    logits, _ = random_scores(3, 100, 40)
    probabilities = torch.softmax(logits, 1)

    found = average_k_thresholds(probabilities.flatten(), 100, (1, 3, 5, 10))
    for k, threshold in found.items():
        assert float((probabilities >= threshold).sum(1).double().mean()) == k


def test_a_repeated_sample_moves_the_threshold():
    probabilities = torch.softmax(random_scores(4, 30, 8)[0], 1)
    unsure = probabilities.amax(1).argmin()
    padded = torch.cat([probabilities, probabilities[unsure : unsure + 1].expand(6, -1)])

    own = average_k_thresholds(probabilities.flatten(), 30, [1])
    assert own != average_k_thresholds(padded.flatten(), 36, [1])


def test_equal_scores_are_ordered_by_class_number():
    scores = torch.tensor([[1.0, 1.0, 0.0, 1.0]] * 4)

    assert true_ranks(scores, torch.arange(4)).tolist() == [0, 1, 3, 2]


def test_a_network_that_says_the_same_of_everything_is_right_by_chance_only():
    logits, labels = torch.zeros(40, 20), torch.arange(20).repeat(2)

    found = evaluate_logits(logits, labels, train_counts=torch.ones(20, dtype=torch.int64)).figures

    assert found["top1"] == found["macro_top1"] == pytest.approx(1 / 20)
    assert found["top5"] == pytest.approx(5 / 20)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(bad):
    logits, labels = random_scores(0, 10, 4)
    logits[3, 2] = bad

    with pytest.raises(ValueError, match="finite, found NaN or infinity; the model has diverged"):
        evaluate_logits(logits, labels, train_counts=torch.ones(4, dtype=torch.int64))


def test_half_precision_is_judged_in_float32():
    logits, labels = random_scores(5, 60, 12)
    logits = logits.bfloat16()
    counts = torch.ones(12, dtype=torch.int64)

    half = evaluate_logits(logits, labels, train_counts=counts)
    full = evaluate_logits(logits.float(), labels, train_counts=counts)

    assert half.figures == pytest.approx(full.figures, nan_ok=True)


def test_classes_without_samples_are_left_out_of_the_macro_average():
    labels = torch.tensor([0, 0, 2])
    rates = rates_by_class(torch.tensor([True, False, True]), labels, 4)

    assert rates.tolist()[0::2] == [0.5, 1.0]
    assert rates[1::2].isnan().all()
    assert macro_average(rates) == 0.75
    assert math.isnan(macro_average(rates, torch.tensor([False, True, False, True])))


def test_shots_are_counted_in_training_images():
    groups = shot_groups(torch.tensor([500, 101, 100, 20, 19, 0]))

    assert groups["many_shot"].tolist() == [True, True, False, False, False, False]
    assert groups["medium_shot"].tolist() == [False, False, True, True, False, False]
    assert groups["few_shot"].tolist() == [False, False, False, False, True, True]


def test_many_and_few_shot_accuracy_are_averages_over_their_classes():
    logits = torch.eye(3)[[0, 0, 1, 0, 2]]
    labels = torch.tensor([0, 0, 1, 1, 2])

    found = evaluate_logits(logits, labels, train_counts=torch.tensor([200, 150, 5])).figures

    assert found["many_shot"] == 0.75
    assert found["few_shot"] == 1.0
    assert math.isnan(found["medium_shot"])


def test_k_says_nothing_about_k_classes_or_fewer():
    assert ks_for(10) == (1, 3, 5)
    assert ks_for(1) == ()
    with pytest.raises(ValueError, match=r"k must be in \[1, 3\), got \[3\]"):
        average_k_thresholds(torch.full((6,), 1 / 3), 2, [3])


def test_correcting_the_prior_undoes_it():
    random = np.random.default_rng(0)
    prior = torch.tensor([0.7, 0.2, 0.1])
    likelihood = torch.tensor(random.normal(size=(50, 3)), dtype=torch.float32)

    corrected = correct_prior(likelihood + prior.log(), prior.log())

    assert torch.allclose(corrected, likelihood, atol=1e-6)


def test_confused_pairs_come_by_frequency_then_class():
    labels = torch.tensor([0, 0, 0, 1, 2, 2, 1])
    predicted = torch.tensor([1, 1, 0, 2, 0, 0, 1])

    assert confused_pairs(predicted, labels, most=2) == [(0, 1, 2), (2, 0, 2)]
    assert confused_pairs(labels, labels, most=5) == []
