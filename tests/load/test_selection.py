"""What a user asks for is resolved, or refused by the name of the argument."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from fastload.load.selection import SampleTable, Select, order_of

TABLE = SampleTable(
    labels=np.array([0, 1, 1]),
    shards=np.zeros(3, np.int64),
    sources=np.zeros(3, np.int64),
    classes=("ash", "birch"),
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": "ash"}, "classes must be a list of names, got 'ash'"),
        ({"classes": [0, 1]}, "classes must be a list of names, got [0, 1]"),
        ({"classes": 1}, "classes must be a list of names, got 1"),
        ({"indices": [0.0, 1.0]}, "indices must be integers, rows of the split's index, got float"),
        ({"indices": [True, False, True]}, "indices must be integers"),
        ({"indices": "ash"}, "indices must be integers"),
        ({"first": 2.5}, "first must be an integer at least 1, got 2.5"),
        ({"first": True}, "first must be an integer at least 1, got True"),
        ({"proportions": 0.5}, "proportions must be a row of numbers, got 0.5"),
        ({"proportions": ["1", "2"]}, "proportions must be a row of numbers, got ['1', '2']"),
    ],
)
def test_a_selection_of_another_type_is_refused(options: dict[str, Any], message):
    with pytest.raises(TypeError, match=re.escape(message)):
        Select(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["elm"]}, "classes has 'elm', which the shards do not have"),
        ({"indices": [0, 3]}, "indices must be in [0, 3), got 3"),
        ({"indices": np.array([-1])}, "indices must be in [0, 3), got -1"),
        ({"first": 0}, "first must be at least 1, got 0"),
        ({"indices": []}, "select leaves no samples"),
    ],
)
def test_a_selection_that_does_not_fit_is_refused(options: dict[str, Any], message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Select(**options).rows(TABLE)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epoch_size": 0}, ValueError, "epoch_size must be at least 1, got 0"),
        ({"epoch_size": 2.5}, TypeError, "epoch_size must be an integer at least 1, got 2.5"),
        ({"epoch_size": "9"}, TypeError, "epoch_size must be an integer at least 1, got '9'"),
        ({"reweight": ["a", "b", "c"]}, TypeError, "reweight must be a rule or a row of numbers"),
        ({"reweight": True}, ValueError, "reweight must have a weight for each of the 3 samples"),
        ({"reweight": "cube"}, ValueError, 'reweight must be "inverse", "sqrt"'),
        ({"reweight": "effective:nan"}, ValueError, "BETA of effective:BETA must be in [0, 1)"),
        ({"select": [0, 1]}, TypeError, "select must be Select, got [0, 1]"),
        ({"kind": "random"}, ValueError, 'order must be "shuffled", "sequential" or "index"'),
        ({"kind": None}, ValueError, "got None"),
    ],
)
def test_an_order_that_is_wrong_is_refused(options: dict[str, Any], error, message):
    defaults = {"kind": "shuffled", "select": Select(), "reweight": None, "epoch_size": None}
    with pytest.raises(error, match=re.escape(message)):
        order_of(TABLE, **{**defaults, "seed": 0, **options})


def test_a_selection_keeps_what_fits():
    assert Select(classes=("birch",), indices=range(2)).rows(TABLE).tolist() == [1]
