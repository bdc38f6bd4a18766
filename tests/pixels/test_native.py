"""The native core against libjpeg-turbo, Pillow, torchvision and zlib."""

from __future__ import annotations

import io
import math
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2 import functional

from fastload.errors import BackendUnavailableError, CorruptImageError, UnsupportedImageError
from fastload.pixels import native
from fastload.pixels.jpeg import Encoded
from tests import pictures
from tests.pictures import encoded

needs_core = pytest.mark.skipif(
    not native.is_available(), reason=f"no native core: {native.why_unavailable()}"
)

SAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")


def picture(height: int, width: int, seed: int = 0, *, mode: str = "RGB") -> Image.Image:
    """Strong colours and edges, so that clamping and every frequency occur."""
    return pictures.picture(seed, height=height, width=width, mode=mode, spacing=5)


def jpeg_of(
    image: Image.Image, *, sampling: str = "4:2:0", restart: int = 0, quality: int = 85
) -> bytes:
    options: dict[str, Any] = {"restart_marker_blocks": restart} if restart else {}
    if image.mode != "L":
        options["subsampling"] = sampling
    return encoded(image, quality=quality, optimize=bool(restart), **options)


def libjpeg(jpeg: bytes) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(jpeg, "RGB")
    return pixels


def torchvision(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    planes = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
    resized = functional.resize(planes, [size, size], antialias=True)
    square: NDArray[np.uint8] = resized.permute(1, 2, 0).numpy()
    return square


def crop(
    jpeg: bytes, box: tuple[int, int, int, int], size: int, *, flip: bool = False
) -> NDArray[np.uint8]:
    out = np.full((1, size, size, 3), 77, np.uint8)
    status = native.decode_boxes(
        Encoded.join([jpeg]), np.array([box], np.int32), np.array([flip]), out
    )
    assert status[0] == 0, native.reason(int(status[0]))
    pixels: NDArray[np.uint8] = out[0]
    return pixels


def decibels(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    error = np.square(a.astype(np.float64) - b).mean()
    return float(10 * np.log10(255**2 / error)) if error else math.inf


def random_box(random: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int]:
    top, left = int(random.integers(height)), int(random.integers(width))
    return (
        top,
        left,
        int(random.integers(1, height - top + 1)),
        int(random.integers(1, width - left + 1)),
    )


@needs_core
@pytest.mark.parametrize("restart", [0, 1, 3])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_whole_pictures_equal_libjpeg_at_every_size(sampling: str, restart: int) -> None:
    for height in range(1, 41):
        for width in range(1 + height % 3, 41, 3):
            jpeg = jpeg_of(picture(height, width), sampling=sampling, restart=restart)
            assert np.array_equal(native.decode_full(jpeg), libjpeg(jpeg)), (height, width)


@needs_core
def test_whole_grey_pictures_equal_libjpeg() -> None:
    for size in range(1, 41):
        jpeg = jpeg_of(picture(size, 41 - size, mode="L"), restart=size % 3)
        assert np.array_equal(native.decode_full(jpeg), libjpeg(jpeg)), size


@needs_core
def test_chroma_halved_in_height_alone_equals_libjpeg() -> None:
    for size in range(1, 41):
        pixels = np.asarray(picture(size, 41 - size))
        jpeg = simplejpeg.encode_jpeg(pixels, colorsubsampling="440")
        assert np.array_equal(native.decode_full(jpeg), libjpeg(jpeg)), size


@needs_core
@pytest.mark.parametrize("quality", [1, 30, 75, 95, 100])
def test_every_quality_decodes_exactly(quality: int) -> None:
    for sampling in SAMPLINGS:
        jpeg = jpeg_of(picture(123, 157), sampling=sampling, restart=4, quality=quality)
        assert np.array_equal(native.decode_full(jpeg), libjpeg(jpeg))


@needs_core
def test_photographs_decode_exactly(flowers_dir: Path) -> None:
    for path in sorted(flowers_dir.rglob("*.jpg"))[::140]:
        jpeg = path.read_bytes()
        assert np.array_equal(native.decode_full(jpeg), libjpeg(jpeg)), path


@needs_core
def test_crops_of_photographs_match_torchvision(flowers_dir: Path) -> None:
    random = np.random.default_rng(3)
    differences = []
    for path in sorted(flowers_dir.rglob("*.jpg"))[::70]:
        jpeg = path.read_bytes()
        pixels = libjpeg(jpeg)
        height, width = pixels.shape[:2]
        side = int(random.integers(100, min(height, width)))
        top, left = int(random.integers(height - side + 1)), int(random.integers(width - side + 1))
        ours = crop(jpeg, (top, left, side, side), 224)
        theirs = torchvision(pixels[top : top + side, left : left + side], 224)
        assert decibels(ours, theirs) >= 54, path
        differences.append(ours.astype(np.int64) - theirs)
    signed = np.stack(differences)
    assert np.abs(signed).max() <= 1
    assert np.abs(signed).mean() <= 0.2
    assert abs(signed.mean()) <= 0.01


@needs_core
@pytest.mark.parametrize("sampling", [*SAMPLINGS, "grey"])
def test_any_box_of_any_size_matches_torchvision(sampling: str) -> None:
    random = np.random.default_rng(4)
    image = picture(90, 130, mode="L" if sampling == "grey" else "RGB")
    jpeg = jpeg_of(image, sampling=sampling, restart=3)
    pixels = libjpeg(jpeg)
    edges = [(0, 0, 1, 1), (89, 129, 1, 1), (0, 0, 90, 130), (0, 129, 90, 1), (89, 0, 1, 130)]
    for box in [*edges, *(random_box(random, 90, 130) for _ in range(150))]:
        top, left, height, width = box
        size = int(random.choice([1, 2, 7, 8, 15, 16, 17, 31, 33, 64]))
        if min(height, width) / size >= 12:
            continue  # shrunk within the inverse DCT: see the tests of large reductions
        ours = crop(jpeg, box, size)
        theirs = torchvision(pixels[top : top + height, left : left + width], size)
        assert np.abs(ours.astype(int) - theirs).max() <= 1, (box, size)


@needs_core
@pytest.mark.parametrize("size", [8, 16, 32, 48, 64, 96, 128])
def test_photographs_in_small_sizes_are_within_4_of_torchvision(
    flowers_dir: Path, size: int
) -> None:
    """From a reduction of 12 on blocks shrink within the inverse DCT; below, rounding differs."""
    random, shrunk = np.random.default_rng(size), []
    for path in sorted(flowers_dir.rglob("*.jpg"))[:: 30 if size <= 32 else 120]:
        jpeg = path.read_bytes()
        pixels = libjpeg(jpeg)
        for box in [(0, 0, *pixels.shape[:2]), random_box(random, *pixels.shape[:2])]:
            top, left, height, width = box
            ours = crop(jpeg, box, size)
            theirs = torchvision(pixels[top : top + height, left : left + width], size)
            large = min(height, width) / size >= 12
            shrunk.append(large)
            assert np.abs(ours.astype(int) - theirs).max() <= (4 if large else 1), (path, box)
    assert any(shrunk) or size > 32


@needs_core
@pytest.mark.parametrize("sampling", [*SAMPLINGS, "grey"])
def test_a_box_that_cuts_shrunk_samples_reads_no_pixel_outside(sampling: str) -> None:
    """Black beside white: the box ends between them, at an odd pixel, so within a sample."""
    image = np.zeros((257, 263, 3), np.uint8)
    image[:, :101] = image[:93] = 255
    jpeg = jpeg_of(
        Image.fromarray(image).convert("L" if sampling == "grey" else "RGB"),
        sampling=sampling,
        quality=100,
    )
    pixels = libjpeg(jpeg)
    for box in [(93, 101, 160, 160), (0, 0, 93, 101), (91, 99, 163, 162), (0, 101, 256, 121)]:
        top, left, height, width = box
        for size in (3, 5, 7):
            ours = crop(jpeg, box, size)
            theirs = torchvision(pixels[top : top + height, left : left + width], size)
            assert np.abs(ours.astype(int) - theirs).max() <= 6, (box, size)


@needs_core
def test_flipping_mirrors_exactly() -> None:
    jpeg = jpeg_of(picture(100, 150), restart=4)
    for size in (1, 5, 8, 16, 30, 33):
        upright = crop(jpeg, (11, 23, 71, 99), size)
        assert np.array_equal(crop(jpeg, (11, 23, 71, 99), size, flip=True), upright[:, ::-1])


@needs_core
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_restart_markers_change_nothing(sampling: str) -> None:
    random = np.random.default_rng(5)
    image = picture(77, 119)
    files = [jpeg_of(image, sampling=sampling, restart=r) for r in (0, 1, 2, 5, 15, 40)]
    boxes = np.array([random_box(random, 77, 119) for _ in range(40)], np.int32)
    results = []
    for jpeg in files:
        out = np.empty((40, 32, 32, 3), np.uint8)
        assert not native.decode_boxes(
            Encoded.join([jpeg] * 40), boxes, boxes[:, 0] > 20, out
        ).any()
        results.append(out)
    for out in results[1:]:
        assert np.array_equal(out, results[0])


def _every_way(jpegs: list[bytes], boxes: NDArray[np.int32], size: int) -> NDArray[np.int32]:
    """Decode at each level of instructions, compare all that succeeded; the statuses.

    All of each box, and a part of each third one.
    """
    encoded, flips = Encoded.join(jpegs), np.arange(len(jpegs)) % 2 == 1
    part = np.where(np.arange(len(jpegs)) % 3 == 1, 0.3, 1.0)[:, None] * boxes[:, 2:]
    windows = np.concatenate([(boxes[:, 2:] - part) / 3, part], axis=1)
    results = []
    for level in native.SIMD_LEVELS:
        native.set_simd(level)
        out = np.zeros((len(jpegs), size, size, 3), np.uint8)
        statuses = native.decode_boxes(encoded, boxes, flips, out, windows=windows)
        results.append((statuses, out[statuses == 0]))
    native.set_simd()
    for statuses, out in results[1:]:
        assert np.array_equal(statuses, results[0][0])
        assert np.array_equal(out, results[0][1])
    return results[0][0]


@needs_core
def test_every_level_of_instructions_gives_the_same_bytes(flowers_dir: Path) -> None:
    random = np.random.default_rng(6)
    jpegs = [path.read_bytes() for path in sorted(flowers_dir.rglob("*.jpg"))[::300]]
    for sampling in SAMPLINGS:
        jpegs += [jpeg_of(picture(70, 90), sampling=sampling, restart=r) for r in (0, 2)]
        # At every scale of the inverse DCT; the bytes as good as random, with many FF.
        jpegs += [jpeg_of(picture(300, 340), sampling=sampling, quality=q) for q in (50, 100)]
    jpegs.append(jpeg_of(picture(70, 90, mode="L")))
    jpegs.append(simplejpeg.encode_jpeg(np.asarray(picture(130, 60)), colorsubsampling="440"))
    sizes = [libjpeg(jpeg).shape[:2] for jpeg in jpegs]
    boxes = np.array([random_box(random, *size) for size in sizes], np.int32)
    for size in (1, 9, 48, 224):
        assert not _every_way(jpegs, boxes, size).any()


@needs_core
def test_whole_pictures_equal_libjpeg_at_every_level(each_level: None) -> None:
    for sampling in SAMPLINGS:
        for height in (1, 15, 33, 61, 64):
            jpeg = jpeg_of(picture(height, 99 - height), sampling=sampling, restart=2)
            assert np.array_equal(native.decode_full(jpeg), libjpeg(jpeg))


@needs_core
@pytest.mark.parametrize(("sampling", "restart"), [("4:2:0", 2), ("4:4:4", 0)])
def test_every_truncation_gives_a_picture_or_a_reason(sampling: str, restart: int) -> None:
    jpeg = jpeg_of(picture(33, 45), sampling=sampling, restart=restart, quality=60)
    cuts = [jpeg[:size] for size in range(len(jpeg))]
    boxes = np.tile(np.array([0, 0, 33, 45], np.int32), (len(cuts), 1))
    statuses = _every_way(cuts, boxes, 24)
    first_whole = int(np.flatnonzero(statuses == 0)[0])
    assert len(jpeg) - first_whole <= 4  # the end marker, and at most padding
    assert (statuses[:first_whole] != 0).all()
    assert (statuses[first_whole:] == 0).all()
    with pytest.raises(CorruptImageError, match="ends"):
        native.decode_full(jpeg[:-40])


@needs_core
@pytest.mark.parametrize(
    ("sampling", "restart", "grey"),
    [("4:2:0", 2, False), ("4:4:4", 1, False), ("4:2:2", 0, False), ("", 3, True)],
)
def test_every_damaged_byte_gives_a_picture_or_a_reason(
    sampling: str, restart: int, grey: bool
) -> None:
    random = np.random.default_rng(7)
    jpeg = jpeg_of(
        picture(33, 45, mode="L" if grey else "RGB"), sampling=sampling, restart=restart, quality=60
    )
    damaged = [
        jpeg[:index] + bytes([value]) + jpeg[index + 1 :]
        for index, byte in enumerate(jpeg)
        for value in (0, 255, byte ^ (1 << int(random.integers(8))), int(random.integers(256)))
    ]
    boxes = np.array([random_box(random, 33, 45) for _ in damaged], np.int32)
    statuses = _every_way(damaged, boxes, 20)
    assert all(native.reason(int(status)) != "unknown status" for status in np.unique(statuses))
    assert len(np.unique(statuses)) > 10


@needs_core
def test_damage_within_an_interval_is_noticed() -> None:
    """A scan whose intervals are swapped, shortened or renumbered must not pass as a picture."""
    jpeg = jpeg_of(picture(64, 64), restart=2)
    marker = jpeg.index(b"\xff\xd0")
    renumbered = jpeg[:marker] + b"\xff\xd3" + jpeg[marker + 2 :]
    shortened = jpeg[: marker - 3] + jpeg[marker:]
    lengthened = jpeg[:marker] + b"\x12\x34" + jpeg[marker:]
    without = jpeg[:marker] + jpeg[marker + 2 :]
    for bad in (renumbered, without):
        with pytest.raises(CorruptImageError, match="restart markers are out of sequence"):
            native.decode_full(bad)
    for bad in (shortened, lengthened):
        with pytest.raises(CorruptImageError, match="do not end where their interval ends"):
            native.decode_full(bad)
    assert native.decode_full(jpeg).shape == (64, 64, 3)


@needs_core
def test_a_header_may_not_claim_more_than_its_bytes_hold() -> None:
    jpeg = bytearray(jpeg_of(picture(16, 16)))
    position = jpeg.index(b"\xff\xc0")
    jpeg[position + 5 : position + 9] = b"\xff\xff\xff\xff"
    with pytest.raises(CorruptImageError, match="claims more pixels than its bytes can hold"):
        native.decode_full(bytes(jpeg))


@needs_core
def test_awkward_images_never_crash(awkward_dir: Path) -> None:
    files = [path.read_bytes() for path in sorted(awkward_dir.iterdir()) if path.is_file()]
    boxes = np.tile(np.array([0, 0, 9, 9], np.int32), (len(files), 1))
    assert 0 in _every_way(files, boxes, 16)


@needs_core
def test_awkward_images_that_decode_equal_libjpeg(awkward_dir: Path) -> None:
    compared = 0
    for path in sorted(awkward_dir.iterdir()):
        jpeg = path.read_bytes()
        try:
            ours, theirs = native.decode_full(jpeg), libjpeg(jpeg)
        except (ValueError, CorruptImageError, UnsupportedImageError):
            continue
        assert np.array_equal(ours, theirs), path.name
        compared += 1
    assert compared > 20


@needs_core
@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        (lambda _: b"", CorruptImageError, "does not begin with a JPEG start marker"),
        (lambda j: b"GIF89a" + j, CorruptImageError, "does not begin with a JPEG start marker"),
        (lambda j: j[:30], CorruptImageError, "ends within its header"),
        (lambda j: j.replace(b"\xff\xc0", b"\xff\xc9"), UnsupportedImageError, "arithmetic"),
        (lambda j: j.replace(b"\xff\xc0", b"\xff\xc3"), UnsupportedImageError, "lossless"),
    ],
)
def test_refusals_say_why(change, kind, sentence) -> None:
    with pytest.raises(kind, match=sentence):
        native.decode_full(change(jpeg_of(picture(16, 16))))


