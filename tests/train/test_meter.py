"""Sums of an epoch, joined over ranks and shared out again on resume."""

from __future__ import annotations

import pytest

from fastload.world import World
from train.meter import Meter, joined_meter, resumed_meter

SAVED = (
    Meter(loss=1.5, weight=2, hits=1, images=2, waiting_seconds=1, compute_seconds=3),
    Meter(loss=0.5, weight=3, hits=2, images=3, waiting_seconds=3, compute_seconds=5),
)


def test_the_meter_of_all_ranks_has_sums_of_counts_and_means_of_times():
    assert joined_meter(SAVED) == Meter(
        loss=2, weight=5, hits=3, images=5, waiting_seconds=2, compute_seconds=4
    )


@pytest.mark.parametrize("size", [1, 2, 3])
def test_resumed_on_any_number_of_ranks_the_meters_come_to_what_was_saved(size):
    meters = [resumed_meter(SAVED, World(rank=rank, size=size)) for rank in range(size)]

    assert joined_meter(meters) == joined_meter(SAVED)
    if size == 2:
        assert tuple(meters) == SAVED
