"""Learning rate, image size, and the end of a run, as pure functions."""

from __future__ import annotations

import math
from typing import Any

import pytest

from train.options import OptimisationOptions, ResolutionOptions, ScheduleOptions
from train.schedule import base_rate, has_stopped_improving, is_over, rate_factor, size_at


def factors(options: ScheduleOptions, steps_per_epoch: int, history=()) -> list[float]:
    return [
        rate_factor(options, step=step, steps_per_epoch=steps_per_epoch, history=history)
        for step in range(options.epochs * steps_per_epoch)
    ]


def test_warm_up_rises_in_a_straight_line_and_cosine_falls_to_nearly_nothing():
    found = factors(ScheduleOptions(epochs=5, warmup_epochs=1), 10)

    assert found[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert found[10] == 1.0
    assert found[30] == pytest.approx(0.5)
    assert 0 < found[-1] < 0.01
    assert found[10:] == sorted(found[10:], reverse=True)


def test_step_lowers_the_rate_at_the_given_epochs():
    options = ScheduleOptions(
        epochs=4, schedule="step", warmup_epochs=0, step_epochs=(1, 3), step_factor=0.1
    )

    assert factors(options, 2) == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_plateau_lowers_the_rate_after_epochs_without_a_new_best():
    options = ScheduleOptions(schedule="plateau", warmup_epochs=0, patience=2, step_factor=0.5)

    def after(*history: float) -> float:
        return rate_factor(options, step=5, steps_per_epoch=1, history=history)

    assert after(0.1, 0.2, 0.2) == 1.0
    assert after(0.1, 0.2, 0.2, 0.1) == 0.5
    assert after(0.1, 0.2, 0.2, 0.1, 0.3, 0.1) == 0.5
    assert after(0.1, 0.2, 0.2, 0.1, 0.1, 0.1) == 0.25


def test_after_the_head_all_layers_begin_the_schedule_with_a_warm_up_of_their_own():
    whole = factors(ScheduleOptions(epochs=6, warmup_epochs=1, head_epochs=2), 10)
    rest = factors(ScheduleOptions(epochs=4, warmup_epochs=1), 10)

    assert whole[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert whole[10:20] == [1.0] * 10
    assert whole[20:] == rest


def test_a_warm_up_that_is_longer_than_the_head_s_epochs_ends_with_them():
    found = factors(ScheduleOptions(epochs=6, warmup_epochs=3, head_epochs=1), 10)

    assert found[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert found[10:40] == pytest.approx([(i + 1) / 31 for i in range(30)])
    assert found[40] == 1.0


def test_steps_are_at_epochs_of_the_whole_run_and_plateaus_of_all_layers():
    steps: dict[str, Any] = {"warmup_epochs": 0, "head_epochs": 2, "step_factor": 0.1}

    stepped = factors(ScheduleOptions(epochs=4, schedule="step", step_epochs=(1, 3), **steps), 1)
    plateau = ScheduleOptions(schedule="plateau", patience=2, **steps)

    def after(*history: float) -> float:
        return rate_factor(plateau, step=len(history), steps_per_epoch=1, history=history)

    assert stepped == pytest.approx([1, 1, 0.1, 0.01])
    assert after(0.5, 0.4, 0.3) == after(0.5, 0.4, 0.3, 0.2) == 1.0
    assert after(0.5, 0.4, 0.3, 0.2, 0.3) == pytest.approx(0.1)


def test_the_epochs_of_the_head_do_not_count_for_stopping_early():
    options = ScheduleOptions(epochs=9, head_epochs=3, early_stop=2)

    assert not is_over(options, [0.3, 0.2, 0.1])
    assert not is_over(options, [0.3, 0.2, 0.1, 0.2, 0.1])
    assert is_over(options, [0.3, 0.2, 0.1, 0.2, 0.1, 0.2])


@pytest.mark.parametrize(
    ("rule", "optimizer", "expected"),
    [
        ("auto", "sgd", 0.05),
        ("auto", "adamw", 0.1),
        ("linear", "adamw", 0.05),
        ("sqrt", "sgd", 0.1),
        ("none", "sgd", 0.2),
    ],
)
def test_the_rate_follows_the_effective_batch_by_the_rule(rule, optimizer, expected):
    options = OptimisationOptions(optimizer=optimizer, lr=0.2, lr_rule=rule)

    assert base_rate(options, scratch=False, effective_batch=64) == pytest.approx(expected)


def test_pl_ntnets_recipe_comes_back_at_its_batch_of_32():
    options = OptimisationOptions()

    assert base_rate(options, scratch=False, effective_batch=32) == pytest.approx(0.01)


def test_a_run_stops_when_the_last_epochs_bring_nothing():
    assert not has_stopped_improving([0.1, 0.2, 0.2], 2)
    assert has_stopped_improving([0.1, 0.2, 0.2, 0.1], 2)
    assert not has_stopped_improving([0.3, 0.2, 0.1, 0.31], 2)
    assert not has_stopped_improving([0.3] * 50, 0)
    assert not has_stopped_improving([-math.inf, -math.inf], 2)


def test_a_run_is_over_after_its_epochs_or_when_it_stops_improving():
    options = ScheduleOptions(epochs=4, early_stop=2)

    assert not is_over(options, [0.1, 0.2, 0.3])
    assert is_over(options, [0.1, 0.2, 0.3, 0.4])
    assert is_over(options, [0.3, 0.2, 0.1])


def test_progressive_sizes_rise_from_start_to_end_in_multiples_of_32():
    options = ResolutionOptions(size=224, start_size=128, ramp_from=0.2, ramp_to=0.8)

    sizes = [size_at(options, epoch=epoch, epochs=20) for epoch in range(20)]

    assert sizes[:5] == [128] * 5
    assert sizes[16:] == [224] * 4
    assert sizes == sorted(sizes)
    assert all(size % 32 == 0 for size in sizes)


def test_sizes_stay_within_bounds_that_are_no_multiples_of_32():
    options = ResolutionOptions(size=150, start_size=100)

    sizes = {size_at(options, epoch=epoch, epochs=30) for epoch in range(30)}

    assert sizes == {100, 128, 150}


def test_without_a_start_size_nothing_changes():
    assert size_at(ResolutionOptions(size=90), epoch=0, epochs=3) == 90
