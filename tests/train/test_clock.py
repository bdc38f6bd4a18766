"""The clocks tell waiting for data from computing."""

from __future__ import annotations

import time

import pytest
import torch

from train.clock import MOST_QUEUED, CudaClock, HostClock
from train.meter import Meter


def test_the_host_s_clock_tells_waiting_from_computing(monkeypatch: pytest.MonkeyPatch):
    now = iter([0.0, 2.0, 5.0, 6.0, 10.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    meter = Meter()
    clock = HostClock(meter)
    for _ in range(2):
        clock.begin()
        clock.end()
    assert (meter.waiting_seconds, meter.compute_seconds) == (3.0, 7.0)


@pytest.mark.gpu
def test_the_host_stays_near_the_gpu_and_idle_time_is_waiting():
    meter = Meter()
    clock = CudaClock(meter)
    for _ in range(6):
        torch.cuda._sleep(20_000_000)  # some 10 ms
        clock.begin()
        torch.cuda._sleep(40_000_000)
        clock.end()
        assert len(clock._queued) <= MOST_QUEUED
    clock.finish()
    assert meter.compute_seconds == pytest.approx(2 * meter.waiting_seconds, rel=0.3)
