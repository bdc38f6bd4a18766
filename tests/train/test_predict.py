"""`python train/predict.py`: what people name, what they get, and that the answers are right."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from fastload import Augment, Loader, TarDataset
from fastload.pixels.decode import cpu_renderer
from tests.pictures import HAS_AVIF
from tests.train.pictures import CLASSES, striped_picture, striped_shards
from tests.train.test_report import read
from train import asking
from train.answers import Answer, Answers, as_html
from train.predict import main
from train.run import main as train
from train.tensorfile import read_tensors, write_tensors
from train.trained import open_run
from train.views import _rendered, sound_image

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core:RuntimeWarning")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return striped_shards(tmp_path_factory.mktemp("striped") / "shards")


@pytest.fixture(scope="module")
def run(shards, tmp_path_factory) -> Path:
    runs: Path = tmp_path_factory.mktemp("runs")
    status = train(
        [
            *("--data", str(shards), "--runs", str(runs), "--name", "a", "--device", "cpu"),
            *("--model", "shufflenet_v2_x0_5", "--init", "scratch", "--size", "32"),
            *("--batch-size", "8", "--threads", "1", "--no-tensorboard", "--no-report"),
            *("--epochs", "3", "--lr", "1", "--quiet-seconds", "3600"),
        ]
    )
    assert status == 0
    return runs / "a"


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Class folders: two photographs of each class, and one of a class that nobody knows."""
    folder = tmp_path / "photos"
    for label, name in enumerate([*CLASSES, "strange"]):
        (folder / name).mkdir(parents=True)
        for number in range(2 if name != "strange" else 1):
            picture = striped_picture(500 + number, label)
            (folder / name / f"{number}.jpg").write_bytes(picture.jpeg)
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def objects_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def predict(*words: str | Path | int) -> int:
    return main([*map(str, words), "--device", "cpu", "--threads", "2"])


def figures_said(text: str) -> dict[str, float]:
    found = [line.split() for line in text.splitlines() if line.startswith("  ")]
    return {name: float(value.replace(",", "")) for name, value in found}


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("corrected", [False, True])
def test_the_figures_are_those_of_the_runs_own_evaluation(run, shards, split, corrected, capsys):
    options = ["--correct-prior"] if corrected else []

    assert predict(run, shards, "--split", split, *options) == 0

    result = json.loads((run / "result.json").read_text(encoding="utf-8"))[split]
    found = figures_said(capsys.readouterr().out)
    assert found.pop("photographs") == result["images"] == 13
    assert len(found) >= 10
    for name, value in found.items():
        expected = result[f"corrected_{name}" if corrected else name]
        assert value == pytest.approx(expected, abs=1e-6), name


def test_all_splits_are_told_apart(run, shards, tmp_path, capsys):
    assert predict(run, shards, "--out", tmp_path / "a.csv") == 0

    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.endswith(":")] == ["train:", "val:", "test:"]
    rows = rows_of(tmp_path / "a.csv")
    assert [row["split"] for row in rows] == ["train"] * 48 + ["val"] * 13 + ["test"] * 13


def test_probabilities_are_the_softmax_at_the_temperature(run, shards, tmp_path):
    content = read_tensors(run / "best.pt")
    view = Augment.eval(32)
    trained = open_run(run, torch.device("cpu"))
    with Loader(
        shards, split="val", augment=view, dtype=torch.float32, batch_size=64, num_threads=1
    ) as loader:
        logits = torch.cat([trained.model(images) for images, _ in loader])

    assert predict(run, shards, "--split", "val", "--out", tmp_path / "a.jsonl", "--top", 9) == 0

    shares = torch.softmax(logits / content["temperature"], 1)
    for row, expected in zip(objects_of(tmp_path / "a.jsonl"), shares, strict=True):
        found = {each["name"]: each["probability"] for each in row["answers"]}
        values = [each["probability"] for each in row["answers"]]
        assert values == sorted(values, reverse=True)
        assert [found[name] for name in CLASSES] == pytest.approx(expected.tolist(), abs=1e-4)


