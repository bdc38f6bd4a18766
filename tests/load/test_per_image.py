"""A transform of the user's own: what it is given, what it may return, what it draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import transforms as v1
from torchvision.transforms import v2

from fastload import Augment, Loader, Mix
from fastload.load.per_image import seeds_of
from fastload.pixels import native
from fastload.world import World
from tests.shards import flip_bit, noisy_picture, write_shards

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core")

SAMPLES, SIZE = 24, 32
DRAWING = v2.Compose([v2.RandomInvert(0.5), v2.RandomCrop(SIZE, padding=4)])


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    train = [noisy_picture(n, n % 2, height=60 + n, width=80) for n in range(SAMPLES)]
    directory = tmp_path_factory.mktemp("per_image") / "shards"
    return write_shards(directory, {"train": train, "val": train[:9]}, classes=["a", "b"])


def batches_of(path: Path, **options: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of one epoch."""
    defaults: dict[str, Any] = {"batch_size": 4, "augment": Augment.train(SIZE), "world": World()}
    with Loader(path, **(defaults | options)) as loader:
        return list(loader)


def images_of(path: Path, **options: Any) -> torch.Tensor:
    """The images of one epoch, one after another."""
    return torch.cat([images for images, _ in batches_of(path, **options)])


@pytest.mark.parametrize(
    "transform",
    [
        v2.RandomInvert(1.0),
        v2.GaussianBlur(3, sigma=1.0),
        v2.RandomAdjustSharpness(2.0, p=1.0),
        v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.ToDtype(torch.uint8, scale=True)]),
        v1.Compose([v1.RandomVerticalFlip(1.0), v1.Pad(4), v1.CenterCrop(SIZE)]),
        torch.nn.Sequential(v2.RandomHorizontalFlip(1.0), v2.Grayscale(3)),
        lambda image: image.transpose(1, 2),  # a view of what it was given
        lambda image: image,
    ],
)
@pytest.mark.parametrize("backend", ["native", "libjpeg"])
def test_each_image_is_given_to_the_transform_after_the_crop(shards, transform, backend):
    if backend == "native" and not native.is_available():
        pytest.skip("the native core is not built: pip install -e . with a C++ compiler")
    plain = images_of(shards, backend=backend)
    expected = torch.stack([transform(image.contiguous()) for image in plain])
    for images, result in zip(
        expected.split(4),
        batches_of(shards, backend=backend, transform=transform),
        strict=True,
    ):
        assert torch.equal(result[0], images)
        assert result[0].is_contiguous(memory_format=torch.channels_last)


def test_an_image_is_uint8_channels_last_and_may_be_changed_and_kept(shards):
    kept = []

    def transform(image):
        assert image.dtype == torch.uint8
        assert image.shape == (3, SIZE, SIZE)
        assert image.permute(1, 2, 0).is_contiguous()
        kept.append(image)
        return image.bitwise_not_()

    plain = images_of(shards)
    assert torch.equal(images_of(shards, transform=transform), 255 - plain)
    assert torch.equal(torch.stack(kept), 255 - plain)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_the_rest_of_the_augmentation_and_the_type_come_after_it(shards, dtype):
    inverted = v2.RandomInvert(1.0)
    augment = Augment.train(SIZE, mix=Mix(mixup=0.4))
    options: dict[str, Any] = {"augment": augment, "dtype": dtype}
    plain, own = batches_of(shards, **options), batches_of(shards, transform=inverted, **options)
    for (images, labels), (result, targets) in zip(plain, own, strict=True):
        assert result.dtype == dtype
        assert result.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(labels, targets)
        # In [0, 255] an image and its negative add up to 255, mixed or not.
        mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in augment.normalise)
        if dtype == torch.uint8:
            mean, std = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
        total = (images.float() + result.float()) * std + 2 * mean
        assert (total - 255).abs().max() <= (1 if dtype != torch.float32 else 1e-3)


def test_draws_do_not_depend_on_batches_threads_ranks_or_where_the_run_began(shards):
    whole = images_of(shards, transform=DRAWING)
    changes: list[dict[str, Any]] = [{"batch_size": 8}, {"num_threads": 1}, {"num_threads": 3}]
    for change in changes:
        assert torch.equal(images_of(shards, transform=DRAWING, **change), whole)
    ranks = [World(rank=rank, size=2) for rank in range(2)]
    parts = [batches_of(shards, transform=DRAWING, batch_size=2, world=rank) for rank in ranks]
    joined = [images for pair in zip(*parts, strict=True) for images, _ in pair]
    assert torch.equal(torch.cat(joined), whole)
    same: dict[str, Any] = {"batch_size": 4, "augment": Augment.train(SIZE), "transform": DRAWING}
    with Loader(shards, **same) as first, Loader(shards, **same) as second:
        iteration = iter(first)
        next(iteration)
        second.load_state_dict(first.state_dict())
        assert torch.equal(torch.cat([images for images, _ in second]), whole[4:])


