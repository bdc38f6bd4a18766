"""What a notebook shows of a manifest: its numbers, both ends of a long list, names as text."""

from __future__ import annotations

import re

from fastload.store.manifest import read_manifest
from fastload.store.summary import class_table, contents_html
from tests.shards import numbered


def cells_of(html: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", html)
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]


def test_a_manifest_shows_its_splits(tmp_path):
    manifest = read_manifest(numbered(tmp_path / "shards", {"train": 7, "val": 2}))
    html = manifest._repr_html_()
    assert "9 images of 3 classes" in html
    assert cells_of(html)[1:] == [
        ['<bdi lang="">train</bdi>', "7", "3"],
        ['<bdi lang="">val</bdi>', "2", "2"],
    ]
    assert "set aside" not in html


def test_what_was_set_aside_is_told_and_no_name_is_markup():
    html = contents_html(
        {"<b>": (1, [1])}, ["x"], stored={"original": 3, "lossless": 0}, cleaning={"<i>": 2}
    )
    assert "stored: 3 original<" in html
    assert "set aside: 2 &lt;i&gt;" in html
    assert "&lt;b&gt;" in html


def test_classes_stand_from_the_most_frequent_and_a_long_list_is_cut():
    rows = cells_of(class_table([f"c{i}" for i in range(40)], list(range(40))))[1:]
    assert rows[0] == ["39", '<bdi lang="">c39</bdi>', "39"]
    assert rows[8] == ["…", "24 more", ""]
    assert rows[-1] == ["0", '<bdi lang="">c0</bdi>', "0"]
    assert len(rows) == 17
