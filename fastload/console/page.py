"""Pages of HTML in one file: no scripts, text in any script, pictures inside.

Every page of ours is made of these parts. A page reads well from 400 pixels on, in light and dark,
opens without a network, and asks for nothing from elsewhere.
"""

from __future__ import annotations

import base64
import html
import os
import urllib.parse
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastload.console.style import STYLE
from fastload.console.terminal import printable

# No script, no font, no picture and no frame from elsewhere: what a name smuggles in cannot act.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none';"
    " form-action 'none'"
)
_PNG = b"\x89PNG"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A sample on a page.

    Attributes:
        jpeg: A small JPEG of it; None where it cannot be read.
        place: Where it is stored, in words.
        link: A URL of its file, relative to the page; "" where it is not a file of its own.
    """

    jpeg: bytes | None
    place: str
    link: str = ""

    def html(self) -> str:
        """The thumbnail, as a link where there is a file; the place alone without a thumbnail."""
        shown = place(self.place)
        if self.jpeg is not None:
            shown = image(self.jpeg, self.place)
        return f'<a href="{html.escape(self.link)}">{shown}</a>' if self.link else shown


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page.

    Args:
        title: Its title, and its first heading.
        parts: What follows the heading, as HTML.
    """
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escaped(title)}</title><style>{STYLE}</style></head><body>",
            f"<h1>{escaped(title)}</h1>",
            *parts,
            "</body></html>\n",
        ]
    )


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Collection[int],
    marked: Collection[str] = (),
) -> str:
    """A table, which scrolls where the page is narrow.

    Args:
        heads: The heads of the columns, as HTML without tags; none: the table has no line of heads.
        rows: The cells, as HTML.
        numbers: The columns that are aligned to the right.
        marked: First cells of the rows that stand out.
    """

    def line(tag: str, cells: Sequence[str], kind: str = "") -> str:
        kinds = [' class="n"' if place in numbers else "" for place in range(len(cells))]
        inner = "".join(
            f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)
        )
        return f"<tr{kind}>{inner}</tr>"

    whole = [head.replace("-", "-&NoBreak;") for head in heads]  # "top-1" stays on one line
    head = f"<thead>{line('th', whole)}</thead>" if heads else ""
    body = "".join(line("td", row, ' class="ours"' if row[0] in marked else "") for row in rows)
    return f'<div class="wide" tabindex="0"><table>{head}<tbody>{body}</tbody></table></div>'


def facts(lines: Iterable[tuple[str, str]]) -> str:
    """A table of names and values, both as HTML, which never scrolls."""
    rows = "".join(f"<tr><th>{head}</th><td>{value}</td></tr>" for head, value in lines)
    return f'<table class="facts">{rows}</table>'


def chart(svg: str, caption: str) -> str:
    """A drawing as wide as the page, which scrolls on a narrow one, below its title; as HTML."""
    wide = f'<div class="wide" tabindex="0">{svg}</div>'
    return f'<figure class="chart"><figcaption>{caption}</figcaption>{wide}</figure>'


def image(data: bytes, words: str, *, side: int | None = None) -> str:
    """A JPEG or PNG within the page; the browser decodes it when it comes into view.

    Args:
        data: The file.
        words: What it shows, as text.
        side: Height and width of a square one, in pixels, where they are known.
    """
    kind = "png" if data.startswith(_PNG) else "jpeg"
    source = base64.b64encode(data).decode("ascii")
    size = "" if side is None else f' width="{side}" height="{side}"'
    said = escaped(words)
    return (
        f'<img alt="{said}" title="{said}" loading="lazy"{size}'
        f' src="data:image/{kind};base64,{source}">'
    )


def figure(body: str, caption: str) -> str:
    """Something to look at, below what it shows; both as HTML."""
    return f"<figure><figcaption>{caption}</figcaption>{body}</figure>"


def card(picture: Picture, lines: Iterable[str]) -> str:
    """A picture with lines of HTML below it; many of them stand side by side."""
    words = "<br>".join(lines)
    return f'<figure class="card">{picture.html()}<figcaption>{words}</figcaption></figure>'


def bar(share: float) -> str:
    """A bar for a share in [0, 1], of at most five letters' width."""
    return f'<span class="bar" style="width:{5 * share:.2f}em"></span>'


def filled(share: float) -> str:
    """Attributes of an element whose ground shows a share in [0, 1] of its width."""
    return f'class="share" style="--share: {share:.1%}"'


def escaped(text: str) -> str:
    """A text for HTML: names come from folders, and may hold controls and broken UTF-8."""
    return "\n".join(html.escape(printable(line)) for line in text.split("\n"))


def name(text: str) -> str:
    """A name within a sentence: its own direction of writing does not turn the words around it.

    Its language is unknown, and need not be the page's. It is one line, whatever it holds.
    """
    return f'<bdi lang="">{html.escape(printable(text))}</bdi>'


def place(text: str) -> str:
    """Where something is stored: each part of the path keeps its place, whatever its script.

    So does the ending of a file's name. Lines end between the parts, where there is no room for
    all.
    """
    parts = (
        f'<bdi dir="ltr" lang="">{html.escape(printable(part))}</bdi>' for part in text.split("/")
    )
    return f'<span class="place">{"/<wbr>".join(parts)}</span>'


def link_to(file: Path, folder: Path) -> str:
    """The URL of a file, relative to the page in `folder`."""
    path = os.path.relpath(os.path.abspath(file), os.path.abspath(folder))  # noqa: PTH100  "..", not links, as a browser does
    return urllib.parse.quote(os.fsencode(path))
