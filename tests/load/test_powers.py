"""exp, log and powers: as exact as floats are, at the ends of their ranges too."""

from __future__ import annotations

from decimal import Context, Decimal, localcontext

import numpy as np
import pytest

from fastload.load.powers import exp, log, power

DRAWS = np.random.default_rng(0)


def deviation(found: float, exact: Decimal) -> float:
    """The relative error, in units of 2**-53."""
    return float(abs(Decimal(found) / exact - 1)) * 2**53


@pytest.mark.parametrize("bound", [0.3, 7.0, 700.0])
def test_exp_is_right_to_two_units_of_the_last_place(bound: float):
    points = DRAWS.uniform(-bound, bound, 300)
    with localcontext(Context(prec=60)):
        for x, found in zip(points.tolist(), exp(points).tolist(), strict=True):
            assert deviation(found, Decimal(x).exp()) < 4


@pytest.mark.parametrize("bound", [0.3, 7.0, 700.0])
def test_log_is_right_to_two_units_of_the_last_place(bound: float):
    points = np.exp(DRAWS.uniform(-bound, bound, 300))
    with localcontext(Context(prec=60)):
        for x, found in zip(points.tolist(), log(points).tolist(), strict=True):
            assert deviation(found, Decimal(x).ln()) < 4


@pytest.mark.parametrize("exponent", [-0.9, 0.2, 1.0, 5.0, 99.0])
def test_power_is_numpys(exponent: float):
    base = DRAWS.uniform(0.3, 1, 1000)
    assert power(base, exponent) == pytest.approx(base**exponent, rel=1e-13)


def test_the_ends_of_the_ranges():
    assert exp([0, -np.inf, -1e9]).tolist() == [1, 0, 0]
    assert exp([709]) == pytest.approx(np.exp([709]), rel=1e-15)
    assert log([0, 1]).tolist() == [-np.inf, 0]
    assert log([5e-324, 1.7e308]) == pytest.approx(np.log([5e-324, 1.7e308]), rel=1e-15)
    assert power([0, 1], 0.2).tolist() == [0, 1]
    assert power(0.5, 2).tolist() == pytest.approx(0.25)
