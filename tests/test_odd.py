"""Odd and broken files through the doors: each reason is right, and what is stored is the picture.

The oracles are Pillow and libjpeg-turbo: they say what a file is, whether it is damaged, and which
pixels it has.
"""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import tarfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from fastload import TarDataset
from fastload.pixels import native
from fastload.prepare.reasons import Reason
from tests.odd import Odd, odd_files, sound, with_orientations
from tests.pictures import flower_tree, write_tree

FOLDER = "train/odd"
ODD = odd_files()
PIXELS_OF_A_PHOTOGRAPH = 178_956_970  # twice the default of Pillow's MAX_IMAGE_PIXELS


@dataclass(frozen=True)
class Outcome:
    """What the doors made of the files, with the native core or without it."""

    with_core: bool
    cleaned: dict[str, str]
    reported: dict[str, str]
    verified: str
    shards: Path
    stored: dict[str, bytes]


@pytest.fixture(scope="module", params=["native", "pillow"])
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    with_core = request.param == "native"
    if with_core and not native.is_available():
        pytest.skip(f"needs the native core: {native.why_unavailable()}; run scripts/setup")
    place = tmp_path_factory.mktemp("odd")
    root = flower_tree(place / "data", {"daisy": 1, "rose": 1})
    write_tree(root / FOLDER, {odd.name: odd.data for odd in ODD})

    def run(door: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", f"fastload.{door}", *arguments],
            env={**os.environ, "FASTLOAD_NATIVE": "1" if with_core else "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    report, shards = place / "report.csv", place / "shards"
    sides = ["--min-side", "2", "--workers", "2"]
    run("clean", str(root), "--report", str(report), *sides)
    run("shard", str(root), "--out", str(shards), *sides)
    return Outcome(
        with_core=with_core,
        cleaned=reasons_in(report),
        reported=reasons_in(shards / "cleaning.csv"),
        verified=run("verify", str(shards)),
        shards=shards,
        stored=stored_in(shards),
    )


def reasons_in(report: Path) -> dict[str, str]:
    """Reason of each odd file that a report sets aside, by its name."""
    with report.open(newline="", encoding="utf-8-sig") as lines:
        rows = [row for row in csv.DictReader(lines) if row["reason"] != "changed"]
    assert all(row["path"].startswith(f"{FOLDER}/") for row in rows)
    return {Path(row["path"]).name: row["reason"] for row in rows}


def stored_in(shards: Path) -> dict[str, bytes]:
    """Bytes of each stored odd file, by the name of its source; read with `tarfile`."""
    with (shards / "train.sources.csv").open(newline="", encoding="utf-8") as lines:
        sources = {row["key"]: Path(row["path"]) for row in csv.DictReader(lines)}
    found = {}
    for path in sorted(shards.glob("train-*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                source = sources[member.name.partition(".")[0]]
                data = tar.extractfile(member)
                assert data is not None
                if member.name.endswith(".jpg") and source.parent.name == "odd":
                    found[source.name] = data.read()
    return found


def opened(data: bytes) -> Image.Image:
    """The image, loaded by Pillow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata, and of sizes
        image = Image.open(io.BytesIO(data))
        image.load()
    return image


def upright(data: bytes) -> np.ndarray[Any, Any]:
    """Pillow's pixels of the upright picture."""
    return np.asarray(ImageOps.exif_transpose(opened(data)).convert("RGB")).astype(np.int16)


def test_clean_and_shard_give_every_reason(outcome: Outcome):
    expected = {odd.name: odd.reason for odd in ODD if odd.reason}
    assert outcome.cleaned == expected
    assert outcome.reported == expected


def test_all_other_files_are_stored_and_verified(outcome: Outcome):
    expected = {odd.name for odd in ODD if not odd.reason}
    assert set(outcome.stored) == expected
    of_flowers = 2 * 5  # a train, two val and two test images of two classes
    assert f"{len(expected) + of_flowers} samples are as the manifest says" in outcome.verified


def test_stored_files_show_the_picture_that_pillow_sees(outcome: Outcome):
    for odd in ODD:
        if odd.reason:
            continue
        ended = odd.data + b"\xff\xd9" if odd.name == "no-eoi.jpg" else odd.data
        expected, found = upright(ended), upright(outcome.stored[odd.name])
        assert found.shape == expected.shape, odd.name
        difference = np.abs(found - expected)
        assert difference.mean() < 4, odd.name
        if odd.exact and outcome.with_core:
            assert difference.max() == 0, odd.name


def test_a_data_set_reads_pillows_pixels_of_the_stored_files(outcome: Outcome):
    samples = TarDataset(outcome.shards, "train")
    label = samples.class_to_idx["odd"]
    rows = [row for row, found in enumerate(samples.targets) if found == label]
    found = sorted(np.asarray(samples[row][0]).tobytes() for row in rows)
    pillows = [upright(data).astype(np.uint8).tobytes() for data in outcome.stored.values()]
    assert found == sorted(pillows)
    assert len(set(pillows)) == len(pillows)  # each of them is another picture


@pytest.mark.skipif(not native.is_available(), reason="needs the native core; run scripts/setup")
def test_the_first_of_two_exif_blocks_counts_as_for_pillow():
    data = with_orientations(sound(0), 6, 3)
    assert native.check_jpeg(data).orientation == opened(data).getexif()[0x0112] == 6
    assert native.transcode_jpeg(data).orientation == 6


def test_every_reason_of_a_files_content_occurs():
    """What is left is about places and decoders: see test_clean.py and test_workers.py."""
    places = {"two-classes", "two-splits", "no-class", "not-a-file", "unreadable", "crash"}
    places |= {"slow", "memory"}
    rare = {"colour-space"}
    expected = {reason.slug for reason in Reason} - places - rare
    assert {odd.reason for odd in ODD if odd.reason} == expected


@pytest.mark.parametrize("odd", [odd for odd in ODD if odd.reason], ids=lambda odd: odd.name)
def test_pillow_or_libjpeg_agrees_with_the_reason(odd: Odd):
    assert AGREES[odd.reason](odd), odd.reason


@pytest.mark.parametrize("odd", [odd for odd in ODD if not odd.reason], ids=lambda odd: odd.name)
def test_pillow_or_libjpeg_agrees_that_a_file_is_sound(odd: Odd):
    assert not is_damaged(odd) or odd.name in SOUND_BUT_WARNED_OF
    ended = odd.data + b"\xff\xd9" if odd.name == "no-eoi.jpg" else odd.data
    assert opened(ended).mode == "RGB"


# What libjpeg-turbo or Pillow complains about, though no pixel depends on it.
SOUND_BUT_WARNED_OF = {"no-eoi.jpg", "padded-end.jpg", "stray-bytes.jpg", "segment-too-short.jpg"}


def is_damaged(odd: Odd) -> bool:
    try:
        opened(odd.data)
        if "two-of-three-scans" in odd.name:  # libjpeg-turbo says nothing, and shows no red
            with Image.open(io.BytesIO(odd.data)) as image:
                image.draft("YCbCr", image.size)
                return bool(np.ptp(np.asarray(image)[..., 2]) == 0)
        if odd.data.startswith(b"\xff\xd8"):
            simplejpeg.decode_jpeg(odd.data, strict=True)
    except (OSError, SyntaxError, ValueError):
        return True
    return False


def is_unknown(odd: Odd) -> bool:
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(odd.data))
    return True


def is_bomb(odd: Odd) -> bool:
    with pytest.raises(Image.DecompressionBombError, match="exceeds limit"):
        Image.open(io.BytesIO(odd.data))
    return True


def is_not_taken(odd: Odd) -> bool:
    """Either libjpeg-turbo refuses the header, or Pillow knows another format."""
    if not odd.data.startswith(b"\xff\xd8"):
        return opened(odd.data).format == "ICO"
    with pytest.raises(ValueError, match=r"precision 12|Could not determine subsampling"):
        simplejpeg.decode_jpeg(odd.data)
    return True


def is_longer_than_libjpeg_takes(odd: Odd) -> bool:
    with Image.open(io.BytesIO(odd.data)) as image:
        return max(image.size) > 65_500 and image.width * image.height < PIXELS_OF_A_PHOTOGRAPH


def is_misnamed(odd: Odd) -> bool:
    found = opened(odd.data).format
    assert found is not None
    return Image.registered_extensions().get(Path(odd.name).suffix) != found


AGREES = {
    "empty": lambda odd: odd.data == b"",
    "not-an-image": is_unknown,
    "unsupported": is_not_taken,
    "gif": lambda odd: opened(odd.data).format == "GIF",
    "animated": lambda odd: getattr(opened(odd.data), "n_frames", 1) > 1,
    "mislabelled": is_misnamed,
    "grey": lambda odd: opened(odd.data).mode in {"L", "1"},
    "palette": lambda odd: opened(odd.data).mode == "P",
    "alpha": lambda odd: opened(odd.data).mode == "RGBA",
    "cmyk": lambda odd: opened(odd.data).mode == "CMYK",
    "deep": lambda odd: opened(odd.data).mode.startswith("I"),
    "small": lambda odd: min(opened(odd.data).size) < 2,
    "bomb": is_bomb,
    "too-large": is_longer_than_libjpeg_takes,
    "truncated": is_damaged,
    "corrupt": is_damaged,
}