@needs_core
def test_kinds_that_are_not_taken_are_unsupported() -> None:
    progressive, cmyk = io.BytesIO(), io.BytesIO()
    picture(32, 32).save(progressive, "JPEG", progressive=True)
    picture(32, 32).convert("CMYK").save(cmyk, "JPEG")
    with pytest.raises(UnsupportedImageError, match="progressive JPEG"):
        native.decode_full(progressive.getvalue())
    with pytest.raises(UnsupportedImageError, match="neither 1 nor 3 components"):
        native.decode_full(cmyk.getvalue())
    rgb = simplejpeg.encode_jpeg(np.asarray(picture(32, 32)), colorsubsampling="444")
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
    without_jfif = rgb[:2] + adobe + rgb[2 + 2 + int.from_bytes(rgb[4:6], "big") :]
    with pytest.raises(UnsupportedImageError, match="stored as RGB"):
        native.decode_full(without_jfif)


@needs_core
def test_a_failure_leaves_its_neighbours_alone() -> None:
    good = jpeg_of(picture(40, 40))
    out = np.zeros((3, 16, 16, 3), np.uint8)
    boxes = np.tile(np.array([0, 0, 40, 40], np.int32), (3, 1))
    statuses = native.decode_boxes(
        Encoded.join([good, b"junk", good]), boxes, np.zeros(3, bool), out
    )
    assert (statuses != 0).tolist() == [False, True, False]
    assert np.array_equal(out[0], out[2])
    assert out[0].any()


