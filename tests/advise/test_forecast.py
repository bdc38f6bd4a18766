"""The report for a card that is not here."""

from __future__ import annotations

import pytest

from fastload.advise import forecast as forecasts
from fastload.advise.advice import advise
from fastload.advise.cards import Card, find_card
from fastload.advise.expectation import Expectation
from fastload.advise.forecast import EPOCHS, card_report, cores_needed
from fastload.advise.trials import LoaderTrial, Question, StepTrial, Trials
from train.options import Options


def expectation(card: Card, slowest: float, fastest: float, *, step: bool = True) -> Expectation:
    return Expectation(
        card=card,
        slowest=slowest,
        fastest=fastest,
        kind="estimated" if fastest else "unknown",
        basis=("from somewhere; https://example.org",),
        step=StepTrial(
            batch_size=128,
            channels_last=True,
            amp="bf16",
            images_per_second=slowest,
            gpu_bytes=6 << 30,
        )
        if step
        else None,
    )


def lines_of(given: Expectation, loader_rate: float, **question) -> dict[str, str]:
    """The lines after the table, by their first word."""
    asked = Question(shards="s", **question)
    loaders = [LoaderTrial(backend="native", num_threads=2, images_per_second=loader_rate)]
    advice = advise(asked, loaders, [], expectation=given)
    lines = card_report(asked, Trials(loaders=loaders), advice, given, 360_000)
    return {line[:12].strip(): line[12:] for line in lines[lines.index("") + 1 :]}


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forecasts, "usable_cores", lambda: 2)


def test_the_default_of_epochs_is_the_trainers():
    assert Options().schedule.epochs == EPOCHS


def test_a_card_that_is_slower_than_the_loader_limits():
    lines = lines_of(expectation(find_card("3060"), 400, 500), 2000)
    assert lines["rate"].startswith("400 to 500 images/s for resnet50 at 224 pixels, estimated")
    assert "not measured here" in lines["rate"]
    assert lines["expect"] == (
        "12 min to 15 min per epoch of 360,000 images, 6.0 h to 7.5 h for 30 epochs,"
        " evaluation not counted"
    )
    assert lines["bottleneck"].startswith("the training step: RTX 3060 12 GB trains 400 to 500")
    assert lines["cores"].startswith("1 core like these feeds the card with a reserve of 25%")
    assert lines["cores"].endswith("2 cores here")
    assert lines["take"] == (
        "--loader native with 2 threads, batches of 128, 2 per optimizer step, AMP bf16,"
        " channels-last"
    )
    assert "6.0 of 12 GiB, estimated" in lines["batch"]
    assert lines["from"].endswith("https://example.org")
    assert "loader" not in lines


def test_a_loader_that_is_slower_than_the_card_limits():
    lines = lines_of(expectation(find_card("4090"), 1300, 1900), 1000, epochs=10)
    assert lines["bottleneck"].startswith("the loader: it gives 1,000 images/s on 2 threads")
    assert lines["expect"].startswith("6 min per epoch of 360,000 images, 60 min for 10 epochs")
    assert lines["cores"].startswith("5 cores like these feed the card")
    assert "try --loader dali" in lines["loader"]
    between = lines_of(expectation(find_card("4090"), 800, 1900), 1000)
    assert between["bottleneck"].startswith("either")


def test_without_a_jpeg_engine_dali_is_not_recommended():
    lines = lines_of(expectation(find_card("3090"), 1218, 1218), 1000)
    assert "would not help much" in lines["loader"]


def test_an_unknown_rate_leaves_the_loader_as_what_is_known():
    lines = lines_of(expectation(find_card("3060 laptop"), 0, 0), 1000)
    assert lines["rate"] == "unknown for resnet50 at 224 pixels"
    assert lines["expect"].startswith("6 min per epoch of 360,000 images at least, by the loader")
    assert lines["bottleneck"].startswith("unknown: the loader gives 1,000")
    assert lines["cores"] == "2 cores here; each feeds 500 images/s"
    assert "batches of 128" in lines["take"]


def test_old_cards_get_fp16_and_are_told_about_the_layout():
    lines = lines_of(expectation(find_card("1080 ti"), 240, 240), 1000)
    assert lines["AMP"].startswith("fp16")
    assert "without tensor cores" in lines["layout"]


def test_a_model_that_does_not_fit_leaves_the_rest_open():
    lines = lines_of(expectation(find_card("3060"), 4, 5, step=False), 1000)
    assert lines["take"] == "--loader native with 2 threads"
    assert "not one image fits 12 GiB" in lines["left open"]


def test_cores_are_counted_with_a_reserve():
    loader = LoaderTrial(backend="native", num_threads=4, images_per_second=4000)
    given = expectation(find_card("h200"), 4638, 4638)
    assert cores_needed(loader, given).startswith("6 cores like these feed the card")