def test_images_epochs_and_seeds_draw_differently(shards):
    drawn: list[float] = []

    def transform(image):
        drawn.append(torch.rand(()).item())
        return image

    options: dict[str, Any] = {"batch_size": 4, "augment": Augment.train(SIZE)}
    for seed in (0, 1):
        with Loader(shards, transform=transform, seed=seed, **options) as loader:
            for _ in range(2):
                list(loader)
    assert len(set(drawn)) == len(drawn) == 4 * SAMPLES


def test_the_callers_random_numbers_are_what_they_would_be_without(shards):
    torch.manual_seed(5)
    alone = torch.rand(2)
    torch.manual_seed(5)
    first = torch.rand(1)
    images_of(shards, transform=DRAWING)
    assert torch.equal(torch.cat([first, torch.rand(1)]), alone)


def test_draws_of_an_epoch_are_spread_evenly():
    seeds = seeds_of(0, 0, np.arange(20_000))
    drawn = [torch.Generator().manual_seed(seed) for seed in seeds]
    first = torch.cat([torch.rand(1, generator=generator) for generator in drawn])
    counts = torch.histc(first, 10, 0, 1)
    assert (counts - 2000).abs().max() < 5 * 2000**0.5
    assert np.corrcoef(first[:-1], first[1:])[0, 1] < 0.03


def test_a_sample_that_is_left_out_leaves_the_draws_of_the_others(tmp_path):
    pictures = [noisy_picture(n, 0, height=60, width=60) for n in range(8)]
    directory = write_shards(tmp_path / "shards", {"val": pictures}, classes=["a"])
    options: dict[str, Any] = {
        "split": "val",
        "augment": Augment.eval(SIZE),
        "transform": DRAWING,
        "max_corrupt_fraction": 0.5,
    }
    sound = images_of(directory, **options)
    shard = directory / "val-000000.tar"
    with Loader(directory, split="val") as loader:
        offset = loader.dataset.locate(2)[2]
    flip_bit(shard, offset + 300)
    kept = [0, 1, 3, 4, 5, 6, 7]
    assert torch.equal(images_of(directory, **options), sound[kept])


def test_a_rank_without_samples_gets_an_empty_batch(shards):
    options: dict[str, Any] = {"split": "val", "augment": Augment.eval(SIZE), "batch_size": 1}
    ranks = [World(rank=rank, size=11) for rank in range(11)]
    parts = [images_of(shards, transform=DRAWING, world=rank, **options) for rank in ranks]
    assert {part.shape for part in parts} == {(0, 3, SIZE, SIZE), (1, 3, SIZE, SIZE)}
    assert torch.equal(torch.cat(parts), images_of(shards, transform=DRAWING, **options))


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (None, TypeError, r"return a uint8 tensor \[3, 32, 32\] like the image .* got None"),
        (np.zeros((3, 32, 32), np.uint8), TypeError, r"must return a uint8 tensor \[3, 32, 32\]"),
        ((torch.zeros(3, 32, 32), 1), TypeError, r"must return a uint8 tensor \[3, 32, 32\]"),
        (torch.zeros(3, 32, 32), TypeError, r"uint8, as .* got torch\.float32; leave ToDtype and"),
        (torch.full((3, 32, 32), torch.nan), TypeError, r"must return uint8, .* got torch\.float"),
        (torch.zeros(3, 32, 32, dtype=torch.bool), TypeError, r"got torch\.bool"),
        (torch.zeros(3, 24, 24, dtype=torch.uint8), ValueError, r"\[3, 32, 32\].*got \[3, 24, 24"),
        (torch.zeros(1, 32, 32, dtype=torch.uint8), ValueError, r"got \[1, 32, 32\]; the size"),
        (torch.zeros(32, dtype=torch.uint8), ValueError, r"got \[32\]"),
    ],
)
def test_another_result_is_refused(shards, result, error, message):
    with pytest.raises(error, match=message):
        batches_of(shards, transform=lambda _: result)


def test_a_whole_pipeline_of_torchvision_is_told_what_to_leave_out(shards):
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(SIZE),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    with pytest.raises(TypeError, match=r"leave ToDtype and Normalize out and give .* normalise="):
        batches_of(shards, transform=transform)


@pytest.mark.parametrize("transform", [lambda images, labels: (images, labels), lambda: None])
def test_what_does_not_take_one_image_is_refused(shards, transform):
    with pytest.raises(TypeError, match=r"transform must take one image, got .* in your loop"):
        Loader(shards, transform=transform)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16])
def test_on_a_gpu_images_are_transformed_there_with_the_same_draws(shards, dtype):
    places = []

    def transform(image):
        places.append(image.device.type)
        return DRAWING(image)

    before = torch.cuda.get_rng_state()
    here = batches_of(shards, transform=DRAWING, dtype=dtype)
    there = batches_of(shards, transform=transform, dtype=dtype, device="cuda")
    for (images, _), (sent, _) in zip(here, there, strict=True):
        assert sent.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(sent.cpu(), images)
    assert set(places) == {"cuda"}
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.gpu
def test_on_a_gpu_noise_is_drawn_there_by_position(shards):
    def transform(image):
        return torch.randint_like(image, 256)

    first = images_of(shards, transform=transform, device="cuda")
    second = images_of(shards, transform=transform, device="cuda", batch_size=8)
    assert torch.equal(first, second)
    assert len(first.flatten(1).unique(dim=0)) == SAMPLES
