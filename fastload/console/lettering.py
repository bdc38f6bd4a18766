r"""Lettering: text in pictures, each character in an installed font that has it.

A font draws the same empty box for every character that it does not have, so a character is there
if its glyph differs from that of U+10FFFF, which no font has. Characters that no font has become
escapes such as \u5c0d: ugly, but readable and searchable.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from PIL import ImageDraw, ImageFont, features
from PIL.ImageFont import FreeTypeFont

from fastload.console.terminal import JOINERS, escaped

NEVER = "\U0010ffff"  # a noncharacter for good (Unicode 16.0, section 23.7)
_SUFFIXES = {".ttf", ".otf", ".ttc", ".otc"}
# Regular sans-serif fonts with wide coverage come before whatever else is installed.
_PREFERRED = (
    *("dejavusans", "notosans-regular", "liberationsans-regular", "arial"),
    *("notosanscjk-regular", "notosanscjksc-regular", "wqy-microhei", "pingfang", "arial unicode"),
)
_SPECIAL = ("bold", "italic", "oblique", "mono", "light", "thin", "black", "condensed", "serif")
_USELESS = ("lastresort", "adobeblank", "notdef")  # fonts that have a box, or nothing, for all
_EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "FULLWIDTH", "HALFWIDTH")


def font_folders() -> list[Path]:
    """Where fonts are: the folders of freedesktop.org and of macOS, and matplotlib's own."""
    home = Path.home()
    data = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    folders = [home / ".fonts", home / ".local/share/fonts", home / "Library/Fonts"]
    folders += [Path(folder) / "fonts" for folder in data.split(":") if folder]
    folders += [Path("/Library/Fonts"), Path("/System/Library/Fonts")]
    matplotlib = find_spec("matplotlib")  # brings DejaVu to machines without any font
    if matplotlib and matplotlib.origin:
        folders.append(Path(matplotlib.origin).parent / "mpl-data/fonts/ttf")
    return [folder for folder in folders if folder.is_dir()]


def font_files(folders: Sequence[Path]) -> list[Path]:
    """The font files in some folders, those that are best to read first."""
    found = {
        Path(parent) / name
        for folder in folders
        for parent, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in _SUFFIXES
    }
    return sorted(found, key=_preference)


def _preference(path: Path) -> tuple[int, bool, str]:
    stem = path.stem.lower()
    rank = _PREFERRED.index(stem) if stem in _PREFERRED else len(_PREFERRED)
    return rank, any(word in stem for word in _SPECIAL), str(path)


@dataclass(frozen=True, slots=True)
class Glyph:
    """How one character looks in one font, alone."""

    extent: tuple[int, int]
    advance: float
    mask: bytes


