"""The parts of a page: names are text, colours can be read, pictures are within it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastload.console import page
from fastload.console.style import COLOURS, STYLE, in_variables
from tests.train.test_report import read


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["ink", "soft", "accent"])
def test_text_stands_out_from_the_page(name, dark):
    assert contrast(name, "page", dark=dark) >= 4.5  # WCAG 2.2, 1.4.3


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_from_a_ground_that_is_filled(dark):
    assert contrast("ink", "fill", dark=dark) >= 4.5
    assert contrast("ink", "mark", dark=dark) >= 4.5


def contrast(*names: str, dark: bool) -> float:
    low, high = sorted(luminance(COLOURS[name][dark]) for name in names)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(w * s for w, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_each_colour_of_a_drawing_is_one_variable_of_the_style():
    light = [shades[0] for shades in COLOURS.values()]
    assert len(set(light)) == len(light)
    drawn = in_variables(" ".join(light))
    assert drawn.split() == [f"var(--{name})" for name in COLOURS]
    assert all(f"--{name}: " in STYLE for name in COLOURS)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("玫瑰", "玫瑰"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("a\nb\u202e", "a\\nb\\u202e"),
        ("\udcff", "\\udcff"),
        ("x" * 4096, "x" * 4096),
    ],
)
def test_a_name_is_one_line_of_text(given, shown):
    assert page.name(given) == f'<bdi lang="">{shown}</bdi>'


def test_the_parts_of_a_path_keep_their_order_and_are_text():
    html = page.place("train/وردة/<b>.jpg")
    parts = [f'<bdi dir="ltr" lang="">{part}</bdi>' for part in ("train", "وردة", "&lt;b&gt;.jpg")]
    assert "/<wbr>".join(parts) in html
    assert read(html).text == "train/وردة/<b>.jpg"


def test_a_head_is_not_broken_at_a_hyphen():
    assert read(page.table(("top-1",), [("0-1",)], numbers=())).text == "top-\u20601" + "0-1"


def test_a_table_marks_rows_and_aligns_numbers():
    reader = read(page.table(("a", "b"), [("x", "1"), ("y", "2")], numbers=(1,), marked=["y"]))
    assert reader.text == "abx1y2"
    assert reader.tags.count("tr") == 3
    assert reader.attributes.count(("class", "n")) == 3
    assert reader.attributes.count(("class", "ours")) == 1


def test_a_picture_is_within_the_page_with_words_for_who_does_not_see_it():
    reader = read(page.image(b"\x89PNG..", '"quoted" <b>', side=64))
    facts = dict(reader.attributes)
    assert str(facts["src"]).startswith("data:image/png;base64,")
    assert facts["alt"] == '"quoted" <b>'
    assert (facts["width"], facts["height"], facts["loading"]) == ("64", "64", "lazy")
    assert "data:image/jpeg" in page.image(b"\xff\xd8", "")


def test_a_link_leads_to_a_file_and_never_to_a_script():
    assert page.link_to(Path("/a/javascript:x.jpg"), Path("/a")) == "javascript%3Ax.jpg"
    assert page.link_to(Path("/a/b c/1.jpg"), Path("/a/runs")) == "../b%20c/1.jpg"
