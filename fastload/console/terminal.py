"""Text for terminals: how wide it is, tables, bars, and what an encoding can show."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Sequence


def printable_lines(lines: Iterable[str]) -> str:
    """Lines that any terminal takes."""
    return "\n".join(printable(line) for line in lines)


# They shape their neighbours and take no room: zero-width (non-)joiner, variation selectors.
JOINERS = {"\u200c", "\u200d", *map(chr, range(0xFE00, 0xFE10))}

_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_STAND_INS = {"█": "#", "…": "~", **dict.fromkeys(_EIGHTHS[1:4], ""), **dict.fromkeys("▌▋▊▉", "#")}


def escaped(text: str) -> str:
    r"""Each character as Python writes it in a string of ASCII letters: \xe9, \u5c0d, \x1b."""
    return text.encode("unicode_escape", "surrogatepass").decode("ascii")


def printable(text: str) -> str:
    """The text with an escape for all that is no letter or sign: controls, broken UTF-8."""
    return "".join(char if _is_harmless(char) else escaped(char) for char in text)


def _is_harmless(char: str) -> bool:
    return char.isprintable() or char in JOINERS or unicodedata.category(char) == "Zs"


def table(rows: Sequence[tuple[str, ...]], *, left: Collection[int] = (0,)) -> list[str]:
    """Columns `left` to the left, the others to the right."""
    widths = [max(map(cells, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padded = [
            cell + room if place in left else room + cell
            for place, cell in enumerate(row)
            for room in [" " * (widths[place] - cells(cell))]
        ]
        lines.append("  ".join(padded))
    return lines


def byte_size(count: int) -> str:
    """Three digits and a decimal unit."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"


def bar(length: float) -> str:
    """Full blocks, then an eighth to seven eighths; never nothing where there is something."""
    eighths = max(1, round(length * 8)) if length > 0 else 0
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8]


def cells(text: str) -> int:
    """Columns of a terminal that a text takes: East Asian characters take two, marks none."""
    return sum(_cells_of(char) for char in text)


def _cells_of(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def elide(text: str, room: int) -> str:
    """The text, or as much of its beginning as leaves room for an ellipsis."""
    if cells(text) <= room:
        return text
    kept, taken = "", 0
    for char in text:
        taken += _cells_of(char)
        if taken >= room:
            break
        kept += char
    return kept.rstrip() + "…"


def for_encoding(text: str, encoding: str) -> str:
    """The text with an ASCII stand-in for what a terminal of this encoding cannot show."""
    return "".join(_shown(char, encoding) for char in text)


def _shown(char: str, encoding: str) -> str:
    try:
        char.encode(encoding)
    except UnicodeEncodeError:
        return _STAND_INS.get(char, escaped(char))
    return char
