"""Pages of HTML in one file: no scripts, text in any script, pictures inside.

report.html and the page of answers are made of these parts. A page reads well from 400 pixels on.
"""

from __future__ import annotations

import base64
import html
import os
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastload.console.terminal import printable

_STYLE = """
body { font: 15px/1.5 system-ui, "Noto Sans", "Noto Sans CJK SC", sans-serif; color: #222;
       background: #fff; max-width: 980px; margin: 2em auto; padding: 0 1em;
       overflow-wrap: anywhere }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
table { border-collapse: collapse } td, th { padding: .2em .5em; text-align: left;
       border-bottom: 1px solid #ddd; vertical-align: top; overflow-wrap: normal }
td.n, th.n { text-align: right } td.n { white-space: nowrap }
td bdi { display: inline-block; min-width: 7em; overflow-wrap: anywhere }
.pair { display: flex; flex-wrap: wrap; gap: .3em 1.5em; padding: .6em 0;
       border-bottom: 1px solid #ddd } .pair > div { width: 23em; max-width: 100% }
.wide { max-width: 100%; overflow-x: auto }
figure { display: inline-block; margin: .5em 1em .5em 0; max-width: 100%; vertical-align: top }
figure.card { width: 10.5em; margin-right: .7em }
figcaption, .place { font-size: .9em; color: #555 } .place { font-size: .8em }
svg { max-width: 100%; height: auto } svg text { font-family: inherit !important }
img { max-width: 100%; border-radius: 3px; vertical-align: top; margin: 0 .2em .2em 0 }
.bar { display: inline-block; height: .7em; background: #0072b2; border-radius: 2px }
code { font-size: .9em } pre { overflow-x: auto }
"""


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
        place = escaped(self.place)
        shown = f'<span class="place">{place}</span>'
        if self.jpeg is not None:
            source = base64.b64encode(self.jpeg).decode("ascii")
            shown = f'<img alt="{place}" title="{place}" src="data:image/jpeg;base64,{source}">'
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
            '<meta name="viewport" content="width=device-width">',
            f"<title>{escaped(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escaped(title)}</h1>",
            *parts,
            "</body></html>\n",
        ]
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int]) -> str:
    """A table, which scrolls where the page is narrow.

    Args:
        heads: The heads of the columns, as HTML.
        rows: The cells, as HTML.
        numbers: The columns that are aligned to the right.
    """

    def line(tag: str, cells: Sequence[str]) -> str:
        kinds = [' class="n"' if place in numbers else "" for place in range(len(cells))]
        inner = "".join(
            f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)
        )
        return f"<tr>{inner}</tr>"

    body = "".join(line("td", row) for row in rows)
    return f'<div class="wide"><table>{line("th", heads)}{body}</table></div>'


def figure(body: str, caption: str) -> str:
    """Something to look at, with the words below it; both as HTML."""
    return f"<figure>{body}<figcaption>{caption}</figcaption></figure>"


def card(picture: Picture, lines: Iterable[str]) -> str:
    """A picture with lines of HTML below it; many of them stand side by side."""
    words = "<br>".join(lines)
    return f'<figure class="card">{picture.html()}<figcaption>{words}</figcaption></figure>'


def bar(share: float) -> str:
    """A bar for a share in [0, 1], of at most five letters' width."""
    return f'<span class="bar" style="width:{5 * share:.2f}em"></span>'


def escaped(text: str) -> str:
    """A text for HTML: names come from folders, and may hold controls and broken UTF-8."""
    return "\n".join(html.escape(printable(line)) for line in text.split("\n"))


def name(text: str) -> str:
    """A name within a sentence: its own direction of writing does not turn the words around it."""
    return f"<bdi>{escaped(text)}</bdi>"


def link_to(file: Path, folder: Path) -> str:
    """The URL of a file, relative to the page in `folder`."""
    path = os.path.relpath(os.path.abspath(file), os.path.abspath(folder))  # noqa: PTH100  "..", not links, as a browser does
    return urllib.parse.quote(os.fsencode(path))
