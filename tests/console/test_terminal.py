"""Text for terminals: widths, tables, bars, encodings."""

from __future__ import annotations

import io
import os
import sys

import pytest
from wcwidth import width

from fastload.console.terminal import (
    bar,
    byte_size,
    counted,
    elide,
    for_encoding,
    printable,
    say,
    table,
)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("rose", 4),
        ("薔薇", 4),
        ("장미", 4),
        ("Ｒ", 2),
        ("e\u0301", 1),
        ("می\u200cخواهم", 7),
        ("गुलाब", 4),
        ("👨\u200d👩\u200d👧", 2),
        ("☺\ufe0f", 2),
        ("Роза", 4),
    ],
)
def test_a_column_is_as_wide_as_terminals_draw_its_texts(text, taken):
    assert width(text) == taken
    first, second = table([(text, "|"), ("12345678", "|")])
    assert first == text + " " * (8 - taken) + "  |"
    assert second == "12345678  |"


def test_columns_line_up_where_letters_are_wide():
    lines = table([("name", "n"), ("薔薇", "12"), ("rose", "3")])
    assert lines == ["name   n", "薔薇  12", "rose   3"]
    assert len({width(line) for line in lines}) == 1


@pytest.mark.parametrize("room", range(1, 12))
def test_an_elided_text_fits(room):
    for text in (
        "Rosa canina L.",
        "薔薇薔薇薔薇",
        "👨\u200d👩\u200d👧 and 👨\u200d👩\u200d👧",
        "a",
        "",
    ):
        short = elide(text, room)
        assert width(short) <= room
        assert short == text or short.endswith("…")


@pytest.mark.parametrize(
    ("length", "drawn"), [(0, ""), (0.001, "▏"), (0.5, "▌"), (1, "█"), (2.25, "██▎"), (2.99, "███")]
)
def test_a_bar_is_exact_to_an_eighth_and_never_vanishes(length, drawn):
    assert bar(length) == drawn


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (4_980_000, "4.98 MB"),
        (123_456_000_000, "123.5 GB"),
        (999_949_999_999, "999.9 GB"),
        (999_950_000_000, "1.0 TB"),
        (1_234_500_000_000_000, "1,234.5 TB"),
    ],
)
def test_a_size_has_few_digits_and_a_decimal_unit(count, said):
    assert byte_size(count) == said


@pytest.mark.parametrize(
    ("count", "noun", "said"),
    [
        (0, "image", "0 images"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (1, "batch", "1 batch"),
        (1_200, "batch", "1,200 batches"),
        (30, "epoch", "30 epochs"),
        (1, "process", "1 process"),
        (1, "copy", "1 copy"),
        (2, "copy", "2 copies"),
        (2, "day", "2 days"),
        (1_234_567, "sample", "1,234,567 samples"),
    ],
)
def test_things_are_counted_in_words(count, noun, said):
    assert counted(count, noun) == said


def test_what_an_encoding_cannot_show_becomes_ascii():
    assert for_encoding("Rosé 薔 ██▎…", "ascii") == "Ros\\xe9 \\u8594 ##~"
    assert for_encoding("Rosé 薔 █", "latin-1") == "Rosé \\u8594 #"
    assert for_encoding("Rosé 薔 █", "utf-8") == "Rosé 薔 █"


def test_a_name_cannot_steer_the_terminal():
    assert printable("a\x1b[31m\n\u202e\udc80b") == "a\\x1b[31m\\n\\u202e\\udc80b"
    assert printable("a\u00a0b\u3000c") == "a\u00a0b\u3000c"
    assert printable("गुलाब 薔薇 🌹 می\u200cخواهم") == "गुलाब 薔薇 🌹 می\u200cخواهم"


def test_any_text_is_printed_in_any_encoding(monkeypatch):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    say("Rosé\x1b[31m", "two\nlines", "")
    say("薔", error=True)
    assert out.buffer.getvalue() == b"Ros\\xe9\\x1b[31m\ntwo\\nlines\n\n"
    assert err.buffer.getvalue() == b"\\u8594\n"


def test_work_goes_on_where_the_terminal_is_gone(monkeypatch):
    holder, terminal = os.openpty()
    with os.fdopen(terminal, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        os.close(holder)  # writing raises EIO now, as after a lost connection

        say("epoch 1", error=True)
        say("epoch 2", error=True)
