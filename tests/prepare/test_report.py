"""The report of a cleaning: any name is kept, reasons are counted."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from fastload.prepare.report import Row, count_reasons, write_report


def test_the_report_keeps_any_name(tmp_path: Path):
    names = ['with "quotes", commas', "new\nline", "中文", os.fsdecode(b"caf\xe9"), "-rf"]
    rows = [Row(name, "grey", "has one channel", "set aside") for name in names]
    write_report(tmp_path / "r.csv", rows)
    with (tmp_path / "r.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as lines:
        assert [row["path"] for row in csv.DictReader(lines)] == names


def test_reasons_are_counted_commonest_first():
    rows = [Row("1", "grey", "", "set aside"), Row("2", "gif", "", "moved")]
    rows += [Row("3", "gif", "", "set aside"), Row("4", "changed", "", "stored")]
    assert list(count_reasons(rows).items()) == [("gif", 2), ("grey", 1)]