@needs_core
def test_a_box_beyond_its_image_gets_a_status() -> None:
    jpeg = jpeg_of(picture(40, 40))
    boxes = np.array(
        [[0, 0, 41, 40], [1, 0, 40, 40], [0, 30, 5, 11], [0, 0, 2**31 - 1, 1]], np.int32
    )
    out = np.zeros((4, 8, 8, 3), np.uint8)
    statuses = native.decode_boxes(Encoded.join([jpeg] * 4), boxes, np.zeros(4, bool), out)
    assert {native.reason(int(s)) for s in statuses} == {"box does not lie inside the image"}


@needs_core
@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 0, 5), (0, 0, 5, 0)])
def test_an_impossible_box_is_a_value_error(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="boxes must begin at 0 or later"):
        crop(jpeg_of(picture(16, 16)), box, 8)


@needs_core
@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        (np.zeros((2, 8, 8, 3), np.uint8), r"out must be \[1, S, S, 3\], got \[2, 8, 8, 3\]"),
        (np.zeros((1, 8, 9, 3), np.uint8), "out must be"),
        (np.zeros((1, 8, 8, 3), np.float32), "must be uint8, C-contiguous"),
        (np.zeros((1, 8, 8, 6), np.uint8)[..., ::2], "must be uint8, C-contiguous"),
        (np.zeros((1, 0, 0, 3), np.uint8), "size must be in"),
    ],
)
def test_an_unfit_output_is_a_value_error(out: NDArray[np.uint8], sentence: str) -> None:
    encoded = Encoded.join([jpeg_of(picture(16, 16))])
    with pytest.raises(ValueError, match=sentence):
        native.decode_boxes(encoded, np.array([[0, 0, 8, 8]], np.int32), np.zeros(1, bool), out)


