"""Every page of ours in a real browser: no error, no request, readable narrow and wide."""

from __future__ import annotations

import http.server
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.report import PAGE
from fastload import index, inspect
from fastload.console.page import document
from tests.browser import Browser, chromium
from tests.pictures import encoded, jpeg, picture, write_tree
from tests.servers import web_server
from tests.train.test_report import report
from train.answers import Answer, Answers, as_html

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:fastload's native core"),
]

NAME = "玫瑰 <b onclick='x'>&amp;"
LONG = "Schmalblättriges" * 15
# One letter each, for a browser: no line can be broken within.
FLOODS = ("\u0e17" + "\u0e49" * 80, "\U0001f468\u200d" * 30)
HOSTILE = "<script>document.title='taken'</script>\u202e\r\n<img src=//example.com/x>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


def write_inspect_page(folder: Path) -> Path:
    names = (NAME, LONG, HOSTILE.replace("/", "∕"), *FLOODS)
    files = {
        f"train/{name}/{i}.jpg": jpeg(i + 9 * n) for n, name in enumerate(names) for i in (1, 2)
    }
    files[f"train/{NAME}/grau.jpg"] = encoded(picture(3, mode="L"))
    files[f"train/{LONG}/{'half' * 50}.jpg"] = jpeg(4)[:200]
    data, out = write_tree(folder / "data", files), folder / "inspect.html"
    assert index.main([str(data), "--workers", "1"]) == 0
    options = ["--size", "64", "--out", str(out), "--sheet", str(folder / "sheet.html")]
    assert inspect.main([str(data), *options]) == 0
    return out


def write_sheet(folder: Path) -> Path:
    return write_inspect_page(folder).with_name("sheet.html")


def write_report(folder: Path) -> Path:
    out = folder / "report.html"
    out.write_text(report(title=f"{NAME} {HOSTILE}", options=LONG * 9).html(), encoding="utf-8")
    return out


def write_answers(folder: Path) -> Path:
    names = (NAME, LONG, HOSTILE, *FLOODS)
    rows = [
        Answer(
            name=f"{HOSTILE}/{i}.jpg",
            truth=1,
            labels=range(len(names)),
            probabilities=(0.6, 0.3, 0.06, 0.03, 0.01),
            thumbnail=jpeg(i),
        )
        for i in range(9)
    ]
    rows.append(Answer(name=LONG, reason="ends before its last row"))
    answers = Answers(model=NAME, classes=names, class_names=names, top=len(names), rows=rows)
    out = folder / "answers.html"
    out.write_text(as_html(answers), encoding="utf-8")
    return out


def committed_page(_folder: Path) -> Path:
    return PAGE


WRITE: dict[str, Callable[[Path], Path]] = {
    "inspect": write_inspect_page,
    "sheet": write_sheet,
    "report": write_report,
    "answers": write_answers,
    "benchmarks": committed_page,
}


@pytest.fixture(scope="module")
def inspected(tmp_path_factory) -> Path:
    return write_inspect_page(tmp_path_factory.mktemp("inspected"))


@pytest.fixture(scope="module", params=WRITE)
def page(request, tmp_path_factory) -> tuple[Path, str]:
    name = "fastload" if request.param == "benchmarks" else NAME
    return WRITE[request.param](tmp_path_factory.mktemp(request.param)), name


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_a_page_opens_without_an_error_or_a_request_and_fits(browser, page, width, dark):
    file, name = page
    seen = browser.open(file, width=width, dark=dark)
    browser.value("document.querySelectorAll('details').forEach(one => one.open = true)")
    browser.value("document.querySelectorAll('img').forEach(one => one.loading = 'eager')")
    browser.value("Promise.all([...document.images].map(one => one.decode().catch(x => 1)))")
    assert seen.errors == []
    assert seen.requests == []
    assert browser.value("document.title") != "taken"
    assert name in browser.value("document.body.innerText")
    facts = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    needed, there = browser.value(facts)
    assert needed <= there == width
    assert contrast_of(browser, "body") > 7  # WCAG 2.2, 1.4.6


def test_pictures_are_decoded_by_the_browser_and_have_words(browser, inspected):
    browser.open(inspected, width=1400)
    browser.value("document.querySelectorAll('details').forEach(one => one.open = true)")
    sizes = "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))"
    browser.value("document.querySelectorAll('img').forEach(one => one.loading = 'eager')")
    widths = browser.value(sizes)
    assert sorted(widths) == [64] * len(widths)
    assert len(widths) >= 4
    assert all(browser.value("[...document.images].map(i => i.alt)"))


def test_a_class_opens_by_the_keyboard(browser, inspected):
    browser.open(inspected, width=1400)
    browser.value("document.querySelector('summary').focus()")
    before = browser.value("document.querySelector('details').open")
    for kind in ("keyDown", "keyUp"):
        facts = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        browser.ask("Input.dispatchKeyEvent", type=kind, **facts)
    assert browser.value("document.querySelector('details').open") is not before


def contrast_of(browser: Browser, selector: str) -> float:
    """Ratio of the luminances of text and ground, as WCAG 2.2 defines it."""
    style = f"getComputedStyle(document.querySelector('{selector}'))"
    text, ground = (browser.value(f"{style}.{name}") for name in ("color", "backgroundColor"))

    def luminance(colour: str) -> float:
        shares = [int(n) / 255 for n in colour.strip("rgb()").split(",")]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return sum(w * s for w, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark, light = sorted((luminance(text), luminance(ground)))
    return (light + 0.05) / (dark + 0.05)


class Counting(http.server.BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """The address of a server, and the paths that it was asked for."""
    asked: list[str] = []
    handler = type("Handler", (Counting,), {"asked": asked})
    with web_server(handler) as address:
        yield address, asked


def test_markup_that_got_into_a_page_would_reach_nothing(browser, tmp_path, elsewhere):
    """The policy of the page holds even where escaping would fail; and the browser tells of it."""
    address, asked = elsewhere
    parts = [
        "<script>document.title = 'taken'</script>",
        "<img src='x:' onerror=\"document.title = 'taken'\">",
        f"<img src='{address}/img'><link rel=stylesheet href='{address}/css'>",
        f"<iframe src='{address}/frame'></iframe><style>@import '{address}/import';</style>",
        f"<object data='{address}/object'></object><video src='{address}/video'></video>",
    ]
    guarded, plain = tmp_path / "guarded.html", tmp_path / "plain.html"
    guarded.write_text(document("title", parts), encoding="utf-8")
    plain.write_text(f"<title>title</title>{''.join(parts)}", encoding="utf-8")
    seen = browser.open(guarded, width=800)
    assert browser.value("document.title") == "title"
    assert len(seen.errors) >= 5
    assert asked == []
    seen = browser.open(plain, width=800)
    assert browser.value("document.title") == "taken"
    assert {f"{address}/img", f"{address}/css"} <= set(seen.requests)
    assert "/img" in asked
