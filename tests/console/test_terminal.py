"""Text for terminals: widths, tables, bars, encodings."""

from __future__ import annotations

import pytest

from fastload.console.terminal import bar, byte_size, cells, elide, for_encoding, printable, table


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("rose", 4),
        ("薔薇", 4),
        ("장미", 4),
        ("Ｒ", 2),
        ("e\u0301", 1),
        ("a\u200db", 2),
        ("Роза", 4),
    ],
)
def test_a_text_is_as_wide_as_terminals_draw_it(text, width):
    assert cells(text) == width


def test_columns_line_up_where_letters_are_wide():
    lines = table([("name", "n"), ("薔薇", "12"), ("rose", "3")])
    assert lines == ["name   n", "薔薇  12", "rose   3"]
    assert len({cells(line) for line in lines}) == 1


@pytest.mark.parametrize("room", range(1, 12))
def test_an_elided_text_fits(room):
    for text in ("Rosa canina L.", "薔薇薔薇薔薇", "a", ""):
        short = elide(text, room)
        assert cells(short) <= room
        assert short == text or short.endswith("…")


@pytest.mark.parametrize(
    ("length", "drawn"), [(0, ""), (0.001, "▏"), (0.5, "▌"), (1, "█"), (2.25, "██▎"), (2.99, "███")]
)
def test_a_bar_is_exact_to_an_eighth_and_never_vanishes(length, drawn):
    assert bar(length) == drawn


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (999, "999 B"), (4_980_000, "4.98 MB"), (123_456_000_000, "123.5 GB")],
)
def test_sizes_have_three_digits_and_a_unit(count, said):
    assert byte_size(count) == said


def test_what_an_encoding_cannot_show_becomes_ascii():
    assert for_encoding("Rosé 薔 ██▎…", "ascii") == "Ros\\xe9 \\u8594 ##~"
    assert for_encoding("Rosé 薔 █", "latin-1") == "Rosé \\u8594 #"
    assert for_encoding("Rosé 薔 █", "utf-8") == "Rosé 薔 █"


def test_a_name_cannot_steer_the_terminal():
    assert printable("a\x1b[31m\n\u202e\udc80b") == "a\\x1b[31m\\n\\u202e\\udc80b"
    assert printable("a\u00a0b\u3000c") == "a\u00a0b\u3000c"
    assert printable("गुलाब 薔薇 🌹 می\u200cخواهم") == "गुलाब 薔薇 🌹 می\u200cخواهم"