@needs_core
def test_images_must_lie_inside_their_buffer() -> None:
    buffer = np.zeros(10, np.uint8)
    for start, size in ((-1, 5), (6, 5), (0, -1), (2**62, 2**62)):
        encoded = Encoded(buffer, np.array([start]), np.array([size]))
        with pytest.raises(ValueError, match="must lie inside their buffer"):
            native.crc32s(encoded)


@needs_core
def test_sums_equal_zlib_at_every_length(each_level: None) -> None:
    data = np.random.default_rng(8).integers(0, 256, 700, np.uint8).tobytes()
    pieces = [data[i % 7 : i % 7 + i] for i in range(690)]
    assert native.crc32s(Encoded.join(pieces)).tolist() == [zlib.crc32(p) for p in pieces]


@needs_core
def test_ranges_of_files_are_read_or_said_to_be_incomplete(tmp_path):
    data, folder = os.urandom(100_000), os.fsencode(tmp_path)
    (tmp_path / "file").write_bytes(data)
    os.mkfifo(tmp_path / "pipe")  # no writer: to open it would wait
    (tmp_path / "link").symlink_to("file")
    path, no_path = folder + b"/file", folder + b"/nothing"
    with (tmp_path / "file").open("rb") as file:
        opened = file.fileno()
        asked = [
            *((path, 0, 100_000, True), (folder + b"/link", 0, 100_000, True)),
            *((path, 0, 99_999, False), (path, 0, 100_001, False), (no_path, 0, 5, False)),
            *((folder, 0, 0, False), (folder + b"/pipe", 0, 0, False), (b"", 0, 5, False)),
            *((opened, 0, 100_000, True), (opened, 99_990, 10, True), (opened, 99_990, 11, False)),
            *((opened, 200_000, 1, False), (opened, -1, 1, False), (-1, 0, 1, False)),
            *((opened, 7, 0, True), (opened, 4_097, 12_345, True)),
        ]
        sizes = np.array([size for _, _, size, _ in asked], np.int64)
        starts = np.cumsum(sizes + 3) - sizes  # with a gap before each
        into = Encoded(np.full(int(starts[-1] + sizes[-1]) + 3, 77, np.uint8), starts, sizes)
        offsets = np.array([offset for _, offset, _, _ in asked], np.int64)
        complete = native.read_many([file for file, *_ in asked], offsets, into)
    assert complete.tolist() == [whole for *_, whole in asked]
    for i, (_, offset, size, whole) in enumerate(asked):
        if whole:
            assert bytes(into[i]) == data[offset : offset + size]
        assert (into.buffer[starts[i] - 3 : starts[i]] == 77).all()
    assert (into.buffer[-3:] == 77).all()
    paths = [file for file, *_ in asked if isinstance(file, bytes)]
    native.advise_files(paths, sizes[: len(paths)], 30_000)  # whatever they are
    into.buffer.flags.writeable = False
    with pytest.raises(ValueError, match="into must be writeable"):
        native.read_many([path] * len(asked), offsets, into)


