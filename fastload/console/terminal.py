"""Text for terminals: what a command says, tables, bars, and what an encoding can show."""

from __future__ import annotations

import errno
import os
import sys
import unicodedata
from collections.abc import Collection, Sequence

from wcwidth import clip, ljust, rjust, width

# They shape their neighbours and take no room: zero-width (non-)joiner, variation selectors.
_JOINERS = {"\u200c", "\u200d", *map(chr, range(0xFE00, 0xFE10))}

_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_STAND_INS = {"█": "#", "…": "~", **dict.fromkeys(_EIGHTHS[1:4], ""), **dict.fromkeys("▌▋▊▉", "#")}


def say(*lines: str, error: bool = False) -> None:
    """Print the lines of a command so that no terminal fails on them and no name steers it.

    Where the reader has closed its pipe, as in `... | head`, or the terminal is gone, the work goes
    on, unheard.

    Args:
        lines: Controls, and line breaks within a line, become escapes.
        error: Print to standard error.
    """
    stream = sys.stderr if error else sys.stdout
    if stream is None:  # closed by the shell: nobody listens, and the work goes on
        return
    text = for_encoding("\n".join(map(printable, lines)), stream.encoding or "ascii")
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        if error.errno not in {errno.EPIPE, errno.EIO}:
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def printable(text: str) -> str:
    """The text with an escape for all that is no letter or sign: controls, broken UTF-8."""
    return "".join(char if _is_harmless(char) else _escaped(char) for char in text)


def _is_harmless(char: str) -> bool:
    return char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs"


def _escaped(char: str) -> str:
    r"""The character as a string literal of ASCII letters has it: \xe9, \u5c0d, \x1b."""
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def for_encoding(text: str, encoding: str) -> str:
    """The text with an ASCII stand-in for what a terminal of this encoding cannot show."""
    return "".join(_shown(char, encoding) for char in text)


def _shown(char: str, encoding: str) -> str:
    try:
        char.encode(encoding)
    except UnicodeEncodeError:
        return _STAND_INS.get(char, _escaped(char))
    return char


def table(rows: Sequence[tuple[str, ...]], *, left: Collection[int] = (0,)) -> list[str]:
    """One line for each row.

    Args:
        rows: Printable cells. All rows have the same number of cells.
        left: The columns that are aligned to the left; the others are aligned to the right.
    """
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    aligned = [ljust if place in left else rjust for place in range(len(widths))]
    return [
        "  ".join(align(cell, room) for align, cell, room in zip(aligned, row, widths, strict=True))
        for row in rows
    ]


def elide(text: str, room: int) -> str:
    """The printable text, or as much of its beginning as leaves room for an ellipsis."""
    return text if width(text) <= room else clip(text, 0, room - 1).rstrip() + "…"


def counted(count: int, noun: str) -> str:
    """A number of things in words: "1 class", "2 copies", "1,200 images"."""
    if count != 1:
        if noun.endswith("y") and noun[-2] not in "aeiou":
            noun = f"{noun[:-1]}ies"
        else:
            noun += "es" if noun.endswith(("s", "x", "tch", "sh")) else "s"
    return f"{count:,} {noun}"


def byte_size(count: int) -> str:
    """The size with a decimal unit: three digits up to MB, one decimal from GB on."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 999.5:  # what rounds to 1000 takes the next unit
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.1f} GB" if size < 999.95 else f"{size / 1000:,.1f} TB"


def bar(length: float) -> str:
    """Full blocks, then an eighth to seven eighths; never nothing where there is something."""
    eighths = max(1, round(length * 8)) if length > 0 else 0
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8]