def test_sets_have_k_classes_on_average_over_val(run, shards, tmp_path):
    for size in (1, 3):
        out = tmp_path / f"{size}.jsonl"
        assert predict(run, shards, "--split", "val", "--sets", size, "--out", out) == 0

        rows = objects_of(out)
        assert sum(len(row["set"]) for row in rows) / len(rows) == pytest.approx(size, abs=0.01)
        for row in rows:
            best = [each["class"] for each in row["answers"]]
            assert row["set"] == best[: len(row["set"])]


def test_a_folder_of_class_folders_has_labels_and_the_answers_of_its_shards(
    run, shards, tmp_path, capsys
):
    images = TarDataset(shards, "val")
    folder = tmp_path / "val"
    for row, label in enumerate(images.targets):
        (folder / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        with tarfile.open(shards / images.locate(row)[0]) as archive:
            member = archive.extractfile(f"{images.locate(row)[1]}.jpg")
            assert member is not None
            (folder / CLASSES[label] / f"{row}.jpg").write_bytes(member.read())

    assert predict(run, folder, "--out", tmp_path / "folder.jsonl") == 0
    found = figures_said(capsys.readouterr().out)
    assert predict(run, shards, "--split", "val", "--out", tmp_path / "shards.jsonl") == 0

    expected = figures_said(capsys.readouterr().out)
    assert found == pytest.approx(expected, abs=1e-6)
    of_shards = objects_of(tmp_path / "shards.jsonl")
    for found_row in objects_of(tmp_path / "folder.jsonl"):
        same = of_shards[int(Path(found_row["file"]).stem)]
        assert found_row["label"] == same["label"]
        for one, two in zip(found_row["answers"], same["answers"], strict=True):
            assert one["probability"] == pytest.approx(two["probability"], abs=1e-5)


def test_a_class_that_the_run_does_not_know_is_counted_and_said(run, photographs, tmp_path, capsys):
    assert predict(run, photographs, "--out", tmp_path / "a.csv") == 0

    said = capsys.readouterr()
    assert figures_said(said.out)["photographs"] == 8
    assert "1 photograph of 1 class that the run does not know (strange)" in said.err
    rows = {Path(row["file"]).parent.name: row["label"] for row in rows_of(tmp_path / "a.csv")}
    assert rows == {**{name: name for name in CLASSES}, "strange": ""}


def test_photographs_come_in_the_order_of_the_input_each_once(run, photographs, tmp_path):
    first, folder = photographs / CLASSES[2] / "1.jpg", photographs / CLASSES[1]
    out = tmp_path / "a.csv"

    words = [first, f"{folder}/*.jpg", first, os.path.relpath(photographs), photographs]
    assert predict(run, *words, "--out", out, "--batch-size", 3) == 0

    files = [os.path.abspath(row["file"]) for row in rows_of(out)]  # noqa: PTH100
    rest = sorted(photographs.rglob("*.jpg"))
    expected = [first, folder / "0.jpg", folder / "1.jpg"]
    expected += [path for path in rest if path not in expected]
    assert files == [str(path) for path in expected]


def test_a_short_table_is_printed_without_out(run, photographs, capsys):
    assert predict(run, photographs / CLASSES[0]) == 0

    *_, first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{photographs / CLASSES[0] / '0.jpg'}: ")
    assert second.startswith(f"{photographs / CLASSES[0] / '1.jpg'}: ")
    assert first.count("%") == 3


def test_tars_and_tables_without_classes(run, photographs, tmp_path):
    paths = sorted(photographs.rglob("*.jpg"))[:3]
    with tarfile.open(tmp_path / "flat.tar", "w") as archive:
        for number, path in enumerate(paths):
            archive.add(path, f"{number}.jpg")
    table = tmp_path / "list.csv"
    table.write_text("image_path\n" + "".join(f"{p.relative_to(tmp_path)}\n" for p in paths))

    for name in ("flat.tar", "list.csv"):
        assert predict(run, tmp_path / name, "--out", tmp_path / f"{name}.jsonl") == 0

    one, two = (objects_of(tmp_path / f"{name}.jsonl") for name in ("flat.tar", "list.csv"))
    assert [row["answers"] for row in one] == [row["answers"] for row in two]
    assert one[0]["file"].endswith("flat.tar/0.jpg")
    assert "label" not in one[0]


UNLABELLED = {
    "commas.csv": "path,note\n{0},x\n{1},y\n",
    "semicolons.csv": "path;note\n{0};x\n{1};y\n",
    "wide.tsv": "note\tImage Path\nx\t{0}\ny\t{1}\n",
    "lines.jsonl": '{{"path": "{0}"}}\n{{"path": "{1}"}}\n',
    "list.json": '[{{"path": "{0}"}}, {{"path": "{1}"}}]',
}


@pytest.mark.parametrize(
    ("name", "encoding"),
    [(name, "utf-8-sig") for name in UNLABELLED] + [("semicolons.csv", "utf-16")],
)
def test_a_table_without_classes_is_read_as_one_with(run, photographs, tmp_path, name, encoding):
    paths = [photographs / CLASSES[0] / "0.jpg", photographs / CLASSES[1] / "1.jpg"]
    given = paths[0].relative_to(tmp_path), paths[1]  # relative to the table, and absolute
    (tmp_path / name).write_text(UNLABELLED[name].format(*given), encoding=encoding)

    assert predict(run, tmp_path / name, "--out", tmp_path / "a.csv") == 0

    assert [row["file"] for row in rows_of(tmp_path / "a.csv")] == list(map(str, paths))


def test_a_table_of_numbers_leads_to_the_files_of_a_folder_beside_it(run, photographs, tmp_path):
    folder = photographs / CLASSES[0]
    table = photographs / "test.csv"
    table.write_text("id\n0\n1\n")
    for each in CLASSES[1:]:
        shutil.rmtree(photographs / each)

    assert predict(run, table, "--out", tmp_path / "a.csv") == 0

    files = [row["file"] for row in rows_of(tmp_path / "a.csv")]
    assert files == [str(folder / "0.jpg"), str(folder / "1.jpg")]


def test_a_table_keeps_its_classes_where_files_lie_elsewhere_or_are_not_there(
    run, photographs, tmp_path, capsys
):
    (tmp_path / "below").mkdir()
    table, good = tmp_path / "below" / "t.csv", photographs / CLASSES[1] / "0.jpg"
    up = os.path.relpath(photographs / CLASSES[2] / "0.jpg", table.parent)
    lines = [f"{good},{CLASSES[1]}", f"{up},{CLASSES[2]}", f"gone.jpg,{CLASSES[0]}"]
    zero = "\0" if sys.version_info >= (3, 11) else ""  # before, csv takes none
    lines.append(f"zero{zero}byte.jpg,{CLASSES[0]}")
    table.write_text("\n".join(["path,label", *lines]), encoding="utf-8")

    assert predict(run, table, "--out", tmp_path / "a.jsonl") == 0

    assert "  photographs           2\n" in capsys.readouterr().out
    rows = objects_of(tmp_path / "a.jsonl")
    assert [row["label"]["class"] for row in rows] == [*CLASSES[1:3], CLASSES[0], CLASSES[0]]
    assert ["not_read" in row for row in rows] == [False, False, True, True]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"path\n{'x' * 200_000}\n", "is damaged"),
        *([] if sys.version_info >= (3, 11) else [("path\na\0b.jpg\n", "is damaged")]),
        ("a.jpg\nb.jpg\n", "must name the columns, such as path"),
        ("path,path\na.jpg,b.jpg\n", "two columns path"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_sentence(run, tmp_path, capsys, text, expected):
    (tmp_path / "t.csv").write_text(text)
    said = sentence(capsys, run, tmp_path / "t.csv")
    assert expected in said
    assert "--image-field" not in said  # which is no option here


def test_members_of_a_tar_are_told_by_their_names_and_kinds(run, photographs, tmp_path):
    paths = sorted(photographs.rglob("*.jpg"))[:2]
    with tarfile.open(tmp_path / "flat.tar", "w") as archive:
        archive.add(paths[0], "twice.jpg")
        archive.add(paths[1], "twice.jpg")  # as `tar -r` replaces a file
        for name in ("._twice.jpg", "link.jpg"):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, "twice.jpg"
            archive.addfile(member)

    place = tmp_path / "flat.tar"
    assert predict(run, place, paths[1], "--out", tmp_path / "a.jsonl") == 0

    twice, link, alone = objects_of(tmp_path / "a.jsonl")
    assert twice["file"] == str(place / "twice.jpg")
    assert twice["answers"] == alone["answers"]
    assert "is a link in its tar" in link["not_read"]


def test_names_within_a_tar_of_class_folders_begin_with_the_tar_once(run, photographs, tmp_path):
    with tarfile.open(tmp_path / "classes.tar", "w") as archive:
        for name in CLASSES:
            archive.add(photographs / name / "0.jpg", f"{name}/0.jpg")

    assert predict(run, tmp_path / "classes.tar", "--out", tmp_path / "a.jsonl") == 0

    files = {row["file"] for row in objects_of(tmp_path / "a.jsonl")}
    assert files == {str(tmp_path / "classes.tar" / name / "0.jpg") for name in CLASSES}


def test_a_tar_that_cannot_be_read_says_what_to_do_and_takes_no_memory(run, tmp_path, capsys):
    with tarfile.open(tmp_path / "packed.tar.gz", "w:gz") as archive:
        archive.add(__file__, "a.jpg")
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = b"x", 1 << 40
    with (tmp_path / "header.tar").open("wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.truncate((1 << 40) + 2048)

    assert "unpack it with `gunzip` first" in sentence(capsys, run, tmp_path / "packed.tar.gz")
    assert "a name or header of" in sentence(capsys, run, tmp_path / "header.tar")


def test_a_table_with_classes_gives_figures(run, photographs, tmp_path, capsys):
    paths = sorted(path for name in CLASSES for path in (photographs / name).glob("*.jpg"))
    lines = [f'"{p.relative_to(tmp_path)}","{p.parent.name}"\n' for p in paths]
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(lines), encoding="utf-8")

    assert predict(run, tmp_path / "list.csv") == 0
    counts = [
        int(line.split()[1])
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("  photographs")
    ]
    assert sum(counts) == 8


def gradient() -> Image.Image:
    """Something whose picture turned is another one."""
    rows, columns = np.mgrid[0:64, 0:48]
    return Image.fromarray(np.stack([rows * 3, columns * 4, rows + columns], 2).astype(np.uint8))


FORMATS: dict[str, dict[str, Any]] = {
    ".jpg": {"quality": 97},
    ".jp2": {"irreversible": False},
    ".webp": {"lossless": True},
    **({".avif": {"quality": 95}} if HAS_AVIF else {}),
    **{key: {} for key in (".png", ".bmp", ".tiff", ".gif", ".ppm")},
    **{key: {} for key in (".tga", ".pcx", ".dib", ".sgi")},
}


@pytest.mark.parametrize("extension", FORMATS)
def test_any_format_of_pillow_gives_the_same_picture(extension, tmp_path):
    path = tmp_path / f"a{extension}"
    gradient().save(path, **FORMATS[extension])

    found = sound_image(path.read_bytes(), extension)

    assert (found.height, found.width) == (64, 48)
    out = np.empty((1, 32, 32, 3), np.uint8)
    expected = np.empty_like(out)
    png = io.BytesIO()
    gradient().save(png, "PNG")
    view = Augment.eval(32)
    assert _rendered(cpu_renderer(), view, [found], out) == {}
    _rendered(cpu_renderer(), view, [sound_image(png.getvalue(), ".png")], expected)
    tolerance = 14 if extension in {".gif", ".avif", ".jpg"} else 0
    assert np.abs(out.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_seen_upright(extension, orientation, tmp_path):
    path = tmp_path / f"a{extension}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, dict[str, Any]] = {
        ".jpg": {"quality": 100, "subsampling": 0},
        ".webp": {"lossless": True},
    }
    gradient().save(path, exif=exif, **options.get(extension, {}))
    upright = io.BytesIO()
    ImageOps.exif_transpose(Image.open(path)).convert("RGB").save(upright, "PNG")

    out, expected = np.empty((2, 1, 32, 32, 3), np.uint8)
    found = sound_image(path.read_bytes(), extension)
    assert _rendered(cpu_renderer(), Augment.eval(32), [found], out) == {}
    _rendered(cpu_renderer(), Augment.eval(32), [sound_image(upright.getvalue(), ".png")], expected)

    assert (found.height, found.width) == ((64, 48) if orientation < 5 else (48, 64))
    assert np.abs(out.astype(int) - expected).max() <= (2 if extension == ".jpg" else 0)


MODES = {
    "l.jpg": gradient().convert("L"),
    "cmyk.jpg": gradient().convert("CMYK"),
    "palette.png": gradient().convert("P"),
    "alpha.png": gradient().convert("RGBA"),
    "bilevel.png": gradient().convert("1"),
    "deep.png": Image.fromarray(np.full((40, 30), 40_000, np.uint16)),
    "tiny.png": gradient().resize((1, 1)),
    "PNG named.jpg": gradient(),
    "no extension": gradient(),
}


@pytest.fixture
def oddities(tmp_path: Path) -> Path:
    folder = tmp_path / "odd"
    folder.mkdir()
    for name, image in MODES.items():
        image.save(
            folder / name, "JPEG" if name in {"l.jpg", "cmyk.jpg", "no extension"} else "PNG"
        )
    gradient().save(folder / "two.gif", save_all=True, append_images=[gradient().rotate(90)])
    whole = (folder / "l.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(striped_picture(1, 1).jpeg[:-300])
    (folder / "cut.png").write_bytes((folder / "alpha.png").read_bytes()[:-200])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_bytes(b"no image at all")
    (folder / "link.jpg").symlink_to("nowhere.jpg")
    with (folder / "huge.jpg").open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk, and more memory than there is
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.jpg").write_bytes(whole)
    return folder


BAD = {"cut.jpg", "cut.png", "empty.jpg", "huge.jpg", "text.jpg", "link.jpg"}


def test_every_file_has_a_row_and_a_bad_one_its_reason(run, oddities, tmp_path, capsys):
    outs = [tmp_path / f"a{suffix}" for suffix in (".csv", ".jsonl", ".html")]
    options = [word for out in outs for word in ("--out", out)]

    assert predict(run, oddities, *options) == 0

    said = capsys.readouterr()
    rows = {Path(row["file"]).name: row for row in rows_of(outs[0])}
    assert rows.keys() == {*MODES, "two.gif", *BAD}
    assert {name for name, row in rows.items() if row["not_read"]} == BAD
    assert rows["huge.jpg"]["not_read"].startswith("has 1,099,511,627,776 bytes, more than ")
    for name, row in rows.items():
        assert bool(row["answer_1"]) == (name not in BAD)
    lines = {Path(row["file"]).name: row for row in objects_of(outs[1])}
    assert {name for name, row in lines.items() if "not_read" in row} == BAD
    assert said.err.count("not read: ") == len(BAD)
    assert "passed over as no images: 1 file: " in said.err
    assert "Traceback" not in said.err
    page = outs[2].read_text(encoding="utf-8")
    assert page.count("<img ") == len(MODES) + 1
    assert f"Not read: {len(BAD)} files" in page


def test_nothing_that_can_be_read_is_one_sentence_and_no_file(run, oddities, tmp_path, capsys):
    bad = [oddities / name for name in sorted(BAD)]

    assert predict(run, *bad, "--out", tmp_path / "a.csv", "--out", tmp_path / "a.html") == 1

    said = capsys.readouterr()
    assert said.err.strip().count("\n") == 0
    assert f"none of 6 photographs could be read, the first: {bad[0]}" in said.err
    assert not list(tmp_path.glob("*a.csv*")) + list(tmp_path.glob("*a.html*"))


class Tags(html.parser.HTMLParser):
    """The tags of a page, and what they refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value or "" for name, value in attrs if name in {"src", "href"}]


def test_hostile_names_do_nothing(run, photographs, tmp_path, monkeypatch):
    folder = tmp_path / "hostile"
    folder.mkdir()
    jpeg = (photographs / CLASSES[0] / "0.jpg").read_bytes()
    names = ["=1+1.jpg", "+a.jpg", "@b.jpg", "<script>x.jpg", 'q"uote,.jpg', "new\nline.jpg"]
    for name in [*names, "-c.jpg", "平成.jpg", "a'b.jpg"]:
        (folder / name).write_bytes(jpeg)
    (folder / os.fsdecode(b"\xff\xfe.jpg")).write_bytes(jpeg)
    monkeypatch.chdir(folder)
    outs = [tmp_path / f"a{suffix}" for suffix in (".csv", ".jsonl", ".html")]
    words = [f"--out={out}" for out in outs]

    assert predict(run, *words, "*.jpg") == 0

    raw = outs[0].read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    cells = [cell for row in rows_of(outs[0]) for cell in row.values()]
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@")]
    assert {"'=1+1.jpg", "平成.jpg", "new\nline.jpg"} <= set(cells)
    assert not outs[1].read_bytes().startswith(b"\xef\xbb\xbf")
    files = {row["file"] for row in objects_of(outs[1])}
    assert {*names, "-c.jpg", "平成.jpg", "\\xff\\xfe.jpg"} <= files
    tags = Tags()
    tags.feed(outs[2].read_text(encoding="utf-8"))
    assert "script" not in tags.tags
    assert len(tags.sources) == 10
    assert all(source.startswith("data:image/jpeg;base64,") for source in tags.sources)


def test_a_page_shows_some_pictures_and_says_how_many(run, photographs, tmp_path, monkeypatch):
    monkeypatch.setattr("train.answers.PICTURES_SHOWN", 4)
    out = tmp_path / "a.html"

    assert predict(run, photographs, "--out", out) == 0

    page = out.read_text(encoding="utf-8")
    assert page.count("<img ") == 4
    assert "The first 4 of them are shown" in page


def test_a_page_begins_with_the_main_figures_and_says_what_was_not_as_labelled():
    rows = [
        Answer(name=f"{truth}.jpg", truth=truth, labels=(0, 1), probabilities=(0.75, 0.25))
        for truth in (0, 1)
    ]
    figures: dict[str, Mapping[str, float]] = {
        "val": {"photographs": 2, "loss": 1.5, "top1": 0.5, "macro_top1": 0.25}
    }
    names = ("rose", "\u73ab\u7470")
    answers = Answers(
        model="m", classes=names, class_names=names, top=2, rows=rows, figures=figures
    )

    text = read(as_html(answers)).text

    assert text.index("25.0%50.0%––") < text.index("All figures") < text.index("loss1.5")
    assert text.count("as labelled") == 2
    assert "not as labelled: \u73ab\u7470" in text
    assert text.count("75.0% rose") == 2


def sentence(capsys: Any, *words: str | Path, status: int = 1) -> str:
    try:
        found: object = predict(*words)
    except SystemExit as ended:
        found = ended.code
    assert found == status
    said = capsys.readouterr().err.strip()
    assert "\n" not in said, said
    assert "Traceback" not in said
    return str(said)


def test_mistakes_are_one_sentence_before_anything_is_read(run, photographs, tmp_path, capsys):
    image = photographs / CLASSES[0] / "0.jpg"
    for words, expected in (
        ((tmp_path / "none", image), "there is no such run"),
        ((run, tmp_path / "none"), "there is no such file or folder"),
        ((run, tmp_path / "*.jpg"), "matches no file"),
        ((run, image, "--out", tmp_path / f"{'x' * 245}.csv"), "longer than the file system"),
        ((run, image, "--out", tmp_path / "a.xlsx"), "must end in .csv, .jsonl, .html"),
        ((run, image, "--out", tmp_path), "must end in"),
        ((run, image, "--out", tmp_path / "no" / "a.csv"), "there is no folder"),
        ((run, photographs, "--split", "val"), "no photograph of the split val"),
        ((run, image, "--sets", "4"), "--sets must be one of 0, 1, 3 for this run, got 4"),
    ):
        assert expected in sentence(capsys, *words)
    (tmp_path / "b.csv").write_text("file\nx.jpg\n")
    said = sentence(capsys, run, tmp_path / "b.csv", "--out", tmp_path / "b.csv")
    assert "is among the photographs" in said
    said = sentence(capsys, run, tmp_path / "[b].csv", "--out", tmp_path / "b.csv")
    assert "is among the photographs" in said
    assert (tmp_path / "b.csv").read_text() == "file\nx.jpg\n"
    assert "--top" in sentence(capsys, run, image, "--top", "0", status=2)
    assert "PHOTOS is missing" in sentence(capsys, run, status=2)
    assert "PHOTOS must not be empty" in sentence(capsys, run, "", status=2)
    assert not list(tmp_path.glob("a.*"))


def test_an_older_run_has_no_temperature_and_that_is_said_once(run, photographs, tmp_path, capsys):
    content = read_tensors(run / "best.pt")
    for key in ("temperature", "class_names", "train_counts", "corrected_thresholds", "format"):
        del content[key]
    write_tensors(tmp_path / "best.pt", content)

    assert predict(tmp_path / "best.pt", photographs) == 0

    said = capsys.readouterr().err
    assert said.count("has no temperature") == 1
    assert "does not say how many training images each class had" in sentence(
        capsys, tmp_path / "best.pt", photographs, "--correct-prior", "--sets", "0"
    )


def test_a_stop_in_the_middle_leaves_nothing(run, photographs, tmp_path, monkeypatch, capsys):
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt  # as a signal between two batches does

    monkeypatch.setattr(asking, "augment_images", stopped)
    (tmp_path / "a.csv").write_text("former")

    assert predict(run, photographs, "--out", tmp_path / "a.csv") == 130

    assert (tmp_path / "a.csv").read_text() == "former"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "photos"]


def test_a_full_disk_leaves_the_former_file(run, photographs, tmp_path, capsys):
    (tmp_path / "a.csv").write_text("former")
    (tmp_path / ".a.csv.partial").symlink_to("/dev/full")

    assert "no space is left" in sentence(capsys, run, photographs, "--out", tmp_path / "a.csv")

    assert (tmp_path / "a.csv").read_text() == "former"


def test_photographs_in_a_bucket_are_copied_first(run, tmp_path, capsys):
    said = sentence(capsys, run, "s3://bucket/photographs", "--out", tmp_path / "a.csv")

    assert "photographs of an object store are not read here; copy them first: " in said


def test_a_model_that_answers_with_nan_is_refused(run, photographs, tmp_path, capsys):
    content = read_tensors(run / "best.pt")
    del content["format"]
    next(iter(content["model"].values())).fill_(float("nan"))
    write_tensors(tmp_path / "best.pt", content)

    said = sentence(capsys, tmp_path / "best.pt", photographs, "--out", tmp_path / "a.csv")

    assert "the model answers with NaN or infinity" in said
    assert not (tmp_path / "a.csv").exists()


def test_it_runs_as_a_script_from_anywhere(run, photographs, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(ROOT / "train" / "predict.py"), str(run), str(photographs)]

    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "Rosa canina L." in done.stdout


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])

    assert ended.value.code == 0
    said = capsys.readouterr().out
    for option in ("--out", "--top", "--sets", "--split", "--correct-prior", "--device"):
        assert option in said


def test_data_in_place_are_read_by_their_index_where_a_split_is_asked_for(
    run, photographs, tmp_path
):
    shutil.rmtree(photographs / "strange")
    command = [sys.executable, "-m", "fastload.index", str(photographs), "--val-fraction", "0.5"]
    subprocess.run(command, check=True, capture_output=True)

    assert predict(run, photographs, "--split", "val", "--out", tmp_path / "a.csv") == 0

    rows = rows_of(tmp_path / "a.csv")
    assert {row["split"] for row in rows} == {"val"}
    assert 0 < len(rows) < 8
    assert all(Path(row["file"]).exists() for row in rows)
