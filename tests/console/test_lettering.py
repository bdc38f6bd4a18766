"""Lettering against the character maps of real fonts, and one made here."""

from __future__ import annotations

import random
from pathlib import Path
from unicodedata import is_normalized

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from fastload.console.lettering import Lettering, font_files, font_folders, package_for

DEJAVU: Path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@pytest.fixture
def dejavu(tmp_path: Path) -> Path:
    """A folder with one font, which has no East Asian characters."""
    folder = tmp_path / "fonts"
    folder.mkdir()
    (folder / DEJAVU.name).write_bytes(DEJAVU.read_bytes())
    return folder


def write_font(path: Path, characters: str) -> None:
    """A font that draws each of some characters as a black square, all others as an empty box."""
    builder = FontBuilder(1000, isTTF=True)
    names = {ord(char): f"u{ord(char):04X}" for char in characters}
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    solid, hollow = TTGlyphPen(None), TTGlyphPen(None)
    for pen, contours in ((solid, [(0, 900)]), (hollow, [(0, 900), (100, 800)])):
        for low, high in contours:
            corners = [(low, low), (low, high), (high, high), (high, low)]
            pen.moveTo(corners[0])
            for corner in corners[1:] if low == 0 else corners[:0:-1]:
                pen.lineTo(corner)
            pen.closePath()
    shapes = {".notdef": hollow.glyph(), **dict.fromkeys(names.values(), solid.glyph())}
    builder.setupGlyf(shapes)
    builder.setupHorizontalMetrics(dict.fromkeys(shapes, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


def drawn(lettering: Lettering, text: str) -> np.ndarray:
    image = Image.new("L", (200, 30), "white")
    lettering.draw(ImageDraw.Draw(image), (5, 2), lettering.spell(text))
    return np.asarray(image)


def test_a_character_is_there_where_the_font_maps_it(dejavu):
    lettering = Lettering(13, folders=[dejavu])
    mapped = set(TTFont(DEJAVU).getBestCmap())
    mapped |= set(TTFont(ImageFont.load_default(13).path).getBestCmap())  # type: ignore[union-attr]  # a FreeType font
    points = random.Random(0).sample(range(0x21, 0x3000), 1500)
    # Some characters are another's double, such as the Greek question mark of the semicolon.
    characters = {chr(p) for p in points if chr(p).isprintable() and is_normalized("NFC", chr(p))}
    drawn_as_such = {char for char in characters if lettering.spell(char) == char}
    assert drawn_as_such == {char for char in characters if ord(char) in mapped}
    assert lettering.missing == characters - drawn_as_such
    assert min(len(drawn_as_such), len(lettering.missing)) > 300


def test_what_no_font_has_is_escaped_and_told(dejavu):
    lettering = Lettering(13, folders=[dejavu])
    assert lettering.spell("7 薔薇 rose") == "7 \\u8594\\u8587 rose"
    assert lettering.missing == {"薔", "薇"}
    assert package_for(lettering.missing) == "fonts-noto-cjk"


def test_a_mark_without_its_font_is_escaped_too(dejavu):
    lettering = Lettering(13, folders=[dejavu])
    assert lettering.spell("गुलाब").isascii()
    assert package_for(lettering.missing) == "fonts-noto-core"


def test_a_character_is_drawn_with_the_font_that_has_it(dejavu):
    write_font(dejavu / "squares.ttf", "薔")
    lettering = Lettering(20, folders=[dejavu])
    assert lettering.spell("薔薇") == "薔\\u8587"
    square = drawn(lettering, "薔")
    assert (square[8:20, 8:20] == 0).all()
    mixed = drawn(lettering, "薔 rose")
    assert (mixed[8:20, 8:20] == 0).all()
    assert (mixed[:, 40:] < 128).any()


def test_latin_is_drawn_where_no_font_is_installed():
    lettering = Lettering(13, folders=[])
    assert lettering.spell("Rosa") == "Rosa"
    assert (drawn(lettering, "Rosa") < 128).any()


def test_fonts_of_matplotlib_are_found_where_the_system_has_none(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert DEJAVU.name in [path.name for path in font_files(font_folders())]


def test_letters_and_marks_are_composed(dejavu):
    assert Lettering(13, folders=[dejavu]).spell("e\u0301") == "é"


def test_spaces_of_all_widths_are_spaces():
    assert Lettering(13, folders=[]).spell("a\u00a0b\u3000c d") == "a b c d"


def test_controls_and_broken_names_are_escaped_but_no_fault_of_the_fonts():
    lettering = Lettering(13, folders=[])
    assert lettering.spell("a\x1b\n\udc80b") == "a\\x1b\\n\\udc80b"
    assert not lettering.missing


def test_files_that_are_no_fonts_are_passed_over(dejavu):
    (dejavu / "broken.ttf").write_bytes(b"no font")
    (dejavu / "empty.otf").touch()
    write_font(dejavu / "LastResort.ttf", "薔")
    lettering = Lettering(13, folders=[dejavu])
    assert lettering.spell("薔 Роза") == "\\u8594 Роза"


def test_regular_fonts_come_first(tmp_path):
    for name in ("A-Bold.ttf", "Z.ttf", "NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "read.me"):
        (tmp_path / name).touch()
    names = [path.name for path in font_files([tmp_path])]
    assert names == ["DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "Z.ttf", "A-Bold.ttf"]


@pytest.mark.parametrize("text", ["Rosa canina L.", "Lactuca virosa var. longissima", "w" * 90, ""])
def test_lines_are_no_wider_than_they_may_be(text):
    lettering = Lettering(13, folders=[])
    lines = lettering.wrap(text, 110)
    assert len(lines) <= 2
    assert all(lettering.width(line) <= 110 for line in lines)
    whole = " ".join(lines) == text
    assert whole or lines[-1].endswith("…")
    assert whole == (lettering.width(text) <= 200)
