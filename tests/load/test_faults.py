"""What can go wrong, one thing after another: nothing hangs or is left running, all is named."""

from __future__ import annotations

import gc
import io
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

import fastload
from fastload.errors import ResourceError, ShardError, TooManyCorruptError
from fastload.load import loader as loaders
from fastload.load import threads
from fastload.load.augment import Augment
from fastload.load.loader import Loader
from fastload.pixels import native
from fastload.store.index import read_index
from fastload.world import World
from tests.pictures import encode
from tests.shards import (
    Picture,
    code_of,
    flat_picture,
    flip_bit,
    noisy_picture,
    number_of,
    numbered,
    write_shards,
)

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core")

SAMPLES = 100


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """Shards without a fault, not to be damaged."""
    return numbered(tmp_path_factory.mktemp("faults") / "shards", {"train": SAMPLES, "val": 40})


@pytest.fixture
def shards(sound, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(sound, tmp_path / "shards"))


def loader_of(shards: Path, **options) -> Loader:
    return Loader(shards, **{"batch_size": 10, "augment": Augment.train(16), **options})


def damage(shards: Path, rows: list[int], split: str = "train") -> None:
    index = read_index(shards, split)
    for row in rows:
        path = shards / f"{split}-{index['shard'][row]:06d}.tar"
        flip_bit(path, int(index["offset"][row]) + 200)


def shown(loader: Loader) -> list[int]:
    """Numbers of the pictures of one iteration, told from their pixels."""
    return [number_of(image[:, 8, 8].numpy()) for images, _ in loader for image in images]


def workers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("fastload-worker")]