@pytest.fixture(params=native.SIMD_LEVELS)
def each_level(request: pytest.FixtureRequest) -> Iterator[None]:
    native.set_simd(request.param)
    yield
    native.set_simd()


@needs_core
def test_a_window_beyond_its_box_is_refused() -> None:
    box, rounding = (4, 6, 40, 50), 1e-9
    inside = [(0, 0, 40, 50), (-rounding, -rounding, 40, 50), (0.5, 0, 39.5 + rounding, 50)]
    beyond = [(-0.01, 0, 40, 50), (0, 0, 40, 50.01), (40, 50, 1, 1), (0, 0, 0, 50), (0, 0, -1, 5)]
    odd = [(np.nan, 0, 40, 50), (0, 0, np.nan, 50), (0, 0, np.inf, 50), (0, 0, 1e300, 1e300)]
    windows = np.array([*inside, *beyond, *odd])
    encoded, count = Encoded.join([jpeg_of(picture(60, 80))] * len(windows)), len(windows)
    boxes, flips = np.tile(np.array(box, np.int32), (count, 1)), np.zeros(count, bool)
    out = np.zeros((count, 16, 16, 3), np.uint8)
    statuses = native.decode_boxes(encoded, boxes, flips, out, windows=windows)
    assert [bool(status) for status in statuses] == [False] * 3 + [True] * 9
    with pytest.raises(ValueError, match=r"windows must be \[12, 4\], got \[3, 4\]"):
        native.decode_boxes(encoded, boxes, flips, out, windows=windows[:3])


