"""Rates and shares are computed from what was counted."""

from __future__ import annotations

import time

import pytest

from fastload.stats import Meter, Stats


def test_nothing_counted_gives_zero_not_an_error():
    stats = Meter().snapshot()
    assert stats == Stats()
    assert stats.images_per_second == 0
    assert stats.waiting_fraction == 0


def test_rates_are_of_the_time_of_the_iteration():
    stats = Stats(images=300, batches=3, seconds=1.5, waiting_seconds=0.3)
    assert stats.images_per_second == 200
    assert stats.waiting_fraction == pytest.approx(0.2)


def test_a_meter_adds_up_and_leaves_out_the_time_between_iterations():
    meter = Meter()
    meter.begin()
    meter.delivered(images=8, waited=0.0, ready=2, bad=1)
    time.sleep(0.2)
    meter.begin()
    meter.delivered(images=4, waited=0.0, ready=1, bad=0)
    stats = meter.snapshot()
    assert (stats.images, stats.batches, stats.bad_samples) == (12, 2, 1)
    assert stats.ready_batches == 1.5
    assert stats.seconds < 0.2
