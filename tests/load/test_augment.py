"""Choices have torchvision's distributions, and applying them gives torchvision's pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import ColorJitter, RandomErasing, v2
from torchvision.transforms.v2 import functional as oracle

from fastload.load.apply import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    augment_images,
    jitter,
    rotate,
)
from fastload.load.augment import (
    Augment,
    CenterCrop,
    Choices,
    ColourJitter,
    Erasing,
    Mix,
    RandomCrop,
    RandomResizedCrop,
    pasted_boxes,
    symmetric_beta,
)
from fastload.load.auto_augment import RandAugment
from tests.distributions import same_distribution

FULL = Augment(
    size=32,
    auto=RandAugment(),
    rotation=20.0,
    jitter=ColourJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    erasing=Erasing(probability=0.5),
    mix=Mix(mixup=0.2, cutmix=1.0),
)


def pictures(count: int = 6) -> torch.Tensor:
    """uint8 [count, 3, 32, 32], channels-last: noise, greys and pure colours."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (6, 32, 32, 3), generator=generator, dtype=torch.uint8)
    images[1] = images[1, :, :, :1]
    images[2, :16] = torch.tensor([255, 0, 0], dtype=torch.uint8)
    images[3] //= 8
    return images[:count].permute(0, 3, 1, 2)


def floats(count: int = 6) -> torch.Tensor:
    return pictures(count).float() / 255


def drawn(
    augment: Augment, count: int, *, seed: int = 0, epoch: int = 0, first: int = 0
) -> Choices:
    sizes = np.tile(np.array([[300, 400]], np.int64), (count, 1))
    return augment.draw(seed, epoch, np.arange(first, first + count, dtype=np.int64), sizes)


def arrays(choices: Choices) -> dict[str, np.ndarray]:
    values = {name: getattr(choices, name) for name in Choices.__slots__}
    return {name: value for name, value in values.items() if value is not None}


def test_choices_depend_on_the_position_and_not_on_the_batch():
    whole = arrays(drawn(FULL, 64))
    parts = [arrays(drawn(FULL, 16, first=first)) for first in range(0, 64, 16)]
    for name, values in whole.items():
        joined = np.concatenate([part[name] for part in parts])
        if name == "partners":
            joined += np.repeat(np.arange(0, 64, 16), 16)
        assert np.array_equal(values, joined), name


def test_another_seed_or_epoch_draws_otherwise():
    base = arrays(drawn(FULL, 32))
    for other in (drawn(FULL, 32, seed=1), drawn(FULL, 32, epoch=1)):
        for name, values in arrays(other).items():
            if name != "partners":
                assert not np.array_equal(values, base[name]), name


def test_switching_one_thing_on_leaves_the_draws_of_others_as_they_were():
    alone = drawn(Augment(size=32), 32)
    with_all = drawn(FULL, 32)
    assert np.array_equal(alone.boxes, with_all.boxes)
    assert np.array_equal(alone.flips, with_all.flips)


def test_golden_choices_guard_upgrades():
    choices = drawn(FULL, 3, seed=5, epoch=2, first=1000)
    assert choices.boxes.tolist() == [[49, 103, 214, 213], [15, 116, 202, 254], [38, 33, 231, 217]]
    assert choices.flips.tolist() == [False, False, True]
    assert choices.erased is not None
    assert choices.erased.tolist() == [[27, 22, 0, 0], [1, 8, 16, 7], [8, 19, 0, 0]]
    assert choices.orders is not None
    assert choices.orders.tolist() == [[1, 3, 2, 0], [0, 3, 1, 2], [1, 2, 0, 3]]