@needs_core
def test_many_threads_give_what_one_gives() -> None:
    import threading

    random = np.random.default_rng(9)
    jpegs = [jpeg_of(picture(80 + i, 120, i), restart=i % 4) for i in range(16)]
    encoded, flips = Encoded.join(jpegs), np.arange(16) % 2 == 0
    boxes = np.array([random_box(random, 80, 120) for _ in jpegs], np.int32)
    alone = np.empty((16, 64, 64, 3), np.uint8)
    native.decode_boxes(encoded, boxes, flips, alone)
    results = [np.empty_like(alone) for _ in range(8)]
    threads = [
        threading.Thread(target=native.decode_boxes, args=(encoded, boxes, flips, out))
        for out in results
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(out, alone) for out in results)


def test_the_core_can_be_switched_off() -> None:
    code = (
        "from fastload.pixels import native\n"
        "print(native.is_available(), native.why_unavailable())\n"
        "native.decode_full(b'')"
    )
    environment = os.environ | {"FASTLOAD_NATIVE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "False FASTLOAD_NATIVE=0 is set\n"
    assert BackendUnavailableError.__name__ in done.stderr
    assert done.stderr.endswith("(FASTLOAD_NATIVE=0 is set); unset FASTLOAD_NATIVE\n")


def said_of_library(path: Path) -> str:
    """Whether the library is taken for the core, and why not, as a process of its own says it."""
    code = (
        "import sys; from pathlib import Path; from fastload.pixels import native\n"
        "native.LIBRARY = Path(sys.argv[1])\n"
        "print(native.is_available(), native.why_unavailable())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@needs_core
@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a file themselves")
@pytest.mark.parametrize("part", [0.1, 0.01, 0.001, 0])
def test_a_core_that_is_cut_off_is_done_without(part: float, tmp_path: Path) -> None:
    whole = native.LIBRARY.read_bytes()
    kept = max(part * len(whole), 40) if part else 0
    path = tmp_path / "_core.so"
    path.write_bytes(whole[: int(kept)])
    assert said_of_library(path).startswith(
        ("False _core.so is cut off", "False _core.so does not")
    )
    path.write_bytes(whole)
    assert said_of_library(path) == "True"


@needs_core
@pytest.mark.parametrize(
    "source", ["", f'extern "C" int fl_interface() {{ return {native.INTERFACE - 1}; }}']
)
def test_a_core_of_another_version_is_done_without(source: str, tmp_path: Path) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler; run scripts/setup")
    (tmp_path / "core.cpp").write_text(source)
    path = tmp_path / "_core.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", path, tmp_path / "core.cpp"], check=True)
    assert said_of_library(path) == "False _core.so was built from another version of fastload"


@needs_core
@pytest.mark.parametrize("level", native.SIMD_LEVELS)
def test_instructions_can_be_kept_from_use(level: str) -> None:
    code = "from fastload.pixels import native; print(native._core().fl_simd())"
    environment = os.environ | {"FASTLOAD_SIMD": level}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    used = native.SIMD_LEVELS.index(native.set_simd(level))
    native.set_simd()
    assert int(done.stdout) == used <= native.SIMD_LEVELS.index(level)
