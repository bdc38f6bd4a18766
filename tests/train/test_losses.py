"""Losses for a long tail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from train.losses import balance, class_prior, class_weights, compounding
from train.options import LossOptions

COUNTS = np.array([90, 30, 9, 1])
CPU = torch.device("cpu")


def batch(seed: int = 0, samples: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, 4, generator=generator, requires_grad=True)
    return logits, torch.randint(4, (samples,), generator=generator)


def mean(reweight: str, options: LossOptions, logits: torch.Tensor, labels: torch.Tensor):
    total = balance(reweight, options, COUNTS, CPU).loss(logits, labels)
    return total.loss / total.weight


def test_cross_entropy_with_weights_is_that_of_torch():
    logits, labels = batch()
    weights = torch.tensor(class_weights("inverse", COUNTS), dtype=torch.float32)

    expected = functional.cross_entropy(logits, labels, weight=weights)

    assert torch.allclose(
        mean("none", LossOptions(class_weights="inverse"), logits, labels), expected
    )


def test_smoothing_without_weights_is_that_of_torch():
    logits, labels = batch()

    expected = functional.cross_entropy(logits, labels, label_smoothing=0.1)

    assert torch.equal(mean("none", LossOptions(label_smoothing=0.1), logits, labels), expected)


LONG_TAIL = np.array([5000, 500, 50, 5])
# One picture of each class, and mixtures of a common with a rare one, of neighbours, of three.
HARD = torch.arange(4)
MIXED = torch.tensor(
    [[0.5, 0, 0, 0.5], [0.9, 0.1, 0, 0], [0, 0.3, 0.7, 0], [0.2, 0.2, 0, 0.6], [1, 0, 0, 0]]
)


def optimum(options: LossOptions, labels: torch.Tensor) -> torch.Tensor:
    """The logits, for each sample, that the loss prefers to all others; with their mean 0."""
    loss = balance("none", options, LONG_TAIL, CPU).loss
    found = []
    for label in labels:  # one at a time: a rare class does not wait for a common one
        logits = torch.zeros(1, 4, requires_grad=True)
        solver = torch.optim.LBFGS(
            [logits], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
        )

        def closure(solver=solver, logits=logits, label=label) -> torch.Tensor:
            solver.zero_grad()
            total = loss(logits, label[None])
            mean = total.loss / total.weight
            mean.backward()
            return mean

        solver.step(closure)
        found.append(logits.detach() - logits.detach().mean())
    return torch.cat(found)


@pytest.mark.parametrize("rule", ["none", "inverse", "sqrt", "effective:0.999"])
@pytest.mark.parametrize("labels", [HARD, MIXED], ids=["hard", "mixed"])
@pytest.mark.parametrize("loss", ["cross-entropy", "balanced"])
def test_the_best_answer_is_the_smoothed_label_whatever_the_classes_weigh(loss, labels, rule):
    options = LossOptions(loss=loss, class_weights=rule, label_smoothing=0.1)
    shares = functional.one_hot(labels, 4).float() if labels.ndim == 1 else labels

    answers = optimum(options, labels)

    if loss == "balanced":  # it is minimised with the class frequencies in the logits
        answers = answers + torch.from_numpy(np.log(LONG_TAIL / LONG_TAIL.sum())).float()
    expected = 0.9 * shares + 0.1 / 4
    assert torch.allclose(answers.softmax(1), expected, atol=2e-3)


@pytest.mark.parametrize("loss", ["cross-entropy", "focal"])
def test_the_best_answer_to_a_mixed_picture_does_not_depend_on_class_weights(loss):
    # The answer to a pure picture has no bound, so that only mixed ones are asked.
    labels = torch.tensor([[0.5, 0.1, 0.1, 0.3], [0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])

    weighted = optimum(LossOptions(loss=loss, class_weights="inverse"), labels)

    assert torch.allclose(
        weighted.softmax(1), optimum(LossOptions(loss=loss), labels).softmax(1), atol=2e-3
    )
    if loss == "cross-entropy":
        assert torch.allclose(weighted.softmax(1), labels, atol=2e-3)


@pytest.mark.parametrize("loss", ["cross-entropy", "focal", "balanced"])
def test_a_sample_weighs_as_its_class_or_the_mean_over_its_shares(loss):
    labels = torch.cat([functional.one_hot(HARD, 4).float(), MIXED])
    logits, _ = batch(samples=len(labels))
    smoothing = 0.0 if loss == "focal" else 0.1
    weights = torch.tensor(class_weights("sqrt", COUNTS), dtype=torch.float32)
    options = LossOptions(loss=loss, class_weights="sqrt", label_smoothing=smoothing)
    plain = balance("none", LossOptions(loss=loss, label_smoothing=smoothing), COUNTS, CPU).loss
    of_each = torch.stack([plain(logits[i : i + 1], labels[i : i + 1]).loss for i in range(9)])

    found = balance("none", options, COUNTS, CPU).loss(logits, labels)

    assert torch.allclose(found.loss, (of_each * (labels @ weights)).sum())
    assert torch.allclose(found.weight, (labels @ weights).sum())


@pytest.mark.parametrize("loss", ["cross-entropy", "focal", "balanced"])
@pytest.mark.parametrize("weights", ["none", "inverse"])
def test_sums_over_parts_give_the_loss_of_the_whole_batch(loss, weights):
    logits, labels = batch()
    chosen = balance("none", LossOptions(loss=loss, class_weights=weights), COUNTS, CPU).loss
    whole = chosen(logits, labels)

    parts = [chosen(logits[i : i + 5], labels[i : i + 5]) for i in range(0, 16, 5)]

    assert torch.allclose(torch.stack([part.loss for part in parts]).sum(), whole.loss)
    assert torch.allclose(torch.stack([part.weight for part in parts]).sum(), whole.weight)
    for total in (whole, *parts):  # what the host knows is what the device has
        known = total.known_weight
        assert (known is None) == (weights != "none")
        assert known is None or known == float(total.weight)


def test_focal_loss_follows_its_formula():
    logits, labels = batch()
    own = torch.softmax(logits, 1)[torch.arange(16), labels]

    expected = (-((1 - own) ** 1.5) * own.log()).mean()

    options = LossOptions(loss="focal", focal_gamma=1.5)
    assert torch.allclose(mean("none", options, logits, labels), expected)


def test_focal_loss_without_gamma_is_cross_entropy():
    logits, labels = batch()
    options = LossOptions(loss="focal", focal_gamma=0.0, class_weights="sqrt")

    expected = mean("none", LossOptions(class_weights="sqrt"), logits, labels)

    assert torch.allclose(mean("none", options, logits, labels), expected)


def test_focal_loss_has_finite_gradients_where_the_answer_is_certain():
    logits = torch.tensor([[100.0, 0, 0, 0]], requires_grad=True)
    options = LossOptions(loss="focal", focal_gamma=0.5)

    mean("none", options, logits, torch.tensor([0])).backward()

    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_balanced_loss_is_the_softmax_weighted_by_class_counts():
    logits, labels = batch()
    counts = torch.tensor(COUNTS)
    weighted = logits.exp() * counts
    expected = -(weighted[torch.arange(16), labels] / weighted.sum(1)).log().mean()

    found = mean("none", LossOptions(loss="balanced"), logits, labels)

    assert torch.allclose(found, expected, atol=1e-5)


def test_the_balanced_loss_of_evenly_drawn_classes_is_cross_entropy():
    logits, labels = batch()

    found = mean("inverse", LossOptions(loss="balanced"), logits, labels)

    assert torch.allclose(found, functional.cross_entropy(logits, labels), atol=1e-6)


@pytest.mark.parametrize(
    "options", [LossOptions(), LossOptions(loss="focal"), LossOptions(loss="balanced")]
)
def test_labels_of_one_hot_rows_are_those_of_numbers(options):
    logits, labels = batch()
    hot = functional.one_hot(labels, 4).float()

    assert torch.allclose(
        mean("none", options, logits, hot), mean("none", options, logits, labels), atol=1e-6
    )


@pytest.mark.parametrize(
    ("reweight", "options", "left"),
    [
        ("none", LossOptions(), COUNTS),
        ("inverse", LossOptions(), np.ones(4)),
        ("sqrt", LossOptions(), np.sqrt(COUNTS)),
        ("none", LossOptions(class_weights="inverse"), np.ones(4)),
        ("none", LossOptions(loss="balanced"), np.ones(4)),
        ("sqrt", LossOptions(loss="balanced"), np.ones(4)),
        ("none", LossOptions(loss="balanced", tau=0.5), np.sqrt(COUNTS)),
        ("none", LossOptions(tau=2.0), COUNTS.astype(float) ** 2),
    ],
)
def test_the_correction_is_what_sampling_and_loss_have_left_over(reweight, options, left):
    log_prior = balance(reweight, options, COUNTS, CPU).log_prior

    differences = log_prior - log_prior[0]

    assert np.allclose(differences, np.log(left) - np.log(left[0]), atol=1e-5)


@pytest.mark.parametrize("rule", ["inverse", "sqrt", "effective:0.99"])
def test_class_weights_average_one_over_the_images_and_rise_as_classes_get_rarer(rule):
    weights = class_weights(rule, COUNTS)

    assert (weights * COUNTS).sum() / COUNTS.sum() == pytest.approx(1)
    assert (np.diff(weights) > 0).all()


def test_without_a_rule_all_classes_weigh_the_same():
    assert class_weights("none", COUNTS).tolist() == [1, 1, 1, 1]


def test_a_class_that_is_never_seen_counts_as_the_rarest():
    counts = np.array([8, 0, 2])

    prior = class_prior(counts, class_weights("none", counts))

    assert torch.isfinite(prior.log()).all()
    assert prior.tolist() == pytest.approx([8 / 12, 2 / 12, 2 / 12])


def test_sampling_and_class_weights_together_are_warned_of():
    assert compounding("none", LossOptions(class_weights="sqrt")) is None
    assert compounding("sqrt", LossOptions()) is None
    assert "compound" in str(compounding("sqrt", LossOptions(class_weights="sqrt")))
    assert "one of the two is enough" in str(compounding("sqrt", LossOptions(loss="balanced")))