def test_half_of_the_images_are_flipped():
    assert abs(drawn(Augment(), 10_000).flips.mean() - 0.5) < 0.02
    assert not drawn(Augment(flip=0.0), 1000).flips.any()
    assert drawn(Augment(flip=1.0), 1000).flips.all()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (adjust_brightness, oracle.adjust_brightness),
        (adjust_contrast, oracle.adjust_contrast),
        (adjust_saturation, oracle.adjust_saturation),
        (adjust_hue, oracle.adjust_hue),
    ],
)
@pytest.mark.parametrize("factor", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("sign", [-1, 1])
def test_colour_operations_are_torchvisions(ours, theirs, factor, sign):
    value = sign * factor if ours is adjust_hue else 1 + sign * factor
    images = floats()
    result = ours(images, torch.full((len(images),), value))
    torch.testing.assert_close(result, theirs(images, value), rtol=0, atol=1e-5)


def test_each_image_has_a_factor_of_its_own():
    images, values = floats(3), torch.tensor([0.5, 1.0, 1.5])
    for ours, theirs in (
        (adjust_brightness, oracle.adjust_brightness),
        (adjust_contrast, oracle.adjust_contrast),
    ):
        expected = torch.stack(
            [theirs(image, float(value)) for image, value in zip(images, values, strict=True)]
        )
        torch.testing.assert_close(ours(images, values), expected, rtol=0, atol=1e-5)


def test_jitter_applies_the_four_in_the_order_of_each_image():
    theirs = (
        oracle.adjust_brightness,
        oracle.adjust_contrast,
        oracle.adjust_saturation,
        oracle.adjust_hue,
    )
    choices = drawn(FULL, 24)
    assert choices.factors is not None
    assert choices.orders is not None
    images = floats(6).repeat(4, 1, 1, 1)
    expected = []
    for image, factors, order in zip(images, choices.factors, choices.orders, strict=True):
        for kind in order:
            image = theirs[kind](image, float(factors[kind]))
        expected.append(image)
    result = jitter(images.clone(), choices.factors, choices.orders)
    torch.testing.assert_close(result, torch.stack(expected), rtol=0, atol=1e-4)


def test_factors_and_orders_of_jitter_have_torchvisions_distributions():
    options = {"brightness": 0.4, "contrast": 1.5, "saturation": 0.2, "hue": 0.1}
    choices = drawn(Augment(jitter=ColourJitter(**options)), 4000)
    assert choices.factors is not None
    assert choices.orders is not None
    torch.manual_seed(0)
    theirs = ColorJitter(**options)
    params = [
        ColorJitter.get_params(theirs.brightness, theirs.contrast, theirs.saturation, theirs.hue)
        for _ in range(2000)
    ]
    for kind in range(4):
        values = np.array([param[1 + kind] for param in params])
        assert same_distribution(choices.factors[:, kind], values)
    counts = np.unique(choices.orders, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert np.abs(counts / 4000 - 1 / 24).max() < 0.015


@pytest.mark.parametrize("degrees", [0.0, 17.0, -45.0, 90.0, 180.0])
@pytest.mark.parametrize("shape", [(32, 32), (24, 40)])
def test_rotation_is_torchvisions(degrees, shape):
    images = floats()[..., : shape[0], :].repeat(1, 1, 1, 2)[..., : shape[1]]
    result = rotate(images, torch.full((len(images),), degrees))
    expected = oracle.rotate(images, degrees, interpolation=v2.InterpolationMode.BILINEAR)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)


def test_angles_are_uniform_in_their_interval():
    angles = drawn(Augment(rotation=30.0), 5000).angles
    assert angles is not None
    uniform = np.random.default_rng(0).uniform(-30, 30, 5000)
    assert same_distribution(angles, uniform)


@pytest.mark.parametrize("area", [(0.02, 0.33), (0.6, 1.0)])
def test_erased_boxes_have_torchvisions_distribution(area):
    erased = drawn(Augment(size=64, erasing=Erasing(probability=1.0, area=area)), 4000).erased
    assert erased is not None
    torch.manual_seed(0)
    image = torch.empty(3, 64, 64)
    theirs = np.array(
        [RandomErasing.get_params(image, area, (0.3, 3.3), [0.0])[:4] for _ in range(2000)]
    )
    # Where no attempt fits, torchvision returns the whole image and paints nothing.
    none = (theirs[:, 2:] == 64).all(axis=1)
    assert abs(none.mean() - (erased[:, 2] == 0).mean()) < 0.05
    theirs, erased = theirs[~none], erased[erased[:, 2] > 0]
    for column in range(4):
        assert same_distribution(erased[:, column], theirs[:, column])
    assert same_distribution(erased[:, 2] / erased[:, 3], theirs[:, 2] / theirs[:, 3])


def test_erasing_happens_with_its_probability_and_paints_the_mean():
    augment = Augment(size=32, erasing=Erasing(probability=0.25))
    choices = drawn(augment, 4000)
    assert choices.erased is not None
    assert abs((choices.erased[:, 2] > 0).mean() - 0.25) < 0.02
    few = drawn(replace(augment, erasing=Erasing(probability=1.0)), 6)
    assert few.erased is not None
    images, labels = pictures(), torch.zeros(6, dtype=torch.int64)
    plain, _ = augment_images(Augment(size=32), images, labels, few, dtype=torch.float32)
    result, _ = augment_images(augment, images, labels, few, dtype=torch.float32)
    for image, expected, box in zip(result, plain, few.erased.tolist(), strict=True):
        erased = oracle.erase(expected, *box, torch.zeros(3, 1, 1))
        torch.testing.assert_close(image, erased, rtol=0, atol=1e-5)


ALPHAS = [0.01, 0.1, 0.2, 0.5, 0.999, 1.0, 1.001, 1.5, 1.999, 2.0, 3.0, 8.0, 16.0, 40.0, 100.0]


def beta_distribution(alpha: float, x: float) -> float:
    """The distribution function of Beta(alpha, alpha) at x <= 1/2: its continued fraction.

    Abramowitz and Stegun, 26.5.8, evaluated backwards.
    """
    value = 0.0
    for term in range(400, 0, -1):
        half = term // 2
        if term % 2:
            over = (alpha + half) * (2 * alpha + half)
            part = -over / ((alpha + term - 1) * (alpha + term)) * x
        else:
            part = half * (alpha - half) / ((alpha + term - 1) * (alpha + term)) * x
        value = part / (1 + value)
    front = alpha * math.log(x * (1 - x)) + math.lgamma(2 * alpha) - 2 * math.lgamma(alpha)
    return math.exp(front) / alpha / (1 + value)


def test_the_distribution_that_shares_are_compared_with_is_right():
    assert beta_distribution(1.0, 0.3) == pytest.approx(0.3)
    assert beta_distribution(2.0, 0.3) == pytest.approx(3 * 0.3**2 - 2 * 0.3**3)
    arcsine = 2 / math.pi * math.asin(math.sqrt(0.1))
    assert beta_distribution(0.5, 0.1) == pytest.approx(arcsine)
    for alpha in ALPHAS:
        assert beta_distribution(alpha, 0.5) == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_share_of_mixing_is_the_inverse_of_the_beta_distribution(alpha):
    uniforms = np.concatenate([np.logspace(-12, -3, 40), np.linspace(0.001, 0.5, 400)])
    for uniform, share in zip(uniforms, symmetric_beta(alpha, uniforms), strict=True):
        if share > 1e-300:  # what is smaller has lost digits
            # 0.1 % of the probability, or less than a float32 share can show.
            assert beta_distribution(alpha, share) == pytest.approx(uniform, rel=1e-3, abs=1e-6)
    middle = symmetric_beta(alpha, uniforms)
    assert symmetric_beta(alpha, 1 - uniforms) == pytest.approx(1 - middle, abs=1e-6)


@pytest.mark.parametrize("alpha", [1e-4, 1e-12, 1e-16, 5e-324])
def test_shares_of_the_smallest_alphas_are_one_or_the_other(alpha):
    shares = symmetric_beta(alpha, (np.arange(2000) + 0.5) / 2000)
    assert (np.minimum(shares, 1 - shares) < 1e-3).mean() > 0.995
    assert np.count_nonzero(shares > 0.5) == 1000


@pytest.mark.parametrize("alpha", ALPHAS)
def test_shares_of_mixing_have_the_mean_and_the_deviation_of_their_beta(alpha):
    shares = symmetric_beta(alpha, (np.arange(200_000) + 0.5) / 200_000)
    assert shares.mean() == pytest.approx(0.5, abs=1e-9)
    assert shares.std() == pytest.approx(math.sqrt(1 / (4 * (2 * alpha + 1))), rel=1e-4)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_shares_of_mixing_are_those_that_numpy_draws(alpha):
    random = np.random.default_rng(0)
    ours = symmetric_beta(alpha, random.random(20_000))
    assert same_distribution(ours, random.beta(alpha, alpha, 20_000))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 16.0])
