"""Runs of limited length and limited sum."""

from __future__ import annotations

from itertools import pairwise, product

import pytest

from fastload.runs import run_bounds


def lists_one_by_one(sizes: list[int], count: int | None, total: int | None) -> list[list[int]]:
    """The obvious loop: a thing joins the last list, or begins another where the list is full."""
    lists: list[list[int]] = []
    for size in sizes:
        last = lists[-1] if lists else []
        fits = (count is None or len(last) < count) and (total is None or sum(last) + size <= total)
        if last and fits:
            last.append(size)
        else:
            lists.append([size])
    return lists


@pytest.mark.parametrize("count", [None, 1, 2, 3, 9])
@pytest.mark.parametrize("total", [None, 0, 1, 4, 10, 100])
def test_runs_are_those_of_the_obvious_loop(count, total):
    for length in range(5):
        for row in product((0, 1, 3, 7), repeat=length):
            sizes = list(row)
            cut = [sizes[a:b] for a, b in pairwise(run_bounds(sizes, count=count, total=total))]
            assert cut == lists_one_by_one(sizes, count, total)


def test_a_thing_above_the_limit_stands_alone():
    assert run_bounds([9, 1, 2, 30, 2, 2, 2], total=5) == [0, 1, 3, 4, 6, 7]


def test_nothing_has_one_bound():
    assert run_bounds([], count=2, total=10) == [0]
