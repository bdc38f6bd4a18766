"""The Loader as its users see it: what comes, how much of it, in which shape."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import re
import resource
import threading
import time
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as v1

from fastload.errors import ShardError, StalledError, StateMismatchError
from fastload.load.augment import IMAGENET_MEAN, IMAGENET_STD, Augment
from fastload.load.dataset import TarDataset
from fastload.load.loader import Loader
from fastload.load.selection import Select
from fastload.pixels import native
from fastload.stages import Stages
from fastload.world import World
from tests.places import NUMBERED
from tests.shards import noisy_picture, number_of, numbered, write_shards

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core")


@pytest.fixture(scope="module", params=NUMBERED)
def shards(tmp_path_factory, request) -> Path:
    directory = tmp_path_factory.mktemp("loader") / "shards"
    return NUMBERED[request.param](directory, {"train": 100, "val": 37})


def stems(keys: list[str]) -> list[str]:
    """Keys as shards have them: in place the key of a file is its path."""
    return [Path(key).stem for key in keys]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    train = [
        noisy_picture(number, number % 2, height=90 + 7 * number, width=150 - 3 * number)
        for number in range(20)
    ]
    directory = tmp_path_factory.mktemp("loader") / "pictures"
    return write_shards(directory, {"train": train, "val": train[:7]}, classes=["a", "b"])


def numbers_of(images: torch.Tensor) -> list[int]:
    """Which of the numbered pictures these are, from their pixels alone."""
    middle = images.shape[-1] // 2
    return [number_of(image[:, middle, middle].numpy()) for image in images]


def epoch_of(loader: Loader) -> list[int]:
    return [number for images, _ in loader for number in numbers_of(images)]


def test_an_epoch_has_every_sample_at_most_once_and_drops_the_tail(shards):
    with Loader(shards, batch_size=8, augment=Augment.train(32)) as loader:
        seen = epoch_of(loader)
    assert len(loader) == 12
    assert len(seen) == len(set(seen)) == 96


def test_drop_last_false_keeps_the_tail(shards):
    with Loader(shards, batch_size=8, augment=Augment.train(32), drop_last=False) as loader:
        sizes = [len(labels) for _, labels in loader]
    assert sizes == [8] * 12 + [4]


def test_evaluation_gives_each_sample_once_in_the_order_of_the_index(shards):
    with Loader(shards, split="val", batch_size=8, augment=Augment.eval(32)) as loader:
        assert epoch_of(loader) == list(range(37))
        assert epoch_of(loader) == list(range(37))


def test_labels_indices_and_keys_belong_to_the_images(shards):
    with Loader(shards, batch_size=8, augment=Augment.train(32)) as loader:
        for images, labels in loader:
            numbers = numbers_of(images)
            assert labels.tolist() == [number % 3 for number in numbers]
            assert loader.last_indices().tolist() == numbers
            assert stems(loader.last_keys()) == [f"{number:06d}" for number in numbers]
        assert loader.epoch == 1


def test_images_are_uint8_channels_last_and_labels_int64(shards):
    with Loader(shards, batch_size=8, augment=Augment.train(32)) as loader:
        images, labels = next(iter(loader))
    assert images.shape == (8, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.dtype == torch.int64


def test_epochs_follow_one_another_and_set_epoch_overrides(shards):
    with Loader(shards, batch_size=10, augment=Augment.train(32)) as loader:
        first, second = epoch_of(loader), epoch_of(loader)
        assert first != second
        assert loader.epoch == 2
        loader.set_epoch(0)
        assert epoch_of(loader) == first
        assert epoch_of(loader) == second


def test_an_iterator_that_was_never_asked_is_no_epoch(shards):
    with Loader(shards, batch_size=10, augment=Augment.train(32)) as loader:
        first = epoch_of(loader)
        loader.set_epoch(0)
        iter(loader)
        iter(loader)
        assert epoch_of(loader) == first
        state = loader.state_dict()
        loader.load_state_dict(state | {"epoch": 0, "position": 70})
        iter(loader)
        assert epoch_of(loader) == first[70:]


def test_evaluation_pixels_are_those_of_torchvision(pictures):
    view = v1.Compose([v1.Resize(73), v1.CenterCrop(64)])
    with Loader(pictures, split="val", batch_size=7, augment=Augment.eval(64)) as loader:
        images, _ = next(iter(loader))
    for number, image in enumerate(images):
        height, width = 90 + 7 * number, 150 - 3 * number
        jpeg = noisy_picture(number, 0, height=height, width=width).jpeg
        expected = np.asarray(view(Image.open(BytesIO(jpeg))))
        difference = np.abs(image.permute(1, 2, 0).numpy().astype(int) - expected)
        assert difference.mean() < 0.3
        assert difference.max() <= 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_floating_point_batches_are_the_uint8_ones_normalised(pictures, dtype):
    def first(dtype):
        with Loader(pictures, batch_size=8, augment=Augment.train(40), dtype=dtype) as loader:
            return next(iter(loader))[0]

    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    plain, normalised = first(torch.uint8), first(dtype)
    assert normalised.dtype == dtype
    assert normalised.is_contiguous(memory_format=torch.channels_last)
    expected = (plain / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    torch.testing.assert_close(normalised, expected.to(dtype), rtol=1e-2, atol=2e-2)


def test_batches_do_not_depend_on_the_number_of_threads(pictures):
    def batches(num_threads):
        augment = Augment.train(40)
        with Loader(pictures, batch_size=4, augment=augment, num_threads=num_threads) as loader:
            return [(images.clone(), labels) for _ in range(2) for images, labels in loader]

    reference = batches(1)
    for num_threads in (2, 3, 7):
        for (images, labels), (expected, classes) in zip(
            batches(num_threads), reference, strict=True
        ):
            assert torch.equal(images, expected)
            assert torch.equal(labels, classes)


def test_batches_may_be_kept_and_are_not_overwritten(pictures):
    with Loader(pictures, batch_size=4, augment=Augment.train(40)) as loader:
        kept = [images for _ in range(8) for images, _ in loader]
        copies = [images.clone() for images in kept]
        for _ in range(4):
            for _ in loader:
                pass
    assert len({images.data_ptr() for images in kept}) == len(kept)
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_memory_of_dropped_batches_is_used_again(pictures):
    with Loader(pictures, batch_size=4, augment=Augment.train(40)) as loader:
        addresses = [images.data_ptr() for _ in range(20) for images, _ in loader]
    assert len(addresses) == 100
    assert len(set(addresses)) < 20


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize(
    ("order", "reweight"),
    [("shuffled", None), ("shuffled", "sqrt"), ("sequential", "sqrt"), ("index", None)],
)
def test_ranks_together_give_the_epoch_of_one_rank(shards, size, order, reweight):
    options = {"order": order, "reweight": reweight, "drop_last": False}
    with Loader(shards, batch_size=12, augment=Augment.train(32), **options) as loader:
        whole = [(loader.last_indices(), images.clone()) for images, _ in loader]
    parts: list[list[tuple[np.ndarray, torch.Tensor]]] = [[] for _ in whole]
    for rank in range(size):
        world = World(rank=rank, size=size)
        augment = Augment.train(32)
        with Loader(
            shards, batch_size=12 // size, augment=augment, world=world, **options
        ) as loader:
            assert len(loader) == len(whole)
            for step, (images, _) in enumerate(loader):
                parts[step].append((loader.last_indices(), images.clone()))
    for (rows, images), part in zip(whole, parts, strict=True):
        assert np.concatenate([own for own, _ in part]).tolist() == rows.tolist()
        assert torch.equal(torch.cat([own for _, own in part]), images)


def test_more_ranks_than_samples_get_an_empty_batch_rather_than_a_copy(shards):
    seen = []
    for rank in range(4):
        with Loader(
            shards,
            split="val",
            select=Select(first=3),
            augment=Augment.eval(32),
            dtype=torch.float32,
            world=World(rank=rank, size=4),
        ) as loader:
            assert len(loader) == 1
            for images, labels in loader:
                assert images.shape == (len(labels), 3, 32, 32)
                seen += loader.last_indices().tolist()
    assert seen == [0, 1, 2]


def test_the_back_ends_show_the_same_pictures(pictures):
    def batches(backend):
        augment = Augment.train(64)
        with Loader(pictures, batch_size=10, augment=augment, backend=backend) as loader:
            return [(loader.last_indices().tolist(), images.clone()) for images, _ in loader]

    if not native.is_available():
        pytest.skip("needs the native core: pip install -e . with a C++ compiler")
    for (rows, one), (others, two) in zip(batches("native"), batches("libjpeg"), strict=True):
        assert rows == others
        difference = (one.int() - two.int()).abs().float()
        assert difference.mean() < 1
        assert difference.max() < 24


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_thousands_of_batches_leave_memory_as_it_was(shards):
    def resident() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6

    with Loader(shards, batch_size=2, augment=Augment.train(16)) as loader:
        for _ in range(10):
            epoch_of(loader)
        before = resident()
        for _ in range(40):
            epoch_of(loader)
        assert resident() - before < 10


def test_set_size_changes_the_next_iteration(shards):
    with Loader(shards, batch_size=10, augment=Augment.train(32)) as loader:
        assert next(iter(loader))[0].shape[-1] == 32
        loader.set_size(48)
        assert next(iter(loader))[0].shape[-1] == 48


def test_stats_count_what_was_delivered(shards):
    with Loader(shards, batch_size=10, augment=Augment.train(32)) as loader:
        epoch_of(loader)
        stats = loader.stats()
        assert (stats.images, stats.batches, stats.bad_samples) == (100, 10, 0)
        assert stats.images_per_second > 0
        assert 0 <= stats.waiting_fraction <= 1
        loader.reset_stats()
        assert loader.stats().images == 0


def test_the_stages_hold_all_the_time_of_the_threads(shards):
    with Loader(shards, batch_size=10, augment=Augment.train(224), num_threads=2) as loader:
        epoch_of(loader)
        loader.reset_stats()
        began = time.perf_counter()
        for _ in range(5):
            epoch_of(loader)
        seconds = time.perf_counter() - began
        stats = loader.stats()
        stages = stats.stages
        assert min(stages.plan, stages.read, stages.decode, stages.resize) > 0
        assert 0.2 * 2 * seconds < sum(stages.of_threads.values()) <= 2 * seconds
        assert stages.wait <= stats.waiting_seconds <= stats.seconds <= seconds
        loader.reset_stats()
        assert loader.stats().stages == Stages()


def test_a_slow_caller_leaves_the_threads_idle_and_the_queue_full(shards):
    with Loader(shards, batch_size=10, augment=Augment.train(32), num_threads=1) as loader:
        for _ in loader:
            time.sleep(0.05)
        stats = loader.stats()
        assert stats.stages.idle > stats.stages.decode
        assert stats.ready_batches > 1
        assert stats.stalls < 8


def test_a_slow_transform_is_named_as_the_bottleneck(shards):
    def transform(image):
        time.sleep(0.005)
        return image

    with Loader(shards, batch_size=10, augment=Augment.train(32), transform=transform) as loader:
        epoch_of(loader)
        stats = loader.stats()
        assert stats.stages.finish >= 0.5
        assert stats.bottleneck.startswith("finish: colours and `transform`")


def test_an_epoch_leaves_no_thread_behind(shards):
    before = threading.active_count()
    with Loader(shards, batch_size=10, augment=Augment.train(32)) as loader:
        epoch_of(loader)
        assert threading.active_count() == before


def test_classes_and_counts_are_those_of_the_manifest(shards):
    with Loader(shards, batch_size=10) as loader:
        assert loader.classes == ("class 0", "class 1", "class 2")
        assert loader.class_counts.tolist() == [34, 33, 33]
        assert loader.backend in loader.backend_reason


def test_select_takes_classes_indices_and_the_first(shards):
    def chosen(**parts):
        select = Select(**parts)
        with Loader(shards, split="val", augment=Augment.eval(32), select=select) as loader:
            return epoch_of(loader)

    assert chosen(classes=["class 1"]) == list(range(1, 37, 3))
    assert chosen(indices=[5, 3, 36]) == [3, 5, 36]
    assert chosen(first=4) == [0, 1, 2, 3]
    assert chosen(classes=["class 0", "class 2"], first=3) == [0, 2, 3]


def test_reweighting_evens_out_the_classes(tmp_path):
    pictures = [noisy_picture(i, int(i >= 18), height=20, width=20) for i in range(20)]
    directory = write_shards(tmp_path / "s", {"train": pictures}, classes=["many", "few"])
    augment = Augment.train(16)
    with Loader(directory, batch_size=10, augment=augment, reweight="inverse") as loader:
        labels = torch.cat([labels for _, labels in loader])
    assert labels.bincount().tolist() == [10, 10]


def test_directories_are_mixed_in_proportion(tmp_path):
    paths = [numbered(tmp_path / name, {"train": 40}) for name in ("one", "two")]
    select = Select(proportions=[3, 1])
    augment = Augment.train(16)
    with Loader(paths, batch_size=40, augment=augment, epoch_size=80, select=select) as loader:
        rows = [row for _ in loader for row in loader.last_indices().tolist()]
    # Each class is counted out by itself, to within one sample of its part of a directory.
    assert abs(sum(row < 40 for row in rows) - 60) < len(loader.classes)
    assert len(rows) == 80


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_threads": -1}, "num_threads must be at least 1, got -1"),
        ({"order": "random"}, 'order must be "shuffled", "sequential" or "index"'),
        ({"reweight": "square"}, 'reweight must be "inverse"'),
        ({"reweight": "effective:2"}, r"BETA of effective:BETA must be in \[0, 1\)"),
        ({"reweight": [1.0, 2.0]}, r"a weight for each of the 100 samples .* got shape \[2\]"),
        ({"reweight": [-1.0] * 100}, "weights must be finite, at least 0"),
        ({"backend": "fast"}, "backend must be one of auto"),
        ({"dtype": torch.int32}, "dtype must be torch.uint8 or a floating-point type"),
        ({"max_corrupt_fraction": 2}, r"max_corrupt_fraction must be in \[0, 1\]"),
        ({"batch_size": 128}, "an epoch of 100 samples has no batch of 128"),
        ({"order": "index", "drop_last": True}, "evaluation drops nothing"),
        ({"order": "index", "reweight": "sqrt"}, 'order "index" takes each sample once'),
        ({"select": Select(classes=["rose"])}, "classes has 'rose'"),
        ({"select": Select(indices=[100])}, r"indices must be in \[0, 100\)"),
        ({"select": Select(proportions=[1, 2])}, "one number for each shard directory"),
        ({"timeout_seconds": 0}, "timeout_seconds must be above 0"),
        ({"seed": -1}, r"seed must be in \[0, 2\*\*63\), got -1"),
    ],
)
def test_wrong_arguments_are_named(shards, options, message):
    with pytest.raises(ValueError, match=message):
        Loader(shards, **{"batch_size": 10, **options})


def test_a_directory_without_shards_says_how_to_make_them(tmp_path):
    with pytest.raises(ShardError, match=r"python -m fastload\.shard"):
        Loader(tmp_path)


def test_a_split_that_is_not_there_is_named(shards):
    with pytest.raises(ShardError, match="there is no split 'test'; choose one of train, val"):
        Loader(shards, split="test")


def test_directories_of_other_classes_are_refused(tmp_path):
    one = numbered(tmp_path / "one", {"train": 10}, classes=2)
    two = numbered(tmp_path / "two", {"train": 10}, classes=3)
    with pytest.raises(ShardError, match="two: has other classes"):
        Loader([one, two], batch_size=2)


def test_the_guide_names_tests_that_exist():
    root = Path(__file__).parents[2]
    named = re.findall(r"`([\w/]+)::(test_\w+)`", (root / "docs" / "loader.md").read_text())
    assert len(named) > 30
    for module, test in named:
        assert f"def {test}(" in (root / "tests" / f"{module}.py").read_text(), f"{module}::{test}"


def test_a_closed_loader_says_so(shards):
    loader = Loader(shards, batch_size=10)
    loader.close()
    loader.close()
    with pytest.raises(RuntimeError, match="the loader was closed"):
        iter(loader)


def test_nothing_said_is_not_zero(shards):
    with pytest.raises(ValueError, match="num_threads must be at least 1, got 0"):
        Loader(shards, batch_size=10, num_threads=0)
    with pytest.raises(ValueError, match='order must be "shuffled", "sequential" or "index", got'):
        Loader(shards, batch_size=10, order="")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"select": 0}, TypeError, "select must be Select, got 0"),
        ({"world": 0}, TypeError, "world must be World, got 0"),
        ({"transform": 3}, TypeError, "transform must be a function or None, got 3"),
        ({"device": "gpu"}, ValueError, "device must be one such as .* got 'gpu'"),
        ({"device": None}, TypeError, "device must be one such as .* got None"),
        ({"device": "meta"}, ValueError, "device must be one that holds data, got 'meta'"),
        ({"reweight": [True] * 100}, TypeError, "reweight must be a rule or a row of numbers"),
    ],
)
def test_an_argument_that_would_fail_later_is_named_now(shards, options, error, message):
    with pytest.raises(error, match=message):
        Loader(shards, batch_size=10, **options)


@pytest.mark.parametrize("path", [None, 3, b"shards", [3], {"a": 1}])
def test_a_path_of_a_wrong_type_is_named(path):
    for kind in (Loader, TarDataset):
        with pytest.raises(TypeError, match="path must be a shard directory or a list of them"):
            kind(path)


@pytest.mark.parametrize(("name", "value"), [("epoch", "1"), ("position", 1.5), ("size", None)])
def test_a_state_with_a_value_of_another_type_is_refused(shards, name, value):
    loader = Loader(shards, batch_size=10)
    with pytest.raises(StateMismatchError, match=f"the saved state has {name} .* must be an int"):
        loader.load_state_dict(loader.state_dict() | {name: value})
    with pytest.raises(TypeError, match="state must be dict, got None"):
        loader.load_state_dict(None)  # type: ignore[arg-type]


def test_it_answers_what_is_asked_of_a_data_loader(shards):
    with Loader(shards, batch_size=10, augment=Augment.train(32)) as loader:
        assert len(loader.dataset) == 100
        assert loader.dataset.classes == list(loader.classes)
        assert loader.dataset.class_to_idx == {"class 0": 0, "class 1": 1, "class 2": 2}
        assert loader.dataset.targets[:4] == [0, 1, 2, 0]
        assert loader.dataset[5][1] == 2
        assert (loader.batch_size, loader.drop_last, len(loader)) == (10, True, 10)


def test_the_data_set_of_a_loader_has_the_samples_that_take_part(shards):
    select = Select(classes=["class 1"], indices=slice(50, None))
    with Loader(shards, batch_size=10, select=select, drop_last=False) as loader:
        assert len(loader.dataset) == loader.class_counts.sum() == 16
        assert set(loader.dataset.targets) == {1}
        assert Path(loader.dataset.locate(-1)[1]).stem == "000097"
        assert number_of(np.asarray(loader.dataset[0][0])[24, 32]) == 52


def test_a_loader_says_what_it_is(shards):
    augment, select = Augment.train(32), Select(first=50)
    with Loader(shards, batch_size=5, augment=augment, select=select, backend="libjpeg") as loader:
        expected = (
            f"Loader(10 batches of 5 from split train of {shards}, shuffled, 32 pixels, torch.uint8"
            " on cpu, back-end libjpeg, epoch 0 is next"
        )
        assert repr(loader) == f"{expected})"
    assert repr(loader) == f"{expected}, closed)"
    world = World(rank=1, size=2)
    with Loader([shards, shards], split="val", batch_size=5, world=world) as loader:
        assert f"split val of {shards}, {shards}, index, 224" in repr(loader)
        assert "rank 1 of 2" in repr(loader)


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_loader_cannot_be_copied_and_says_what_to_do(shards, take):
    with (
        Loader(shards, batch_size=10) as loader,
        pytest.raises(TypeError, match="cannot be copied or pickled: make one in each process"),
    ):
        take(loader)


def test_keys_are_asked_for_by_rows(shards):
    with Loader(shards, split="val", augment=Augment.eval(32)) as loader:
        assert stems(loader.keys([3, -1, 3])) == ["000003", "000036", "000003"]
        assert stems(loader.keys(np.arange(37) < 2)) == ["000000", "000001"]
        assert loader.keys([]) == []
        for wrong in (["a"], "a", 5, [1.5], None):
            with pytest.raises(TypeError, match="rows must be a row of integers"):
                loader.keys(wrong)  # type: ignore[arg-type]
        for outside in ([37], [-38], [True]):
            with pytest.raises(ValueError, match=r"rows must be in \[0, 37\)|rows is a mask of 1"):
                loader.keys(outside)


def test_the_state_is_made_of_pythons_numbers(shards):
    augment = Augment.train(np.int64(32))  # type: ignore[arg-type]
    with Loader(shards, batch_size=np.int64(10), seed=np.uint8(3), augment=augment) as loader:  # type: ignore[arg-type]
        loader.set_epoch(np.int32(2))  # type: ignore[arg-type]
        state = json.loads(json.dumps(loader.state_dict()))
        loader.load_state_dict(state)
        assert (state["epoch"], state["seed"], state["size"]) == (2, 3, 32)


@pytest.mark.parametrize("epoch", [-1, 2**63, 1.0, True, "1", None])
def test_an_epoch_is_a_number_of_one(shards, epoch):
    with (
        Loader(shards, batch_size=10) as loader,
        pytest.raises((TypeError, ValueError), match="epoch must be"),
    ):
        loader.set_epoch(epoch)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("shuffle", 'Loader has no option shuffle: write order="shuffled"'),
        ("num_workers", "Loader has no option num_workers: write num_threads=…"),
        ("mix", r"write augment=Augment\.train\(224, mix=Mix\(…\)\)"),
        ("epoch", r"call set_epoch\(…\) on the loader"),
        ("threads", r"Loader has no option threads; did you mean 'num_threads'\?"),
        ("batchsize", r"did you mean 'batch_size'\?"),
        ("transforms", r"did you mean 'transform'\?"),
        ("qwerty", "Loader has no option qwerty; there are path, split, batch_size, augment"),
    ],
)
def test_an_option_of_another_library_is_told_what_to_write(shards, option, message):
    any_loader: Any = Loader
    with pytest.raises(TypeError, match=message):
        any_loader(shards, **{option: 1})


def test_what_is_passed_without_a_name_is_told(shards):
    any_loader: Any = Loader
    with pytest.raises(TypeError, match=r"Loader takes only path without .* split=…; got 'train'"):
        any_loader(shards, "train", 8)
    with pytest.raises(TypeError, match="Loader needs path"):
        any_loader()
    with pytest.raises(TypeError, match="Loader got path twice"):
        any_loader(shards, path=shards)


def test_threads_may_end_however_short_the_time_limit_of_a_batch_is(pictures, capfd):
    def begin() -> Loader:
        augment = Augment.train(512)
        loader = Loader(pictures, batch_size=10, augment=augment, timeout_seconds=1e-6)
        with suppress(StalledError):
            next(iter(loader))
        return loader

    begin().close()
    begin()
    gc.collect()
    assert capfd.readouterr().err == ""  # Python prints what a finalizer raises
    assert not [thread for thread in threading.enumerate() if "fastload" in thread.name]
