"""Global batches and the parts of the ranks cover an epoch once; properties over grids."""

from __future__ import annotations

import itertools

import pytest

from fastload.load.ranks import Batches, rank_part
from fastload.world import World


def batch_bounds(length: int, **options) -> list[int]:
    """Where the batches begin, and where the last one ends."""
    batches = Batches(length=length, **options)
    bounds = [batches.bounds(step) for step in range(batches.steps)]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(bounds))
    return [bounds[0][0], *(end for _, end in bounds)] if bounds else [options["start"]]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("length", [0, 1, 5, 8, 16, 17, 100, 101, 103])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_ranks_cover_an_epoch_once_and_evenly(world_size, length, batch_size):
    options = {"start": 0, "global_batch": batch_size * world_size, "world_size": world_size}
    bounds = batch_bounds(length, drop_last=False, **options)
    assert (bounds[0], bounds[-1]) == (0, length)
    seen: list[int] = []
    for start, stop in itertools.pairwise(bounds):
        parts = [rank_part(start, stop, World(rank=r, size=world_size)) for r in range(world_size)]
        sizes = [last - first for first, last in parts]
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= batch_size
        assert min(sizes) >= 1 or length < world_size or batch_size == 1
        seen += [position for first, last in parts for position in range(first, last)]
    assert seen == list(range(length))


def test_a_dropped_tail_leaves_full_batches_only():
    bounds = batch_bounds(103, start=0, global_batch=10, world_size=2, drop_last=True)
    assert bounds == list(range(0, 101, 10))


@pytest.mark.parametrize("start", [0, 10, 50, 100, 103])
@pytest.mark.parametrize("drop_last", [True, False])
def test_bounds_from_the_middle_are_the_tail_of_all_bounds(start, drop_last):
    options = {"global_batch": 10, "world_size": 2, "drop_last": drop_last}
    whole = batch_bounds(103, start=0, **options)
    rest = batch_bounds(103, start=start, **options)
    if start < 103:
        assert rest == [bound for bound in whole if bound >= start]
    else:
        assert len(rest) == 1


def test_global_batches_are_the_same_for_any_number_of_ranks():
    batches = {
        world_size: batch_bounds(
            1000, start=0, global_batch=48, world_size=world_size, drop_last=False
        )
        for world_size in (1, 2, 4, 8)
    }
    assert batches[1] == batches[2] == batches[4] == batches[8]


@pytest.mark.parametrize("world_size", [8, 64, 512])
def test_hundreds_of_ranks_cover_a_billion_samples_once_and_evenly(world_size):
    length = 10**9 + 77
    batches = Batches(length=length, global_batch=64 * 512, world_size=world_size, drop_last=False)
    behind = 0
    for step in (*range(3), *range(batches.steps - 3, batches.steps)):
        begin, end = batches.bounds(step)
        assert begin == behind or step == batches.steps - 3
        parts = [rank_part(begin, end, World(rank=r, size=world_size)) for r in range(world_size)]
        assert (parts[0][0], parts[-1][1]) == (begin, end)
        assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))
        sizes = [last - first for first, last in parts]
        assert max(sizes) - min(sizes) <= 1 <= min(sizes)
        behind = end
    assert behind == length


def test_what_512_ranks_began_8_ranks_end():
    length, step = 10**9, 12_345
    many = Batches(length=length, global_batch=32 * 512, world_size=512, drop_last=True)
    few = Batches(
        length=length,
        start=many.bounds(step)[1],
        global_batch=2048 * 8,
        world_size=8,
        drop_last=True,
    )
    assert few.steps == many.steps - step - 1
    for later in (0, 1, few.steps - 1):
        assert few.bounds(later) == many.bounds(step + 1 + later)
