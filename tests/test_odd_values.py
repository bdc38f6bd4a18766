"""Every option of every public class, with values that no one should pass: it works or is named."""

from __future__ import annotations

import inspect
import math
from dataclasses import fields
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastload
from fastload import (
    Augment,
    CenterCrop,
    ColourJitter,
    Erasing,
    FastloadError,
    Loader,
    Mix,
    RandAugment,
    RandomCrop,
    RandomResizedCrop,
    Select,
    TarDataset,
    TrivialAugment,
    World,
)
from tests.shards import numbered

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core")

ODD: list[Any] = [
    *(None, True, False, np.True_, 0, 1, -1, 2**31, 2**63, 2**64, -(2**70)),
    *(0.5, 1.0, -0.0, 1e-300, 1e300, math.nan, math.inf, -math.inf, 1j, Decimal(1), Fraction(1, 2)),
    *(np.int64(3), np.uint8(3), np.float32(0.5), np.array(3), np.array([]), np.zeros((2, 2))),
    *(np.array(["a"]), np.array([None]), np.datetime64("2020-01-01")),
    *(torch.tensor(3), torch.tensor([1.5]), torch.tensor([True]), torch.device("cpu"), torch.uint8),
    *("", " ", "train", "64", "auto", "none", "cpu", "ä\x00\ud800", "x" * 200, b"train"),
    *(
        (),
        [],
        {},
        set(),
        (1, 2),
        [0.1, 0.9],
        (2, 1),
        [[1], [2, 3]],
        {"a": 1},
        ["a"],
        [None],
        [True],
    ),
    *(range(2), slice(0, 2), iter([1]), lambda *_: _, print, int, object(), Path("x"), ...),
    *(Augment, Augment(), World(), Mix(), CenterCrop(), Select(), math),
]
LONGEST = 700  # characters of a message, whatever was passed

MADE: list[tuple[Any, dict[str, Any]]] = [
    *((kind, {}) for kind in (Augment, CenterCrop, ColourJitter, Erasing, Mix, RandomCrop)),
    *((kind, {}) for kind in (RandAugment, RandomResizedCrop, TrivialAugment, World)),
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    directory: Path = numbered(tmp_path_factory.mktemp("odd") / "s", {"train": 12, "val": 4})
    return directory


def refusal(call: Any, name: str) -> str:
    """What is said if the call is refused, "" if it works."""
    said = ""
    try:
        call()
    except (TypeError, ValueError, IndexError, FastloadError) as error:
        said = str(error)
    assert not said or name in said, f"{name} is not named: {said}"
    assert len(said) < LONGEST
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, each.name) for kind, _ in MADE for each in fields(kind)]
)
def test_an_option_of_a_description_works_or_is_named(kind, name):
    refused = [refusal(lambda value=value: kind(**{name: value}), name) for value in ODD]
    assert len([said for said in refused if said]) > len(ODD) / 2


@pytest.mark.parametrize("name", list(inspect.signature(Select).parameters))
def test_a_part_of_a_selection_works_or_is_named(shards, name):
    def select(value: Any) -> None:
        kept = Select(**{name: value})
        with Loader(shards, select=kept, batch_size=1) as loader:
            repr(loader)

    for value in ODD:
        refusal(lambda value=value: select(value), name)


@pytest.mark.parametrize("name", list(inspect.signature(Loader).parameters))
def test_an_option_of_a_loader_works_or_is_named(shards, name, monkeypatch):
    monkeypatch.chdir(shards.parent)
    said_otherwise = {
        "path": "",  # a path is named by itself
        "epoch_size": "epoch",  # which may be too small for a batch
    }

    def load(value: Any) -> None:
        if name in ("num_threads", "epoch_size") and isinstance(value, int) and value > 1000:
            return  # memory and threads that the machine has not are another question
        options = {"path": shards, "batch_size": 4, "augment": Augment.train(8), name: value}
        with Loader(**options) as loader:
            repr(loader)
            if name == "transform":
                return
            images, labels = next(iter(loader))
            assert len(images) == len(labels)

    for value in ODD:
        refusal(lambda value=value: load(value), said_otherwise.get(name, name))


@pytest.mark.parametrize("name", list(inspect.signature(TarDataset).parameters))
def test_an_option_of_a_dataset_works_or_is_named(shards, name, monkeypatch):
    monkeypatch.chdir(shards.parent)
    for value in ODD:
        options = {"path": shards, name: value}
        named = "" if name == "path" else name
        refusal(lambda options=options: len(TarDataset(**options)), named)


def test_what_is_asked_of_a_dataset_or_a_loader_works_or_is_named(shards):
    dataset = TarDataset(shards)
    with Loader(shards, batch_size=4, augment=Augment.train(8)) as loader:
        for value in ODD:
            refusal(lambda value=value: dataset[value], "index")
            refusal(lambda value=value: dataset.locate(value), "index")
            refusal(lambda value=value: loader.keys(value), "rows")
            refusal(lambda value=value: loader.set_epoch(value), "epoch")
            refusal(lambda value=value: loader.set_size(value), "size")
            refusal(lambda value=value: loader.load_state_dict(value), "state")
            refusal(lambda value=value: setattr(loader, "augment", value), "augment")
        loader.set_epoch(0)
        loader.set_size(8)
        assert len(list(loader)) == 3


def test_all_public_classes_are_tried():
    tried = {kind.__name__ for kind, _ in MADE} | {"Loader", "TarDataset", "Select"}
    assert tried == set(vars(fastload)["__all__"]) - {"FastloadError", "Stats"}
