"""A batch as a browser reads it: every picture exact, every name as text."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from fastload import Augment, Loader, Mix
from fastload.load.drawing import Drawing
from fastload.world import World
from tests.shards import number_of, numbered

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core")

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


def page_of(pictures: np.ndarray, classes: list[tuple[int, str]], *, title: str) -> str:
    said = [[(str(label), name)] for label, name in classes]
    return Drawing(pictures=pictures, classes=said, title=title).html()


@pytest.mark.parametrize(("count", "size"), [(1, 16), (5, 160), (20, 64)])
def test_pictures_are_unchanged_and_in_order(count, size):
    pictures = noise(count, size)
    page = Page(page_of(pictures, [(i, "rose") for i in range(count)], title="t"))
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
    page = Page(page_of(noise(1, 16), [(7, name)], title=name))
    assert page.captions == [f"7 {name}"]
    assert page.title == name
    plain = Page(page_of(noise(1, 16), [(7, "rose")], title="t"))
    assert shape(page) == shape(plain)


def shape(page: Page) -> list[tuple[str, dict[str, str | None]]]:
    """Elements and attributes, without the words that a picture has."""
    words = {"alt", "title"}
    return [
        (tag, {k: v for k, v in facts.items() if k not in words}) for tag, facts in page.elements
    ]


def test_controls_and_broken_names_become_escapes():
    html = page_of(noise(1, 16), [(0, "a\x1b\n\udc80\u202eb")], title="\udc80")
    assert Page(html.encode("utf-8").decode("utf-8")).captions == ["0 a\\x1b\\n\\udc80\\u202eb"]


def test_the_page_says_what_a_browser_must_know_and_loads_nothing():
    page = Page(page_of(noise(2, 16), [(0, "a"), (1, "b")], title="t"))
    assert ("html", {"lang": "en"}) in page.elements
    assert ("meta", {"charset": "utf-8"}) in page.elements
    assert ("meta", {"name": "color-scheme", "content": "light dark"}) in page.elements
    assert page.elements.count(("bdi", {"lang": ""})) == 2
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.elements}
    assert page.html.count("://") == 0


@pytest.fixture
def shards(tmp_path):
    return numbered(tmp_path / "shards", {"train": 40})


def shown(drawing: Drawing) -> list[int]:
    """The numbers of the pictures of a drawing."""
    return [number_of(picture[16, 16]) for picture in drawing.pictures]


def loader_of(shards, **options) -> Loader:
    facts = {"batch_size": 8, "augment": Augment.train(32), "world": World(), **options}
    return Loader(shards, **facts)


def test_a_loader_shows_the_batch_to_come_and_is_as_before(shards):
    with loader_of(shards, dtype=torch.float32, transform=lambda image: image * 0) as loader:
        before = (loader.state_dict(), loader.stats(), loader.last_indices().tolist())
        drawing = loader.show(5)
        assert (loader.state_dict(), loader.stats(), loader.last_indices().tolist()) == before
        assert drawing.pictures.dtype == np.uint8
        next(iter(loader))
        assert shown(drawing) == loader.last_indices().tolist()[:5]
        assert drawing.classes == [
            [(str(number % 3), f"class {number % 3}")] for number in shown(drawing)
        ]


def test_an_epoch_under_way_goes_on_after_a_look(shards):
    with loader_of(shards) as loader:
        plain = [loader.last_indices().tolist() for _ in loader]
    with loader_of(shards) as loader:
        loader.set_epoch(0)
        seen = []
        for _ in loader:
            seen.append(loader.last_indices().tolist())
            assert len(loader.show(2).pictures) == 2
        assert seen == plain
        assert loader.stats().batches == 5


def test_after_a_resume_the_rest_of_the_epoch_is_shown(shards):
    with loader_of(shards) as loader:
        batches = iter(loader)
        next(batches)
        state = loader.state_dict()
        next(batches)
        coming = loader.last_indices().tolist()
    with loader_of(shards) as loader:
        loader.load_state_dict(state)
        assert shown(loader.show(8)) == coming
        assert loader.state_dict() == state


def test_mixed_images_have_the_shares_of_their_classes(shards):
    augment = Augment(size=32, mix=Mix(mixup=1.0, cutmix=0.0))
    with loader_of(shards, augment=augment) as loader:
        drawing = loader.show()
    assert len(drawing.classes) == 8
    assert any(len(parts) == 2 for parts in drawing.classes)
    for parts in drawing.classes:
        assert all(share.endswith("%") for share, _ in parts)


def test_a_drawing_becomes_a_page_and_says_so(shards, tmp_path):
    with loader_of(shards) as loader:
        drawing = loader.show(3)
    drawing.write(tmp_path / "batch.html")
    page = Page((tmp_path / "batch.html").read_text(encoding="utf-8"))
    assert np.array_equal(np.stack(page.pictures), drawing.pictures)
    assert repr(drawing).startswith("<3 images: split train of ")
    assert ".write('batch.html') makes a page>" in repr(drawing)
    with pytest.raises(RuntimeError, match="the loader was closed"):
        loader.show()
    with loader_of(shards) as loader, pytest.raises(ValueError, match="count must be at least 1"):
        loader.show(0)
