"""Names of folders, read as words."""

from __future__ import annotations

import pytest

from fastload.prepare.naming import read_name


@pytest.mark.parametrize(
    "name",
    ["test_tube", "contest", "latest", "testbed", "strain", "trainer", "invalid", "value", "2019"],
)
def test_a_name_that_only_resembles_a_split_is_none(name: str):
    reading = read_name(name)
    assert not reading.split or reading.rest


@pytest.mark.parametrize("name", ["train_test_split", "train-test", "val_and_test"])
def test_a_name_of_several_splits_is_none(name: str):
    assert read_name(name).split == ""


@pytest.mark.parametrize(
    "name",
    [
        "runs",
        "Runs2",
        "lightning_logs",
        "LIGHTNING-LOGS",
        "outputs 3",
        "train_logs",
        "masksTr",
        "yolo_outputs",
        "eval results",
    ],
)
def test_folders_of_tools_are_known_in_any_spelling(name: str):
    assert read_name(name).side


@pytest.mark.parametrize(
    "name", ["mask", "log", "photo", "run", "label maker", "birch logs", "paper masks", "train"]
)
def test_ordinary_names_are_not_those_of_tools(name: str):
    assert not read_name(name).side
    assert not read_name(name).container