def test_mixup_and_cutmix_of_a_batch_have_the_beta_of_their_alpha(alpha):
    deviation = math.sqrt(1 / (4 * (2 * alpha + 1)))
    shares = drawn(Augment(mix=Mix(mixup=alpha)), 20_000).shares
    assert shares is not None
    assert shares.std() == pytest.approx(deviation, rel=0.02)


def params_of(transform: v2.Transform, inputs: list[torch.Tensor]) -> dict[str, Any]:
    """What a transform of torchvision draws; 0.20 has no public name for it."""
    make = getattr(transform, "make_params", None) or transform._get_params
    drawn: dict[str, Any] = make(inputs)
    return drawn


@pytest.mark.parametrize("size", [1, 2, 7, 32, 64, 75, 224, 225])
def test_cutmix_puts_the_very_boxes_of_torchvision(size, monkeypatch):
    random = np.random.default_rng(size)
    shares = np.concatenate([random.beta(1, 1, 300), random.random(100) ** 9, [0.0, 1.0]])
    uniforms = random.random((len(shares), 2))
    ours = pasted_boxes(size, shares, uniforms)
    theirs = v2.CutMix(num_classes=2)
    images = [torch.empty(1, 3, size, size)]
    for share, (row, column), box in zip(shares, uniforms, ours.tolist(), strict=True):
        # torchvision draws the share, the column and the row, in this order.
        draws = iter([math.floor(column * size), math.floor(row * size)])
        monkeypatch.setattr(theirs, "_dist", Given(share))
        monkeypatch.setattr(
            torch, "randint", lambda *_, draws=draws, **__: torch.tensor([next(draws)])
        )
        params = params_of(theirs, images)
        left, top, right, bottom = params["box"]
        assert box == [top, left, bottom - top, right - left]
        assert 1 - box[2] * box[3] / size**2 == params["lam_adjusted"]


