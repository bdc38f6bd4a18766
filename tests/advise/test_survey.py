"""The page of what the data hold: counts, pictures, what was set aside; bounded, never markup."""

from __future__ import annotations

import base64
import io
import json
import re
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from fastload import clean, index, inspect, shard
from fastload.advise import aside, by_class, survey
from fastload.load.augment import Augment
from fastload.store.index import read_index
from tests.pictures import encoded, jpeg, picture, write_tree
from tests.shards import flip_bit, numbered
from tests.train.test_report import Reader, read

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core")

HOSTILE = "<script>alert(1)</script>\u202e\u0007 \" onerror='x"
LONG = "長" * 80  # 240 bytes, as long as a file system lets a name be


def grey(seed: int) -> bytes:
    return encoded(picture(seed, mode="L"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Photographs in place, of which some were set aside."""
    root: Path = tmp_path_factory.mktemp("survey") / "data"
    files = {
        **{f"train/玫瑰/{i}.jpg": jpeg(i) for i in range(6)},
        **{f"train/{HOSTILE.replace('/', '∕')}/{i}.jpg": jpeg(10 + i) for i in range(2)},
        f"train/{LONG}/a.jpg": jpeg(20),
        "train/玫瑰/same.jpg": jpeg(40),
        f"train/{LONG}/same.jpg": jpeg(40),
        "train/玫瑰/also in val.jpg": jpeg(41),
        **{f"train/玫瑰/again {i}.jpg": jpeg(0) for i in (1, 2)},
        f"train/{LONG}/again.jpg": jpeg(20),
        "val/玫瑰/0.jpg": jpeg(41),
        "train/玫瑰/grau.jpg": grey(30),
        f"train/{LONG}/half.jpg": jpeg(31)[:300],
        "train/玫瑰/text.jpg": b"<html>no picture</html>",
        "val/玫瑰/1.jpg": jpeg(42),
    }
    write_tree(root, files)
    assert index.main([str(root), "--workers", "1"]) == 0
    return root


def page_of(data: Path, *, source: Path | None = None) -> tuple[str, Reader]:
    text = survey.draw_page(data, "train", augment=Augment.train(32), source=source)
    return text, read(text)


@pytest.fixture(scope="module")
def drawn(data) -> tuple[str, Reader]:
    return page_of(data)


def pictures(html: str) -> list[Image.Image]:
    found = re.findall(r"data:image/jpeg;base64,([^\"]+)\"", html)
    return [Image.open(io.BytesIO(base64.b64decode(each))) for each in found]


def part(html: str, begin: str, end: str = "</details>") -> str:
    return html.partition(begin)[2].partition(end)[0]


def test_every_class_has_its_name_number_and_samples(drawn):
    html, reader = drawn
    assert "玫瑰: 8 images" in reader.text
    assert LONG in reader.text
    samples = pictures(part(html, "as a model sees them", "<h2"))
    assert len(samples) == 6 + 2 + 2  # six of a class at most
    assert {each.size for each in samples} == {(32, 32)}


def test_what_was_set_aside_has_its_reason_and_a_picture_where_one_can_be_made(drawn):
    html, reader = drawn
    assert "has one channel (grey): 1 file" in reader.text
    (thumbnail,) = pictures(part(html, "(grey)"))
    assert max(thumbnail.size) <= 112
    for slug in ("truncated", "not-an-image"):
        assert f"({slug}): 1 file" in reader.text
        assert not pictures(part(html, f"({slug})"))
    assert "train/玫瑰/text.jpg" in reader.text


def test_copies_stand_side_by_side(drawn):
    html, reader = drawn
    assert "2 pictures in 4 files, side by side" in reader.text
    copies = part(html, "several classes or splits")
    for group, (first, second) in zip(
        copies.split('class="copies')[1:], (("also in val", "0"), ("same", "same")), strict=True
    ):
        assert f"{first}.jpg" in group
        assert f"{second}.jpg" in group
        one, other = pictures(group)
        assert one.tobytes() == other.tobytes()
    assert copies.count("stays") == 1  # the one of val, which nothing is trained on


def test_repeats_within_a_class_stand_side_by_side_the_most_frequent_first(drawn):
    html, reader = drawn
    assert "3 images that stay are copies of others of their class and split" in reader.text
    assert "2 pictures in 5 files, side by side" in reader.text
    first, second = html.partition('id="repeats"')[2].split('class="copies')[1:]
    assert [name for name in ("0.jpg", "again 1.jpg", "again 2.jpg") if name in first]
    assert f"{LONG}/again.jpg" in second
    for group, count in ((first, 3), (second, 2)):
        shown = [each.tobytes() for each in pictures(group)]
        assert len(shown) == group.count("stays") == count
        assert len(set(shown)) == 1


def test_repeats_are_counted_in_text(data, tmp_path, capsys):
    said = "3 images that stay are copies of others of their class and split"
    assert inspect.main([str(data), "--size", "32", "--out", str(tmp_path / "page.html")]) == 0
    assert f"repeats: {said}" in capsys.readouterr().out
    assert clean.main([str(data), "--report", str(tmp_path / "report.csv")]) == 0
    assert said in capsys.readouterr().out
    assert shard.main([str(data), "--out", str(tmp_path / "shards"), "--workers", "1"]) == 0
    assert f"repeats     {said}" in capsys.readouterr().out
    rows = [line.split(",") for line in (tmp_path / "report.csv").read_text().splitlines()]
    repeats = [
        row[0] for row in rows if row[1:] == ["repeat", "is also train/玫瑰/0.jpg", "stored"]
    ]
    assert repeats == ["train/玫瑰/again 1.jpg", "train/玫瑰/again 2.jpg"]


def test_repeats_on_a_page_are_bounded_in_number(data, monkeypatch):
    monkeypatch.setattr(aside, "MOST_GROUPS", 1)
    monkeypatch.setattr(aside, "MOST_COPIES", 2)
    html, _ = page_of(data)
    repeats = html.partition('id="repeats"')[2]
    assert "1 picture shown; cleaning.csv names all" in repeats
    assert "and 1 copy" in repeats
    assert len(pictures(repeats)) == 2


def test_the_page_leads_to_what_stands_below_the_classes(drawn):
    html, reader = drawn
    assert "6 files set aside" in reader.text.partition("The long tail")[0]
    for name in ("aside", "repeats"):
        assert f'href="#{name}"' in html
        assert f'id="{name}"' in html


def test_a_name_is_never_markup_and_turns_no_line_around(drawn):
    html, reader = drawn
    assert "script" not in reader.tags
    assert "alert(1)" in reader.text
    for sign in ("\u202e", "\u0007"):
        assert sign not in html
    assert "onerror" not in dict(reader.attributes)
    assert {tag for tag in reader.tags if tag in {"link", "iframe", "object"}} == set()
    links = [value for name, value in reader.attributes if name == "href"]
    assert links == ["#aside", "#repeats"]
    sources = [value for name, value in reader.attributes if name == "src"]
    assert sources
    assert all(value.startswith("data:image/") for value in sources)


def test_members_of_a_tar_that_were_set_aside_are_shown(tmp_path):
    files = {f"{i}.cls": b"0" for i in range(4)}
    files |= {f"{i}.jpg": jpeg(i) for i in range(3)} | {"3.jpg": grey(3)}
    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
        for name in sorted(files):
            info = tarfile.TarInfo(name)
            info.size = len(files[name])
            tar.addfile(info, io.BytesIO(files[name]))
    assert index.main([str(tmp_path / "train-0.tar"), "--workers", "1"]) == 0
    html, reader = page_of(tmp_path / "train-0.tar")
    assert "train-0.tar/3.jpg" in reader.text
    assert len(pictures(part(html, "(grey)"))) == 1


def test_shards_show_what_was_set_aside_where_the_source_is_named(data, tmp_path):
    out = tmp_path / "shards"
    assert shard.main([str(data), "--out", str(out), "--workers", "1"]) == 0
    html, reader = page_of(out)
    assert "has one channel (grey): 1 file" in reader.text
    assert "--source DIR names their folder" in reader.text
    assert not pictures(part(html, "(grey)"))
    html, reader = page_of(out, source=data)
    assert "--source DIR" not in reader.text
    assert len(pictures(part(html, "(grey)"))) == 1


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (b"name,size\n", "is no cleaning report"),
        (b"path,reason,detail,action\na,b\n", "line 2 of it is damaged"),
        (b'path,reason,detail,action\n"a', "line 2 of it is damaged"),
        (b"\xff,x", "is no cleaning report"),
    ],
)
def test_a_report_that_is_none_is_named_on_the_page(tmp_path, report, said):
    shards = numbered(tmp_path / "shards", {"train": 4})
    (shards / "cleaning.csv").write_bytes(report)
    _, reader = page_of(shards)
    assert f"Not shown: cleaning.csv: {said}" in reader.text


def test_a_report_cannot_name_what_lies_outside_the_source(tmp_path):
    shards = numbered(tmp_path / "shards", {"train": 4})
    (tmp_path / "secret.jpg").write_bytes(grey(1))
    rows = "".join(
        f"{path},grey,,set aside\n" for path in ("../secret.jpg", tmp_path / "secret.jpg")
    )
    (shards / "cleaning.csv").write_text(f"path,reason,detail,action\n{rows}x.jpg,odd,,set aside\n")
    html, reader = page_of(shards, source=shards)
    assert "has one channel (grey): 2 files" in reader.text
    assert "odd (odd): 1 file" in reader.text  # a reason of another version
    assert not pictures(html.partition('<h2 id="aside">')[2])


def test_no_file_above_the_source_is_shown_by_a_link_and_files_that_are_linked_are(tmp_path):
    shards = numbered(tmp_path / "shards", {"train": 4})
    (tmp_path / "secret.jpg").write_bytes(grey(1))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "flower.jpg").write_bytes(grey(2))
    (shards / "above").symlink_to(tmp_path)
    (shards / "rose").symlink_to(tmp_path / "elsewhere")
    paths = ("above/secret.jpg", "above/elsewhere/flower.jpg", "rose/flower.jpg")
    rows = "".join(f"{path},grey,,set aside\n" for path in paths)
    (shards / "cleaning.csv").write_text(f"path,reason,detail,action\n{rows}")
    html, _ = page_of(shards, source=shards)
    aside = html.partition('<h2 id="aside">Set aside</h2>')[2]
    assert len(pictures(aside)) == 1
    assert 'alt="rose/flower.jpg"' in aside


def test_an_index_cannot_say_that_its_report_is_of_another_folder(tmp_path):
    """It came with the data, and the files that a report names are not checked by a CRC."""
    files = {f"train/rose/{i}.jpg": jpeg(i) for i in range(3)} | {"train/rose/grey.jpg": grey(3)}
    root = write_tree(tmp_path / "data", files)
    (tmp_path / "secret.jpg").write_bytes(grey(1))
    assert index.main([str(root), "--workers", "1"]) == 0
    folder = root / ".fastload"
    aside = '<h2 id="aside">Set aside</h2>'
    assert len(pictures(page_of(root)[0].split(aside)[1])) == 1
    facts = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    forged = json.dumps({**facts, "root": "../..", "source": ["data"]}, indent=1)
    (folder / "index.json").write_text(forged, encoding="utf-8")
    rows = "secret.jpg,grey,,set aside\ndata/train/rose/grey.jpg,grey,,set aside\n"
    (folder / "cleaning.csv").write_text(f"path,reason,detail,action\n{rows}")
    html, reader = page_of(root)
    assert not pictures(html.split(aside)[1])
    assert "--source DIR names their folder" in reader.text
    html, _ = page_of(root, source=tmp_path)
    assert len(pictures(html.split(aside)[1])) == 2


def test_a_report_of_thousands_of_reasons_makes_no_thousands_of_parts(tmp_path):
    shards = numbered(tmp_path / "shards", {"train": 4})
    rows = "".join(f"{n}.jpg,reason {n} {'x' * 9999},,{'y' * 9999}\n" for n in range(200))
    (shards / "cleaning.csv").write_text(f"path,reason,detail,action\n{rows}")
    html, reader = page_of(shards)
    assert "140 more reasons; cleaning.csv has them all." in reader.text
    assert len(html) < 200_000


def test_a_line_break_in_the_name_of_a_file_is_seen(tmp_path):
    shards = numbered(tmp_path / "shards", {"train": 4})
    rows = '"a\nb.jpg",grey,,set aside\n'
    (shards / "cleaning.csv").write_text(f"path,reason,detail,action\n{rows}")
    assert r"a\nb.jpg" in page_of(shards)[1].text


def test_thousands_of_classes_make_a_page_of_a_bounded_size(tmp_path, monkeypatch):
    shards = numbered(tmp_path / "shards", {"train": 90}, classes=40)
    monkeypatch.setattr(by_class, "MOST_PICTURES", 12)
    monkeypatch.setattr(survey, "MOST_CLASSES", 20)
    html, reader = page_of(shards)
    assert "12 of 40 classes have pictures here" in reader.text
    assert "20 more; --all prints them" in reader.text
    assert reader.tags.count("details") == 20
    assert len(pictures(html)) == 12
    monkeypatch.setattr(by_class, "MOST_BYTES", 2500)
    assert sum(len(each) for each in re.findall(r"base64,([^\"]+)", page_of(shards)[0])) < 3500


def test_the_same_seed_draws_the_same_page(tmp_path):
    shards = numbered(tmp_path / "shards", {"train": 30})
    first = survey.draw_page(shards, "train", augment=Augment.train(32))
    assert survey.draw_page(shards, "train", augment=Augment.train(32)) == first
    assert survey.draw_page(shards, "train", augment=Augment.train(32), seed=1) != first


def test_a_damaged_sample_is_left_out_and_the_others_are_shown(tmp_path):
    shards = numbered(tmp_path / "shards", {"train": 6}, classes=6)
    flip_bit(shards / "train-000000.tar", int(read_index(shards, "train")["offset"][4]) + 300)
    html, reader = page_of(shards)
    assert len(pictures(html)) == 5
    assert "5 of 6 classes have pictures here" in reader.text
    assert "no picture" in reader.text


def test_the_source_of_a_command_is_a_folder(tmp_path, capsys):
    shards = numbered(tmp_path / "shards", {"train": 6})
    with pytest.raises(SystemExit, match="2"):
        inspect.main([str(shards), "--source", "s3://bucket/data"])
    assert "--source must be a folder of this machine" in capsys.readouterr().err
