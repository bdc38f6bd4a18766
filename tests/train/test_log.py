"""log.csv: rows are appended, and cut back on resume."""

from __future__ import annotations

import math

import pytest

from train.log import COLUMNS, Log, LogError, read_log

ROW: dict[str, float | int | str] = {
    "epoch": 1,
    "split": "train",
    "images": 4,
    "seconds": 2.0,
    "compute_seconds": 1.0,
}


def test_rows_of_the_log_are_read_again_and_cut_back_on_resume(tmp_path):
    path = tmp_path / "log.csv"
    log = Log(path)
    for step in range(4):
        log.add({**ROW, "epoch": 1, "step": step, "loss": 0.1 + step, "top1": math.nan})

    resumed = Log(path, keep=2)
    resumed.add({"epoch": 9, "step": 9, "split": "val"})

    rows = read_log(path)
    assert list(rows[0]) == list(COLUMNS)
    assert [row["step"] for row in rows] == ["0", "1", "9"]
    assert (rows[0]["loss"], rows[0]["top1"]) == ("0.1", "")


def test_a_row_cut_in_half_by_a_crash_is_dropped(tmp_path):
    path = tmp_path / "log.csv"
    Log(path).add(ROW)
    with path.open("a") as file:
        file.write("1,7,va")

    Log(path, keep=1)

    assert [row["split"] for row in read_log(path)] == ["train"]


def test_a_log_that_lacks_rows_of_the_run_is_refused(tmp_path):
    path = tmp_path / "log.csv"
    Log(path)

    with pytest.raises(LogError, match="has 0 rows, and the checkpoint was written after 3"):
        Log(path, keep=3)


@pytest.mark.parametrize(
    ("former", "edited", "line"),
    [
        ("2.0", "two", 2),
        ("2.0", "", 2),
        ("train", "training", 2),
        (",", ";", 1),
        (",peak_gpu_megabytes", "", 1),  # the columns of another version
        ("epoch", "\0\0\0", 1),
        ("train,", "train,,", 2),
    ],
)
def test_a_log_that_somebody_has_edited_is_refused(tmp_path, former, edited, line):
    path = tmp_path / "log.csv"
    Log(path).add(ROW)
    path.write_text(path.read_text().replace(former, edited))

    with pytest.raises(LogError, match=f"line {line} is not as a run writes it; put back a copy"):
        Log(path, keep=1)


def test_a_log_that_an_editor_saved_with_other_line_ends_and_a_mark_is_taken(tmp_path):
    path = tmp_path / "log.csv"
    Log(path).add(ROW)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))

    Log(path, keep=1).add(ROW)

    assert [row["split"] for row in read_log(path)] == ["train", "train"]