def assert_soon(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("num_threads", [1, 3])
def test_a_bad_sample_is_replaced_by_the_next_of_the_order(sound, shards, num_threads):
    with loader_of(sound) as loader:
        order = shown(loader)
    bad = [order[7], order[8], order[50]]
    damage(shards, bad)
    options = {"max_corrupt_fraction": 0.05, "num_threads": num_threads}
    with loader_of(shards, **options) as loader:
        expected = list(order)
        expected[7] = expected[8] = order[9]
        expected[50] = order[51]
        assert shown(loader) == expected
        assert loader.stats().bad_samples == 3


def test_the_last_bad_sample_is_replaced_by_the_first(sound, shards):
    with loader_of(sound) as loader:
        order = shown(loader)
    damage(shards, [order[99]])
    with loader_of(shards) as loader:
        assert shown(loader) == [*order[:99], order[0]]


def test_labels_and_indices_are_those_of_the_replacement(sound, shards):
    damage(shards, [3])
    with loader_of(shards) as loader:
        seen = []
        for images, labels in loader:
            numbers = [number_of(image[:, 8, 8].numpy()) for image in images]
            assert labels.tolist() == [number % 3 for number in numbers]
            assert loader.last_indices().tolist() == numbers
            seen += numbers
        assert 3 not in seen
        assert len(seen) == 100


def test_every_rank_and_batch_size_replaces_alike(sound, shards):
    damage(shards, [5])
    with loader_of(shards) as one, loader_of(shards, batch_size=25) as other:
        assert shown(one) == shown(other)


def test_a_bad_sample_is_reported_once_with_shard_key_and_offset(shards, caplog):
    damage(shards, [42])
    offset = read_index(shards, "train")["offset"][42]
    with caplog.at_level(logging.WARNING, logger="fastload"), loader_of(shards) as loader:
        for _ in range(3):
            shown(loader)
        assert loader.stats().bad_samples == 3
    assert len(caplog.messages) == 1
    place = f"train-000004.tar, sample 000042, offset {offset}: "
    assert caplog.messages[0].startswith(place + "its CRC-32 is")
    assert caplog.messages[0].endswith("replaced")


def test_too_many_bad_samples_are_fatal(shards):
    damage(shards, list(range(0, 100, 10)))
    with loader_of(shards, max_corrupt_fraction=0.05) as loader:
        with pytest.raises(
            TooManyCorruptError,
            match=r"6 bad samples in epoch 0, max_corrupt_fraction 0.05 allows 5",
        ):
            shown(loader)
        assert workers() == []


def test_a_fraction_of_zero_allows_none(shards):
    damage(shards, [1])
    with (
        loader_of(shards, max_corrupt_fraction=0) as loader,
        pytest.raises(TooManyCorruptError, match=r"allows 0; the last is train-000000\.tar"),
    ):
        shown(loader)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_fraction_of_one_allows_all_on_ranks_of_uneven_parts(tmp_path, rank):
    pictures = [Picture(flat_picture(0, 0).jpeg[:150], 0, 48, 64)] * 8
    directory = write_shards(tmp_path / "s", {"val": pictures}, classes=["a"])
    world = World(rank=rank, size=3)
    options = {"split": "val", "augment": Augment.eval(16), "max_corrupt_fraction": 1.0}
    with loader_of(directory, world=world, batch_size=2, **options) as loader:
        assert [len(labels) for _, labels in loader] == [0, 0]
        assert loader.stats().bad_samples == [2, 2, 4][rank]


def test_where_all_is_bad_nothing_goes_round_for_ever(tmp_path):
    jpeg = flat_picture(0, 0).jpeg[:150]  # the header is whole, the image is not
    pictures = [Picture(jpeg, 0, 48, 64)] * 20
    directory = write_shards(tmp_path / "s", {"train": pictures}, classes=["a"])
    with (
        loader_of(directory, max_corrupt_fraction=1.0) as loader,
        pytest.raises(TooManyCorruptError, match="and the 64 after it cannot be decoded"),
    ):
        shown(loader)


def test_an_image_that_does_not_decode_is_replaced_with_the_decoders_reason(tmp_path, caplog):
    pictures = [flat_picture(number, 0) for number in range(20)]
    pictures[4] = Picture(b"\xff\xd8" + bytes(400), 0, 48, 64)
    directory = write_shards(tmp_path / "s", {"train": pictures}, classes=["a"])
    with loader_of(directory, max_corrupt_fraction=0.1) as loader:
        numbers = shown(loader)
    assert len(numbers) == 20
    assert 4 not in numbers
    assert "train-000000.tar, sample 000004" in caplog.text


def test_in_evaluation_a_bad_sample_is_an_error(shards):
    damage(shards, [11], "val")
    with (
        loader_of(shards, split="val", augment=Augment.eval(16)) as loader,
        pytest.raises(TooManyCorruptError, match=r"val-000001\.tar, sample 000011"),
    ):
        shown(loader)


def test_in_evaluation_bad_samples_are_left_out_where_they_are_allowed(shards):
    damage(shards, [11, 30], "val")
    options = {"split": "val", "augment": Augment.eval(16), "max_corrupt_fraction": 0.1}
    with loader_of(shards, **options) as loader:
        sizes = []
        seen = []
        for images, labels in loader:
            sizes.append(len(images))
            assert len(labels) == len(images)
            seen += [number_of(image[:, 8, 8].numpy()) for image in images]
        assert sizes == [10, 9, 10, 9]
        assert seen == [number for number in range(40) if number not in (11, 30)]
        assert loader.stats().bad_samples == 2


def opened_by_pillow(data: bytes) -> Image.Image | None:
    """The image in RGB, transparency white, grey of 8 bits; None where Pillow refuses it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image: Image.Image = Image.open(io.BytesIO(data))
            if image.mode.startswith("I"):  # Pillow's own RGB ends at 255
                return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
            if image.mode in {"LA", "RGBA", "PA"} or "transparency" in image.info:
                image = image.convert("RGBA")
                white = Image.new("RGBA", image.size, "white")
                return Image.alpha_composite(white, image).convert("RGB")
            return image.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None


@pytest.mark.parametrize("backend", ["native", "libjpeg"])
def test_every_awkward_file_is_shown_right_or_is_a_bad_sample(
    awkward_dir, tmp_path, backend, caplog
):
    if backend == "native" and not native.is_available():
        pytest.skip("needs the native core: pip install -e . with a C++ compiler")
    files = sorted(path for path in awkward_dir.iterdir() if path.suffix != ".tsv")
    good = noisy_picture(1, 0, height=100, width=100)
    expected, pictures = [], []
    for path in files:
        image = opened_by_pillow(path.read_bytes())
        height, width = (image.height, image.width) if image else (64, 64)
        expected += [image, opened_by_pillow(good.jpeg)]
        pictures += [Picture(path.read_bytes(), 0, min(height, 65535), min(width, 65535)), good]
    directory = write_shards(tmp_path / "s", {"val": pictures}, classes=["a"])
    options = {"augment": Augment.eval(64), "max_corrupt_fraction": 1.0, "backend": backend}
    shown_rows = 0
    with loader_of(directory, split="val", **options) as loader:
        for images, _ in loader:
            for row, pixels in zip(loader.last_indices().tolist(), images, strict=True):
                shown_rows += 1
                image = expected[row]
                if image is None:
                    continue
                view = transforms.Compose([transforms.Resize(73), transforms.CenterCrop(64)])
                resized = np.asarray(view(image)).astype(int)
                assert np.abs(pixels.permute(1, 2, 0).numpy() - resized).mean() < 1.5, files[
                    row // 2
                ]
        assert shown_rows + loader.stats().bad_samples == 2 * len(files)
    assert len(caplog.messages) == loader.stats().bad_samples
    assert shown_rows >= len(files) + 125  # Pillow reads 141, of them 11 of formats it may not open


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.unlink(), "cannot be opened"),
        (lambda path: (path.unlink(), path.symlink_to(path)), "cannot be opened"),
        (lambda path: os.truncate(path, 2000), "was truncated while it was in use"),
        (lambda path: shutil.copy(path, path.with_suffix(".new")), None),
        (lambda path: path.with_suffix(".x").write_bytes(path.read_bytes()), None),
    ],
)
def test_a_shard_that_is_harmed_before_it_is_opened_is_named(shards, harm, message):
    with loader_of(shards) as loader:
        harm(shards / "train-000003.tar")
        if message is None:  # a copy beside it harms nobody
            assert len(shown(loader)) == SAMPLES
            return
        with pytest.raises(ShardError, match=rf"train-000003\.tar: {message}"):
            shown(loader)
        assert workers() == []


def test_a_shard_truncated_in_the_middle_of_an_epoch_is_an_error_not_a_signal(shards):
    with loader_of(shards, batch_size=2, num_threads=1) as loader:
        shown_before = next(iteration := iter(loader))
        for path in shards.glob("train-*.tar"):
            os.truncate(path, 600)
        with pytest.raises(ShardError, match=r"train-\d+\.tar: was truncated while it was in use"):
            list(iteration)
    assert len(shown_before[0]) == 2


def test_a_truncated_shard_is_found_before_the_first_batch(shards):
    os.truncate(shards / "train-000001.tar", 3000)
    with pytest.raises(ShardError, match=r"train-000001\.tar: has 3000 bytes, the manifest says"):
        loader_of(shards)


def test_an_exception_in_a_transform_reaches_the_caller_and_the_loader_goes_on(sound):
    calls = []

    def transform(image):
        calls.append(image.shape)
        if len(calls) == 25:
            raise LookupError("the transform fell over")
        return image

    with loader_of(sound, transform=transform) as loader:
        with pytest.raises(LookupError, match="the transform fell over"):
            shown(loader)
        assert workers() == []
        assert loader.state_dict()["position"] == 20
        assert len(shown(loader)) == SAMPLES


def test_break_leaves_no_thread(sound):
    with loader_of(sound, batch_size=2) as loader:
        for _ in loader:
            break
        assert workers() == []


def test_an_abandoned_iterator_ends_when_the_next_begins(sound):
    with loader_of(sound) as loader:
        first = iter(loader)
        next(first)
        second = iter(loader)
        next(second)
        with pytest.raises(RuntimeError, match="this iteration was ended"):
            list(first)
        assert len(list(second)) == 9


def test_a_loader_dropped_without_close_leaves_no_thread_and_no_file(sound):
    iteration = iter(loader_of(sound, batch_size=2))
    next(iteration)
    assert workers()
    del iteration
    gc.collect()
    assert workers() == []
    loader = loader_of(sound, batch_size=2)
    iter(loader)  # begun, and never asked for a batch
    assert workers()
    del loader
    gc.collect()
    assert workers() == []


def test_closing_in_the_middle_ends_the_iteration(sound):
    loader = loader_of(sound, batch_size=2)
    iteration = iter(loader)
    next(iteration)
    loader.close()
    assert workers() == []
    with pytest.raises(RuntimeError, match="this iteration was ended"):
        list(iteration)


def test_two_loaders_at_once_do_not_disturb_each_other(sound):
    with loader_of(sound) as alone:
        expected = shown(alone)
    with loader_of(sound) as one, loader_of(sound) as two:
        seen: tuple[list[int], list[int]] = ([], [])
        for batches in zip(one, two, strict=True):
            for numbers, (images, _) in zip(seen, batches, strict=True):
                numbers += [number_of(image[:, 8, 8].numpy()) for image in images]
        assert seen == (expected, expected)


def test_torch_keeps_its_threads(sound):
    before = torch.get_num_threads()
    with loader_of(sound) as loader:
        shown(loader)
    assert torch.get_num_threads() == before


def test_ctrl_c_while_waiting_for_a_batch_ends_everything(tmp_path):
    # Large images, so that the main thread is waiting when the signal comes.
    pictures = [Picture(encode(flat_pixels(number)), 0, 1500, 2000) for number in range(8)] * 8
    directory = write_shards(tmp_path / "s", {"train": pictures}, classes=["a"])
    with loader_of(directory, batch_size=64, augment=Augment.eval(512), num_threads=1) as loader:
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))

        def interrupted() -> None:
            timer.start()
            list(loader)

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        timer.join()
        assert_soon(lambda: workers() == [])


def interrupted_at(event: int, loader: Loader) -> bool:
    """Iterate; Ctrl-C comes when the loader's code in this thread begins its `event`-th line."""
    left = event

    def trace(frame: FrameType, kind: str, _: object) -> Callable[..., Any] | None:
        nonlocal left
        if not Path(frame.f_code.co_filename).is_relative_to(Path(fastload.__file__).parent):
            return None
        if (left := left - 1) == 0:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for _ in loader:
            pass
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_ctrl_c_at_any_line_leaves_no_thread(sound, monkeypatch):
    monkeypatch.setattr(threads, "_IDLE_SECONDS", 0.05)
    event = 0
    with loader_of(sound, batch_size=40, num_threads=2) as loader:
        while interrupted_at(event := event + 1, loader):
            assert_soon(lambda: workers() == [])
        loader.set_epoch(0)
        assert len(set(shown(loader))) == 80
    assert event > 100


def flat_pixels(number: int) -> np.ndarray:
    return np.full((1500, 2000, 3), code_of(number), np.uint8)


PROGRAM = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
from fastload.load.augment import Augment
from fastload.load.loader import Loader
loader = Loader(sys.argv[1], batch_size=10, augment=Augment.train(16))
rows = lambda: [loader.last_indices().tolist() for _ in loader]
first = rows()

iteration = iter(loader)
next(iteration)
child = os.fork()
if child == 0:
    try:
        next(iteration)
    except RuntimeError as error:
        assert "after a fork begin a new one" in str(error), error
        loader.set_epoch(0)
        assert rows() == first
        print("the child went on", flush=True)
        sys.exit(7)  # runs the finalizers of the child
    os._exit(1)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
assert len(list(iteration)) == 9
print("the parent went on", flush=True)

try:
    print("ready", flush=True)
    while True:
        for batch in loader:
            time.sleep(0.005)
except KeyboardInterrupt:
    # An interrupt within close() ends the waiting there, not the ending of the threads; and a
    # Thread.join() that was interrupted takes its thread for dead in Python 3.11.
    deadline = time.monotonic() + 120
    while threading.active_count() > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    print([t.name for t in threading.enumerate()], flush=True)

next(iter(loader))  # and the process ends in the middle of an epoch, without close()
"""


def test_a_fork_a_ctrl_c_and_an_exit_in_the_middle_of_an_epoch(sound):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(sound)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=300)
        finally:
            process.kill()
    assert err == ""
    assert lines == ["the child went on\n", "the parent went on\n", "ready\n"]
    assert out == "['MainThread']\n"
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), ResourceError),
        (MemoryError("Unable to allocate 9 TiB"), ResourceError),
        (torch.OutOfMemoryError("CUDA out of memory."), torch.OutOfMemoryError),
        (RuntimeError("expected a scalar"), RuntimeError),
    ],
)
def test_memory_that_does_not_suffice_to_finish_a_batch_is_one_sentence(
    sound, monkeypatch, error, raised
):
    def refused(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(loaders, "augment_images", refused)
    with Loader(sound, batch_size=10, augment=Augment.train(32), dtype="float32") as loader:
        with pytest.raises(raised) as caught:
            next(iter(loader))
        assert type(caught.value) is raised
