"""Lays out the pages of the site in build/pages; `scripts/docs` builds it from them.

The documents are written for the checkout, where a link leads to a file. Here each document gets
its place in the site, and each link the place of what it leads to. A file that is no document, such
as an example, becomes a page that shows it. The reference shows the names of `fastload.__all__`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import fastload

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "build" / "pages"
PLACES = {
    "README.md": "index.md",
    "README.zh-CN.md": "zh-CN/index.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
}
"""Where the documents outside docs/ go; those in docs/ keep their place in it."""

_CODE = re.compile(r"(^```.*?^```$|`[^`\n]*`)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)")


def pages() -> dict[str, str]:
    """The pages of the site: their places, such as zh-CN/index.md, and what is in them."""
    made: dict[str, str] = {"reference.md": reference()}
    documents = [*(ROOT / name for name in PLACES), *sorted(ROOT.glob("docs/**/*.md"))]
    for document in documents:
        text = document.read_text(encoding="utf-8")
        made[place_of(document)] = with_places(text, document)
        for target in links_of(text, document):
            if target.is_file() and target not in documents:  # Zensical names what is missing
                content = target.read_text(encoding="utf-8")
                made[place_of(target)] = content if is_picture(target) else shown(target, content)
    return made


def place_of(path: Path) -> str:
    """Where a file of the checkout stands among the pages."""
    name = path.relative_to(ROOT).as_posix()
    place = PLACES.get(name, name.removeprefix("docs/"))
    return place if path.suffix == ".md" or is_picture(path) else f"{place}.md"


def is_picture(path: Path) -> bool:
    """Whether a page shows the file as it is."""
    return path.suffix == ".svg"


def links_of(text: str, document: Path) -> Iterator[Path]:
    """The files of the checkout that a document links to."""
    for target in _LINK.findall(_CODE.sub("", text)):
        yield (document.parent / target).resolve()


def with_places(text: str, document: Path) -> str:
    """The text of a document, with links to places among the pages."""
    here = Path(place_of(document)).parent

    def moved(link: re.Match[str]) -> str:
        target = (document.parent / link[1]).resolve()
        return Path(os.path.relpath(place_of(target), here)).as_posix()

    parts = _CODE.split(text)  # text, code, text, code, …
    parts[::2] = [_LINK.sub(moved, part) for part in parts[::2]]
    return "".join(parts)


def shown(path: Path, content: str) -> str:
    """A page that shows a file."""
    return f"# {path.name}\n\n```{path.suffix.removeprefix('.')}\n{content}```\n"


def reference() -> str:
    """The page of the public names: mkdocstrings puts what their docstrings say in their places."""
    names = [f"::: fastload.{name}\n" for name in fastload.__all__]
    return "\n".join(["# Reference\n", "What `from fastload import …` gives.\n", *names])


def lay_out(folder: Path = PAGES) -> None:
    """Make `folder` hold the pages and nothing else; what has not changed keeps its time."""
    made = {folder / place: text for place, text in pages().items()}
    for path in folder.rglob("*"):
        if path.is_file() and path not in made:
            path.unlink()
    for path, text in made.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    lay_out()