class Face:
    """A font, and which characters it has.

    Raises:
        OSError: If it cannot be drawn with in its size.
    """

    def __init__(self, font: FreeTypeFont) -> None:
        self.font = font
        # Unshaped: shaping would put a dotted circle beside a mark that stands alone.
        self._plain = font.font_variant(layout_engine=ImageFont.Layout.BASIC)
        self._absent = self._glyph(NEVER)
        self._known: dict[str, bool] = dict.fromkeys([" ", *JOINERS], True)

    def has(self, char: str) -> bool:
        """Whether the font draws this character rather than its empty box, or nothing."""
        if char not in self._known:
            glyph = self._glyph(char)
            self._known[char] = any(glyph.mask) and glyph != self._absent
        return self._known[char]

    def _glyph(self, char: str) -> Glyph:
        mask = self._plain.getmask(char, mode="L")
        return Glyph(mask.size, self._plain.getlength(char), bytes(mask))


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring characters that are drawn with one font."""

    text: str
    font: FreeTypeFont


class Lettering:
    """Draws text of one size in any script that an installed font has.

    Args:
        size: Of the letters, in pixels.
        folders: Where to look for fonts besides Pillow's own; the system's when None.

    Attributes:
        missing: Characters of the texts so far that no font has.
    """

    def __init__(self, size: int, *, folders: Sequence[Path] | None = None) -> None:
        self.size = size
        self.missing: set[str] = set()
        self._files = iter(font_files(font_folders() if folders is None else folders))
        own = ImageFont.load_default(size)
        self._faces = [Face(own)] if isinstance(own, FreeTypeFont) else []
        self._shapes = features.check("raqm")

    @property
    def line_height(self) -> int:
        """Pixels from one line to the next: room for the accents of every script."""
        return round(self.size * 1.5)

    def spell(self, text: str) -> str:
        """The text as it can be drawn: composed, and escaped where no font has a character.

        The characters that a font could have are added to `missing`.
        """
        composed = unicodedata.normalize("NFC", text)
        return "".join(self._spelt(char) for char in composed)

    def width(self, text: str) -> float:
        """Pixels that a spelt text takes."""
        return sum(run.font.getlength(run.text) for run in self._runs(text))

    def draw(
        self,
        canvas: ImageDraw.ImageDraw,
        corner: tuple[float, float],
        text: str,
        *,
        colour: str = "black",
    ) -> None:
        """Draw a spelt text on one line whose upper left corner is given."""
        left, top = corner
        baseline = top + self.size * 1.1
        for run in self._runs(text):
            canvas.text((left, baseline), run.text, fill=colour, font=run.font, anchor="ls")
            left += run.font.getlength(run.text)

    def wrap(self, text: str, width: float, *, lines: int = 2) -> list[str]:
        """Break a spelt text into lines no wider than `width`; what is left over becomes "…"."""
        broken: list[str] = []
        rest = text.strip()
        while rest and len(broken) < lines - 1 and self.width(rest) > width:
            cut = self._fitting(rest, width)
            space = rest.rfind(" ", 0, cut + 1)
            cut = space if space > 0 else cut
            broken.append(rest[:cut].rstrip())
            rest = rest[cut:].lstrip()
        if self.width(rest) > width:
            more = self.spell("…")
            rest = rest[: self._fitting(rest, width - self.width(more))].rstrip() + more
        return [*broken, rest]

    def _fitting(self, text: str, width: float) -> int:
        """How many characters fit, at least one."""
        count = 1
        while count < len(text) and self.width(text[: count + 1]) <= width:
            count += 1
        return count

    def _spelt(self, char: str) -> str:
        if char in JOINERS:  # they shape their neighbours, and are boxes where nothing is shaped
            return char if self._shapes else ""
        if unicodedata.category(char) == "Zs":  # spaces of all widths
            return " "
        if not char.isprintable():  # a control character, or a byte that is no UTF-8
            return escaped(char)
        if self._face_of(char):
            return char
        self.missing.add(char)
        return escaped(char)

    def _runs(self, text: str) -> Iterator[Run]:
        whole = next((face for face in self._faces if all(map(face.has, text))), None)
        if whole:
            yield Run(text, whole.font)
            return
        pairs: list[tuple[str, Face]] = []
        for char in text:
            # A neighbour's font where it has the character: fewer breaks, marks stay on letters.
            same = pairs and pairs[-1][1].has(char)
            face = pairs[-1][1] if same else self._face_of(char)
            if face:
                pairs.append((char, face))
        for _, run in groupby(pairs, key=lambda pair: id(pair[1])):
            characters = list(run)
            yield Run("".join(char for char, _ in characters), characters[0][1].font)

    def _face_of(self, char: str) -> Face | None:
        return next((face for face in self._all_faces() if face.has(char)), None)

    def _all_faces(self) -> Iterator[Face]:
        """The fonts that are open, then the others, each opened when it is come to."""
        yield from list(self._faces)
        for file in self._files:
            if any(word in file.stem.lower() for word in _USELESS):
                continue
            try:
                face = Face(ImageFont.truetype(file, self.size))
            except (OSError, ValueError):  # no font, or one of bitmaps in other sizes
                continue
            self._faces.append(face)
            yield face


def package_for(characters: set[str]) -> str:
    """Which of Debian's font packages has most of these characters."""
    names = [unicodedata.name(char, "") for char in sorted(characters)]
    east_asian = sum(name.startswith(_EAST_ASIAN) for name in names)
    signs = sum(unicodedata.category(char) == "So" for char in characters)
    if 2 * east_asian >= len(names):
        return "fonts-noto-cjk"
    return "fonts-symbola" if 2 * signs >= len(names) else "fonts-noto-core"
