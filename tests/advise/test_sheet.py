"""The contact sheet as a browser reads it: every picture exact, every name as text."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from fastload.advise.sheet import contact_sheet

VOID = {"meta", "img"}  # elements that have no end


@dataclass
class Page(HTMLParser):
    """The elements of a page; fails where one is not closed."""

    html: str
    title: str = ""
    pictures: list[np.ndarray] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.html)
        self.close()
        assert self.inside == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "img":
            kind, _, data = str(dict(attrs)["src"]).partition(",")
            assert kind == "data:image/png;base64"
            self.pictures.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))))
        if tag == "figcaption":
            self.captions.append("")
        if tag not in VOID:
            self.inside.append(tag)

    def handle_endtag(self, tag):
        assert self.inside.pop() == tag

    def handle_data(self, data):
        if "title" in self.inside:
            self.title += data
        if "figcaption" in self.inside:
            self.captions[-1] += data


def noise(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


@pytest.mark.parametrize(("count", "size"), [(1, 16), (5, 160), (20, 64)])
def test_pictures_are_unchanged_and_in_order(count, size):
    pictures = noise(count, size)
    page = Page(contact_sheet(pictures, [(i, "rose") for i in range(count)], title="t"))
    assert np.array_equal(np.stack(page.pictures), pictures)
    assert page.captions == [f"{i} rose" for i in range(count)]
    sides = [(facts["width"], facts["height"]) for tag, facts in page.elements if tag == "img"]
    assert sides == [(str(size), str(size))] * count


@pytest.mark.parametrize(
    "name",
    [
        "薔薇",
        "وردة",
        "Роза",
        "गुलाब",
        "🌹",
        "می\u200cخواهم",
        "<script>alert(1)</script>",
        "</figcaption></main>",
        "a & b &lt; c",
        "\" onload='x'",
        "{braces} {0}",
        "",
    ],
)
def test_a_name_is_text_whatever_it_holds(name):
    page = Page(contact_sheet(noise(1, 16), [(7, name)], title=name))
    assert page.captions == [f"7 {name}"]
    assert page.title == name
    plain = Page(contact_sheet(noise(1, 16), [(7, "rose")], title="t"))
    assert page.elements == plain.elements


def test_controls_and_broken_names_become_escapes():
    html = contact_sheet(noise(1, 16), [(0, "a\x1b\n\udc80\u202eb")], title="\udc80")
    assert Page(html.encode("utf-8").decode("utf-8")).captions == ["0 a\\x1b\\n\\udc80\\u202eb"]


def test_the_page_says_what_a_browser_must_know_and_loads_nothing():
    page = Page(contact_sheet(noise(2, 16), [(0, "a"), (1, "b")], title="t"))
    assert ("html", {"lang": "en"}) in page.elements
    assert ("meta", {"charset": "utf-8"}) in page.elements
    assert ("meta", {"name": "color-scheme", "content": "light dark"}) in page.elements
    assert page.elements.count(("bdi", {"lang": ""})) == 2
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.elements}
    assert page.html.count("://") == 0
