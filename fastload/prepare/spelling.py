"""Names that look the same to a person and differ in their characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

_JOINERS = {"\u200c", "\u200d"}  # Persian and Indic spelling, and emoji, need them


def one_form(name: str) -> str:
    """The name in Unicode's composed form (NFC): macOS writes é as e and an accent."""
    return unicodedata.normalize("NFC", name)


def visible(name: str) -> str:
    r"""The name in quotes, with an escape for all that is not ASCII: 'Caf\xe9'."""
    return ascii(name)


def look_alikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of names that differ in nothing but case, spaces, hyphens or invisible characters."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_look(name), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def invisible_characters(name: str) -> str:
    """What of a name nobody sees, in words; "" where there is nothing."""
    odd = sorted({char for char in name.strip(" ") if _is_invisible(char)})
    words = [f"{char!a} ({unicodedata.name(char, 'a control').lower()})" for char in odd]
    if name != name.strip(" "):
        words.append("a space at its end" if name == name.lstrip(" ") else "a space in front")
    return ", ".join(words)


def difference(names: Sequence[str]) -> str:
    """In what look-alikes differ."""
    if len({one_form(name).casefold() for name in names}) == 1:
        return "upper and lower case differ"
    return "spaces, hyphens, case or characters that look alike differ"


def _look(name: str) -> str:
    text = unicodedata.normalize("NFKC", name).casefold()
    text = "".join(char for char in text if unicodedata.category(char) != "Cf")
    return re.sub(r"[\s_\-\u2010-\u2015]+", " ", text).strip(" .")


def _is_invisible(char: str) -> bool:
    kind = unicodedata.category(char)
    return (kind in {"Zs", "Zl", "Zp", "Cc"} and char != " ") or (
        kind == "Cf" and char not in _JOINERS
    )