@dataclass
class Given:
    """A distribution that gives one value: the draws of torchvision are made ours."""

    value: float

    def sample(self, _shape: tuple[int, ...]) -> float:
        return self.value


def test_boxes_and_shares_of_cutmix_have_torchvisions_distribution():
    choices = drawn(Augment(size=48, mix=Mix(mixup=0.0, cutmix=1.0)), 4000)
    assert choices.pasted is not None
    assert choices.shares is not None
    torch.manual_seed(0)
    theirs = v2.CutMix(num_classes=2)
    params = [params_of(theirs, [torch.empty(1, 3, 48, 48)]) for _ in range(4000)]
    boxes = np.array([param["box"] for param in params])[:, [1, 0, 3, 2]]
    boxes[:, 2:] -= boxes[:, :2]
    for column in range(4):
        assert same_distribution(choices.pasted[:, column], boxes[:, column])
    shares = np.array([param["lam_adjusted"] for param in params])
    assert same_distribution(choices.shares, shares.astype(np.float32))


def test_mixup_mixes_neighbours_and_their_labels():
    augment = Augment(size=32, mix=Mix(mixup=0.4))
    choices = drawn(augment, 6)
    assert choices.shares is not None
    images, labels = pictures(), torch.tensor([0, 1, 2, 3, 4, 0])
    mixed, soft = augment_images(
        augment, images, labels, choices, dtype=torch.float32, num_classes=5
    )
    plain, _ = augment_images(Augment(size=32), images, labels, choices, dtype=torch.float32)
    hard = torch.nn.functional.one_hot(labels, 5).float()
    for i, partner in enumerate([1, 0, 3, 2, 5, 4]):
        share = float(choices.shares[i])
        expected = plain[i] * share + plain[partner] * (1 - share)
        torch.testing.assert_close(mixed[i], expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(soft[i], hard[i] * share + hard[partner] * (1 - share))
    torch.testing.assert_close(soft.sum(1), torch.ones(6))


def test_cutmix_pastes_a_box_of_the_neighbour_and_weighs_labels_by_area():
    augment = Augment(size=32, mix=Mix(mixup=0.0, cutmix=1.0))
    choices = drawn(augment, 6)
    assert choices.pasted is not None
    images, labels = pictures(), torch.tensor([0, 1, 2, 3, 4, 0])
    mixed, soft = augment_images(augment, images, labels, choices, num_classes=5)
    assert mixed.dtype == torch.uint8
    for i, partner in enumerate([1, 0, 3, 2, 5, 4]):
        top, left, height, width = choices.pasted[i].tolist()
        expected = images[i].clone()
        box = (slice(None), slice(top, top + height), slice(left, left + width))
        expected[box] = images[partner][box]
        assert torch.equal(mixed[i], expected)
        own = soft[i, labels[i]].item()
        assert own == pytest.approx(1 - height * width / 32**2, abs=1e-6)


def test_a_pair_shares_its_kind_of_mixing_and_both_kinds_occur():
    choices = drawn(Augment(size=32, mix=Mix(mixup=0.2, cutmix=1.0)), 4000)
    assert choices.pasted is not None
    cut = choices.pasted[:, 2] > 0
    assert abs(cut.mean() - 0.5) < 0.05
    pairs = cut.reshape(-1, 2)
    # A box may be empty by chance, so that one of a pair looks unmixed.
    assert (pairs[:, 0] == pairs[:, 1]).mean() > 0.95


def test_mixing_happens_with_its_probability():
    choices = drawn(Augment(mix=Mix(mixup=1.0, probability=0.3)), 4000)
    assert choices.shares is not None
    assert abs((choices.shares < 1).mean() - 0.3) < 0.03


def test_the_odd_one_out_is_not_mixed():
    augment = Augment(size=32, mix=Mix(mixup=1.0))
    first, last = drawn(augment, 3, first=1), drawn(augment, 3, first=0)
    assert first.partners is not None
    assert last.partners is not None
    assert first.partners.tolist() == [0, 2, 1]
    assert last.partners.tolist() == [1, 0, 2]
    images, labels = pictures(3), torch.tensor([0, 1, 2])
    mixed, soft = augment_images(augment, images, labels, last, num_classes=3)
    assert torch.equal(mixed[2], images[2])
    assert soft[2].tolist() == [0, 0, 1]


def test_applying_changes_neither_images_nor_choices():
    choices, images = drawn(FULL, 6), pictures()
    before = images.clone(), {name: values.copy() for name, values in arrays(choices).items()}
    first, _ = augment_images(
        FULL, images, torch.arange(6), choices, dtype=torch.float32, num_classes=6
    )
    second, _ = augment_images(
        FULL, images, torch.arange(6), choices, dtype=torch.float32, num_classes=6
    )
    assert torch.equal(first, second)
    assert torch.equal(images, before[0])
    assert all(np.array_equal(arrays(choices)[name], values) for name, values in before[1].items())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
def test_everything_together_keeps_type_and_layout(dtype):
    images, soft = augment_images(
        FULL, pictures(), torch.arange(6), drawn(FULL, 6), dtype=dtype, num_classes=6
    )
    assert images.dtype == dtype
    assert images.shape == (6, 3, 32, 32)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images.isfinite().all()
    assert soft.shape == (6, 6)


@pytest.fixture
def torch_threads():
    """Sets how many threads torch has, up to the end of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_neither_the_batch_nor_torchs_threads_change_a_contrast(torch_threads):
    images = torch.rand(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    factors, found = torch.tensor([0.3, 0.7, 1.2, 1.7]), []
    for threads, count in ((1, 4), (2, 4), (2, 1)):
        torch_threads(threads)
        parts = zip(images.split(count), factors.split(count), strict=True)
        found.append(torch.cat([adjust_contrast(*part) for part in parts]))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_an_empty_batch_stays_empty(dtype):
    images, soft = augment_images(
        FULL, pictures(0), torch.arange(0), drawn(FULL, 0), dtype=dtype, num_classes=6
    )
    assert (images.shape, images.dtype, soft.shape) == ((0, 3, 32, 32), dtype, (0, 6))


def test_uint8_and_float_batches_show_the_same():
    choices = drawn(FULL, 6)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in FULL.normalise)
    plain, _ = augment_images(FULL, pictures(), torch.arange(6), choices, num_classes=6)
    normalised, _ = augment_images(
        FULL, pictures(), torch.arange(6), choices, dtype=torch.float32, num_classes=6
    )
    torch.testing.assert_close((normalised * std + mean) * 255, plain.float(), rtol=0, atol=0.502)


def test_without_anything_to_do_the_images_are_handed_on_uncopied():
    images = pictures()
    result, _ = augment_images(
        Augment.train(32), images, torch.arange(6), drawn(Augment.train(32), 6)
    )
    assert result.data_ptr() == images.data_ptr()


def test_presets_are_the_published_recipes():
    assert Augment.train(176) == Augment(size=176, crop=RandomResizedCrop(), flip=0.5)
    assert Augment.eval(224) == Augment(size=224, crop=CenterCrop(), flip=0.0)
    assert Augment.plantnet() == Augment(size=224, crop=RandomCrop(fraction=0.875), flip=0.0)
    windows = drawn(Augment.plantnet(), 1).windows
    assert windows is not None
    assert windows[0, 2:] == pytest.approx([224 * 300 / 256, 224 * 400 / 341])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Augment(size=0), r"size must be in \[1, 8192\]"),
        (lambda: Augment(flip=1.5), r"flip must be in \[0, 1\], got 1\.5"),
        (lambda: Augment(flip=float("nan")), r"flip must be in \[0, 1\], got nan"),
        (lambda: Augment(rotation=-1), r"rotation must be in \[0, 180\], got -1"),
        (
            lambda: Augment(normalise=((0, 0, 0), (1, 0, 1))),
            r"std of normalise must be in \[0\.0001, 1\], .* got \(1, 0, 1\)",
        ),
        (
            lambda: Augment(normalise=((123.7, 116.3, 103.5), (58.4, 57.1, 57.4))),
            r"mean of normalise must be in \[0, 1\], as of pixels in \[0, 1\], got \(123\.7",
        ),
        (lambda: Augment(normalise=((0, 0, 0), (255, 255, 255))), "std of normalise must be in"),
        (
            lambda: RandomResizedCrop(area=(0.5, 0.1)),
            r"area must be an interval \(least, most\) within \[1e-06, 1\], got \(0\.5, 0\.1\)",
        ),
        (lambda: RandomResizedCrop(ratio=(0, 1)), "ratio must be an interval"),
        (lambda: RandomCrop(fraction=0), r"fraction must be in \[0\.001, 1\], got 0"),
        (lambda: CenterCrop(fraction=1.5), r"fraction must be in \[0\.001, 1\], got 1\.5"),
        (lambda: ColourJitter(hue=0.6), r"hue must be in \[0, 0\.5\], got 0\.6"),
        (lambda: ColourJitter(contrast=-1), r"contrast must be in \[0, 255\], got -1"),
        (lambda: ColourJitter(brightness=float("inf")), r"brightness must be in .* got inf"),
        (lambda: ColourJitter(saturation=1e39), r"saturation must be in .* got 1e\+39"),
        (lambda: Erasing(probability=2), r"probability must be in \[0, 1\], got 2"),
        (lambda: Mix(mixup=-0.1), r"mixup must be in \[0, 100\], got -0\.1"),
        (lambda: Mix(mixup=0, cutmix=0), "must not both be 0"),
        (lambda: drawn(FULL, 4).keep(np.ones(4, bool)), "a batch that is mixed"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (Augment, {"size": "224"}, r"size must be an integer in \[1, 8192\], got '224'"),
        (Augment, {"size": 224.5}, r"size must be an integer in \[1, 8192\], got 224\.5"),
        (Augment, {"size": True}, r"size must be an integer in \[1, 8192\], got True"),
        (Augment, {"flip": "0.5"}, r"flip must be a number in \[0, 1\], got '0\.5'"),
        (Augment, {"flip": True}, r"flip must be a number in \[0, 1\], got True"),
        (Augment, {"rotation": None}, r"rotation must be a number in \[0, 180\], got None"),
        (Augment, {"rotation": (-9, 9)}, r"rotation must be a number .* got \(-9, 9\)"),
        (
            Augment,
            {"crop": "random"},
            "crop must be RandomResizedCrop or RandomCrop or CenterCrop, got 'random'",
        ),
        (Augment, {"jitter": 0.4}, r"jitter must be ColourJitter or None, got 0\.4"),
        (Augment, {"erasing": True}, "erasing must be Erasing or None, got True"),
        (Augment, {"mix": 0.2}, r"mix must be Mix or None, got 0\.2"),
        (Augment, {"normalise": None}, r"normalise must be a pair \(mean, std\), got None"),
        (Augment, {"normalise": (0.5, 0.5)}, "mean of normalise must be three finite numbers"),
        (RandomResizedCrop, {"area": 0.5}, r"area must be an interval .* got 0\.5"),
        (RandomResizedCrop, {"ratio": ("3/4", "4/3")}, "ratio must be an interval"),
        (ColourJitter, {"brightness": (0.8, 1.2)}, r"brightness must be a number in \[0, 255\]"),
    ],
)
def test_settings_of_another_type_are_refused(make, options, message):
    with pytest.raises(TypeError, match=message):
        make(**options)


def test_numpy_scalars_are_numbers():
    options: dict[str, Any] = {"size": np.int64(64), "flip": np.float32(0.5)}
    assert Augment(**options) == Augment(size=64, flip=0.5)
    area: Any = (np.float64(0.25), np.int32(1))
    assert RandomResizedCrop(area=area).area == (0.25, 1)


def test_a_preset_takes_what_differs():
    mix = Mix(mixup=0.2)
    assert Augment.train(64, mix=mix) == Augment(size=64, mix=mix)
    assert Augment.train(size=64, flip=0) == Augment(size=64, flip=0)
    assert Augment.eval(64, flip=0.5) == Augment(size=64, crop=CenterCrop(), flip=0.5)
    assert Augment.plantnet(64, crop=CenterCrop()) == Augment.eval(64)


AUGMENT: Any = Augment  # for calls that are wrong
MIX: Any = Mix
CROP: Any = RandomResizedCrop


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AUGMENT.train((64, 64)), r"the side of a square, one number: 64, got \(64, 64\)"),
        (lambda: AUGMENT.train("64"), "size must be an integer in .* got '64'"),
        (
            lambda: AUGMENT.train(64, mixup=0.2),
            r"Augment has no option mixup; did you mean 'mix'\?",
        ),
        (lambda: AUGMENT.train(64, fliP=1), r"Augment has no option fliP; did you mean 'flip'\?"),
        (lambda: AUGMENT.train(64, zoom=1), "Augment has no option zoom; there are size, crop, fl"),
        (lambda: AUGMENT(224), "Augment takes each option by its name, such as size=…; got 224"),
        (lambda: MIX(alpha=0.2), "Mix has no option alpha; there are mixup, cutmix, probability"),
        (lambda: CROP(scale=(0.2, 1)), "RandomResizedCrop has no option scale"),
        (lambda: AUGMENT(mix=0.2), "mix must be Mix or None, got 0.2"),
        (
            lambda: AUGMENT(crop=RandomCrop),
            "crop must be RandomResizedCrop or RandomCrop or Center",
        ),
    ],
)
def test_a_wrong_call_is_told_what_there_is(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_equal_options_look_alike_and_can_be_hashed():
    odd = AUGMENT(
        size=np.int64(64),
        crop=CROP(area=[0.5, 1.0]),
        normalise=np.array([[0.5] * 3, [0.25] * 3]),
    )
    same = Augment(
        size=64, crop=RandomResizedCrop(area=(0.5, 1.0)), normalise=((0.5,) * 3, (0.25,) * 3)
    )
    assert (odd, hash(odd), repr(odd)) == (same, hash(same), repr(same))
