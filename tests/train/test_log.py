"""log.csv: rows are appended, and cut back on resume."""

from __future__ import annotations

import math

import pytest

from train.log import COLUMNS, Log, LogError, read_log


def test_rows_of_the_log_are_read_again_and_cut_back_on_resume(tmp_path):
    path = tmp_path / "log.csv"
    log = Log(path)
    for step in range(4):
        log.add({"epoch": 1, "step": step, "split": "train", "loss": 0.1 + step, "top1": math.nan})

    resumed = Log(path, keep=2)
    resumed.add({"epoch": 9, "step": 9, "split": "val"})

    rows = read_log(path)
    assert list(rows[0]) == list(COLUMNS)
    assert [row["step"] for row in rows] == ["0", "1", "9"]
    assert (rows[0]["loss"], rows[0]["top1"]) == ("0.1", "")


def test_a_row_cut_in_half_by_a_crash_is_dropped(tmp_path):
    path = tmp_path / "log.csv"
    Log(path).add({"epoch": 1, "split": "train"})
    with path.open("a") as file:
        file.write("1,7,va")

    Log(path, keep=1)

    assert [row["split"] for row in read_log(path)] == ["train"]


def test_a_log_that_lacks_rows_of_the_run_is_refused(tmp_path):
    path = tmp_path / "log.csv"
    Log(path)

    with pytest.raises(LogError, match="has 0 rows, and the checkpoint was written after 3"):
        Log(path, keep=3)
