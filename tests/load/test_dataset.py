"""TarDataset under torch's own DataLoader, samplers and workers, and torchdata's."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, DistributedSampler, Subset, WeightedRandomSampler
from torchvision.transforms import v2

from fastload import TarDataset
from fastload.errors import CorruptImageError, ShardError
from fastload.store.holders import FILE
from fastload.store.index import read_index
from fastload.store.places import PLACE
from tests.places import NUMBERED
from tests.shards import Picture, flip_bit, noisy_picture, number_of, numbered, write_shards

# Python 3.12 and later warn of any fork beside threads, such as torch's.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture(scope="module", params=NUMBERED)
def shards(tmp_path_factory, request) -> Path:
    return NUMBERED[request.param](
        tmp_path_factory.mktemp("dataset") / "shards", {"train": 40, "val": 7}
    )


def numbers_of(images: Iterable[torch.Tensor]) -> list[int]:
    return [number_of(image[:, 24, 32].numpy()) for image in images]


def test_pictures_and_labels_are_those_that_were_stored(tmp_path):
    pictures = [noisy_picture(i, i % 2, height=40 + i, width=70 - i) for i in range(6)]
    write_shards(tmp_path / "shards", {"train": pictures}, classes=["a", "b"])
    dataset = TarDataset(tmp_path / "shards")
    assert len(dataset) == 6
    for number, picture in enumerate(pictures):
        image, label = dataset[number]
        assert image.mode == "RGB"
        assert label == picture.label
        stored = np.asarray(Image.open(BytesIO(picture.jpeg)))
        np.testing.assert_array_equal(np.asarray(image), stored)


def test_a_tensor_holds_the_same_pixels_as_the_picture(shards):
    picture, tensor = TarDataset(shards)[3][0], TarDataset(shards, output="tensor")[3][0]
    assert tensor.dtype == torch.uint8
    assert tensor.shape == (3, 48, 64)
    assert tensor[None].is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(np.asarray(picture), tensor.permute(1, 2, 0).numpy())


def test_it_answers_what_is_asked_of_an_image_folder(shards):
    dataset = TarDataset(shards, "val")
    assert len(dataset) == 7
    assert dataset.classes == ["class 0", "class 1", "class 2"]
    assert dataset.class_to_idx == {"class 0": 0, "class 1": 1, "class 2": 2}
    assert dataset.targets == [0, 1, 2, 0, 1, 2, 0]
    assert dataset.class_counts.tolist() == [3, 2, 2]
    assert repr(dataset) == f"TarDataset(7 images of 3 classes, split val of {shards})"


def test_transforms_are_applied_to_image_and_label(shards):
    transform = v2.Compose([v2.RandomResizedCrop(16), v2.PILToTensor()])
    dataset = TarDataset(shards, transform=transform, target_transform=lambda label: label * 10)
    image, label = dataset[5]
    assert image.shape == (3, 16, 16)
    assert label == 20


def test_negative_and_numpy_indices_count_as_in_a_list(shards):
    dataset = TarDataset(shards, output="tensor")
    assert numbers_of([dataset[-1][0], dataset[np.int64(2)][0]]) == [39, 2]
    assert dataset.locate(-1) == dataset.locate(39)
    for index in (40, -41):
        with pytest.raises(IndexError, match=r"must be in \[-40, 40\)"):
            dataset[index]


@pytest.mark.parametrize("index", [True, torch.tensor(True), np.True_, 1.0, "1", None])
def test_what_is_no_number_is_no_index(shards, index):
    dataset = TarDataset(shards)
    for ask in (dataset.__getitem__, dataset.locate):
        with pytest.raises(TypeError, match=r"index must be an integer in \[-40, 40\), got"):
            ask(index)


@pytest.mark.parametrize("index", [slice(0, 2), [0, 1], np.arange(2), torch.arange(2)])
def test_a_part_of_a_data_set_is_torchs_subset(shards, index):
    with pytest.raises(TypeError, match=r"is torch\.utils\.data\.Subset\(dataset, rows\)"):
        TarDataset(shards)[index]
    assert len(Subset(TarDataset(shards), range(2))) == 2
    assert TarDataset(shards)[torch.tensor(2)][1] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": 3}, "split must be str, got 3"),
        ({"transform": 3}, "transform must be a function or None, got 3"),
        ({"target_transform": "x"}, "target_transform must be a function or None, got 'x'"),
        ({"train": True}, 'TarDataset has no option train: write split="train" or split="val"'),
        ({"transforms": 3}, r"TarDataset has no option transforms; did you mean 'transform'\?"),
    ],
)
def test_a_wrong_option_is_named(shards, options, message):
    with pytest.raises(TypeError, match=message):
        TarDataset(shards, **options)


def test_another_output_is_refused(shards):
    with pytest.raises(ValueError, match='output must be "pil" or "tensor"'):
        TarDataset(shards, output="numpy")  # type: ignore[arg-type]  # the point of the test


def test_several_directories_are_one_dataset(shards):
    dataset = TarDataset([shards, shards], "val", output="tensor")
    assert numbers_of([dataset[i][0] for i in (6, 7)]) == [6, 0]


def test_a_copy_by_pickle_is_small_and_reads_the_same(shards):
    dataset = TarDataset(shards, output="tensor")
    assert dataset[0][1] == dataset.targets[0]  # opens a file, and makes the list of labels
    data = pickle.dumps(dataset)
    files = 40 + 7  # in place
    assert len(data) < 40 * PLACE.itemsize + files * (FILE.itemsize + 32) + 4000
    assert numbers_of([pickle.loads(data)[17][0]]) == [17]


def test_threads_may_share_it(shards):
    dataset = TarDataset(shards, output="tensor")
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda i: dataset[i % 40][0], range(200)))
    assert numbers_of(images) == [i % 40 for i in range(200)]


# A spawned worker imports torch, which takes seconds: one is enough.
@pytest.mark.parametrize(
    ("start", "num_workers"), [("fork", 2), pytest.param("spawn", 1, marks=pytest.mark.slow)]
)
def test_workers_read_every_sample_once_after_the_parent_has_read(shards, start, num_workers):
    dataset = TarDataset(shards, output="tensor")
    assert numbers_of([dataset[5][0]]) == [5]
    loader = DataLoader(
        dataset, batch_size=8, num_workers=num_workers, multiprocessing_context=start
    )
    batches = list(loader)
    assert [n for images, _ in batches for n in numbers_of(images)] == list(range(40))
    assert [label for _, labels in batches for label in labels.tolist()] == dataset.targets


def test_a_weighted_sampler_draws_rare_classes_as_often(tmp_path):
    pictures = [noisy_picture(i, int(i >= 18), height=24, width=24) for i in range(20)]
    write_shards(tmp_path / "shards", {"train": pictures}, classes=["often", "rare"])
    dataset = TarDataset(tmp_path / "shards", output="tensor")
    weights = 1 / torch.from_numpy(dataset.class_counts)[dataset.targets]
    generator = torch.Generator().manual_seed(0)
    sampler = WeightedRandomSampler(weights.tolist(), 400, generator=generator)
    drawn = torch.cat([labels for _, labels in DataLoader(dataset, 50, sampler=sampler)])
    assert 160 < int((drawn == 1).sum()) < 240


def test_a_distributed_sampler_splits_it(shards):
    dataset = TarDataset(shards, output="tensor")
    seen = []
    for rank in range(2):
        sampler: DistributedSampler[int] = DistributedSampler(
            dataset, num_replicas=2, rank=rank, seed=3
        )
        for images, _ in DataLoader(dataset, batch_size=5, sampler=sampler):
            seen += numbers_of(images)
    assert sorted(seen) == list(range(40))


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata 0.11
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stateful_data_loader_continues_within_an_epoch(shards, num_workers):
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def make() -> Any:
        return stateful.StatefulDataLoader(
            TarDataset(shards, output="tensor"),
            batch_size=4,
            shuffle=True,
            num_workers=num_workers,
            generator=torch.Generator().manual_seed(5),
        )

    loader = make()
    batches = iter(loader)
    head = [numbers_of(next(batches)[0]) for _ in range(3)]
    state = loader.state_dict()
    rest = [numbers_of(images) for images, _ in batches]
    again = make()
    again.load_state_dict(state)
    assert [numbers_of(images) for images, _ in again] == rest
    assert sorted(number for batch in head + rest for number in batch) == list(range(40))


def test_a_flipped_bit_is_an_error_with_shard_key_and_offset(tmp_path):
    directory = numbered(tmp_path / "shards", {"train": 12})
    offset = int(read_index(directory, "train")["offset"][11])
    flip_bit(directory / "train-000001.tar", offset + 300)
    dataset = TarDataset(directory)
    with pytest.raises(ShardError, match="CRC-32") as caught:
        dataset[11]
    assert caught.value.where == ("train-000001.tar", "000011", offset)
    assert str(caught.value).startswith(f"train-000001.tar, sample 000011, offset {offset}: ")
    assert dataset[10][1] == 1


def test_bytes_that_are_no_picture_are_an_error_with_shard_key_and_offset(tmp_path):
    whole = noisy_picture(0, 0, height=64, width=64)
    cut = Picture(whole.jpeg[: len(whole.jpeg) // 2], 0, 64, 64)
    write_shards(tmp_path / "shards", {"train": [whole, cut]}, classes=["a"])
    offset = int(read_index(tmp_path / "shards", "train")["offset"][1])
    place = f"train-000000.tar, sample 000001, offset {offset}: "
    with pytest.raises(CorruptImageError, match=place):
        TarDataset(tmp_path / "shards")[1]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_shard_that_was_truncated_or_deleted_is_named(tmp_path, num_workers):
    directory = numbered(tmp_path / "shards", {"train": 20})
    dataset = TarDataset(directory)
    assert dataset[0][1] == 0
    with (directory / "train-000001.tar").open("r+b") as file:
        file.truncate(2048)
    with pytest.raises(ShardError, match=r"train-000001\.tar: (was truncated|has 2048 bytes)"):
        list(DataLoader(dataset, sampler=[19], num_workers=num_workers))
    (directory / "train-000001.tar").unlink()
    with pytest.raises(ShardError, match=r"train-000001\.tar: is missing"):
        TarDataset(directory)[19]


def test_a_missing_split_is_named(shards):
    with pytest.raises(ShardError, match="no split 'test'; choose one of train, val"):
        TarDataset(shards, "test")
