"""TrivialAugment and RandAugment: torchvision's choices, torchvision's pixels, for each image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

import fastload.load.operations as module
from fastload import Loader
from fastload.errors import StateMismatchError
from fastload.load.apply import augment_images
from fastload.load.augment import Augment, ColourJitter, Erasing, Mix
from fastload.load.auto_augment import MAGNITUDES, Operation, RandAugment, TrivialAugment
from fastload.load.operations import operate
from tests.shards import numbered
from tests.waits import forbidden_to_wait

POLICIES = [
    (TrivialAugment(), v2.TrivialAugmentWide()),
    (RandAugment(), v2.RandAugment()),
]
THEIR_NAMES = {operation: operation.name.title().replace("_", "") for operation in Operation} | {
    Operation.COLOUR: "Color",
    Operation.AUTOCONTRAST: "AutoContrast",
}
# Equal to the bit on the processor on which they were written. Sums may be rounded otherwise on
# another one: then a pixel may come from the other one of two that are equally near, or be 1 off.
NEAR = {Operation.SHEAR_X, Operation.SHEAR_Y, Operation.ROTATE}
BLENDED = {Operation.COLOUR, Operation.CONTRAST, Operation.SHARPNESS}


def pictures(height: int, width: int = 0) -> torch.Tensor:
    """uint8 [6, 3, H, W], channels-last: noise, a ramp, clouds, grey, dark, of one colour."""
    width = width or height
    generator = torch.Generator().manual_seed(height)
    noise = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
    rows, columns = torch.arange(height).view(-1, 1, 1), torch.arange(width).view(1, -1, 1)
    ramp = ((3 * rows + 2 * columns + 40 * torch.arange(3)) % 256).to(torch.uint8)
    clouds = torch.randn(height, width, 3, generator=generator).cumsum(0).cumsum(1) * 2 + 128
    flat = torch.full((height, width, 3), 77, dtype=torch.uint8)
    images = [noise, ramp, clouds.clamp(0, 255).to(torch.uint8)]
    images += [noise[..., :1].expand(-1, -1, 3), noise // 8 + 30, flat]
    return torch.stack(images).permute(0, 3, 1, 2)


def by_torchvision(theirs: Any, image: torch.Tensor, kind: Operation, strength: float) -> Any:
    return theirs._apply_image_or_video_transform(
        image,
        THEIR_NAMES[kind],
        strength,
        interpolation=theirs.interpolation,
        fill=theirs._fill,
    )


def magnitudes_of(theirs: Any, kind: Operation, size: int) -> tuple[list[float], bool]:
    """Strengths in torchvision's units, and whether they have a sign."""
    strengths, signed = theirs._AUGMENTATION_SPACE[THEIR_NAMES[kind]]
    found = strengths(MAGNITUDES, size, size)
    return [0.0] * MAGNITUDES if found is None else [float(value) for value in found], signed


def test_the_operations_are_torchvisions_in_its_order():
    for _, theirs in POLICIES:
        assert list(theirs._AUGMENTATION_SPACE) == list(THEIR_NAMES.values())


@pytest.mark.parametrize(("ours", "theirs"), POLICIES, ids=["trivial", "rand"])
@pytest.mark.parametrize("kind", list(Operation), ids=lambda kind: kind.name.lower())
@pytest.mark.parametrize("size", [2, 3, 33, 64])
def test_each_operation_is_torchvisions_at_every_magnitude(ours, theirs, kind, size):
    """All magnitudes and signs are one batch: each image of it is compared with its own."""
    magnitudes, signed = magnitudes_of(theirs, kind, size)
    signs = (1, -1) if signed else (1,)
    images, own, expected = pictures(size), [], []
    for magnitude, strength in zip(magnitudes, ours.strengths(size)[kind], strict=True):
        for sign in signs:
            own += [sign * strength] * len(images)
            expected += [by_torchvision(theirs, image, kind, sign * magnitude) for image in images]
    batch = images.repeat(MAGNITUDES * len(signs), 1, 1, 1)
    batch = batch.contiguous(memory_format=torch.channels_last)
    result = operate(batch, np.full((len(batch), 1), kind), np.array(own).reshape(-1, 1))
    assert result.dtype == torch.uint8
    assert result.is_contiguous(memory_format=torch.channels_last)
    difference = (result.int() - torch.stack(expected).int()).abs()
    if kind in BLENDED:
        assert difference.max() <= 1
    if kind in BLENDED | NEAR:
        assert (difference > 0).float().mean() < 0.001
    else:
        assert difference.max() == 0


@pytest.mark.parametrize("size", [32, 64, 224, 331, 384])
@pytest.mark.parametrize(("ours", "theirs"), POLICIES, ids=["trivial", "rand"])
def test_strengths_are_torchvisions_magnitudes(ours, theirs, size):
    table = ours.strengths(size)
    for kind in list(Operation)[Operation.SHEAR_X : Operation.POSTERIZE + 1]:
        magnitudes = magnitudes_of(theirs, kind, size)[0]
        if kind in {Operation.TRANSLATE_X, Operation.TRANSLATE_Y}:
            # torchvision passes whole pixels on; a float32 decides where 16 might be 15.99999.
            wrong = table[kind] != [int(value) for value in magnitudes]
            assert np.isclose(magnitudes, np.rint(magnitudes), atol=1e-5)[wrong].all()
        else:
            assert table[kind] == pytest.approx(magnitudes, abs=1e-7)


@pytest.mark.parametrize(("height", "width"), [(24, 40), (40, 24), (1, 1), (1, 9)])
def test_images_need_not_be_square(height, width):
    images = pictures(height, width)
    for kind in Operation:
        strength = 3.0 if kind is not Operation.SOLARIZE else 100.0
        if kind in {Operation.SHEAR_X, Operation.SHEAR_Y} or kind in BLENDED:
            strength = 0.3
        magnitude = strength / 255 if kind is Operation.SOLARIZE else strength
        expected = torch.stack([by_torchvision(POLICIES[0][1], i, kind, magnitude) for i in images])
        result = operate(images, np.full((6, 1), kind), np.full((6, 1), strength))
        difference = (result.int() - expected.int()).abs()
        assert (difference > (kind in BLENDED)).float().mean() < 0.002, kind


@pytest.mark.parametrize("part_bytes", [1, 10_000, 10**9])
def test_each_image_of_a_mixed_batch_gets_its_own_operations_in_turn(part_bytes, monkeypatch):
    monkeypatch.setattr(module, "_PART_BYTES", part_bytes)  # how many are worked on at a time
    theirs = v2.RandAugment()
    augment = Augment(size=32, auto=RandAugment(operations=3, magnitude=17))
    choices = drawn(augment, 120)
    assert choices.operations is not None
    assert choices.strengths is not None
    images = pictures(32).repeat(20, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    result = operate(images, choices.operations, choices.strengths)
    for image, kinds, strengths, found in zip(
        images, choices.operations, choices.strengths, result, strict=True
    ):
        expected = image
        for number, strength in zip(kinds.tolist(), strengths.tolist(), strict=True):
            magnitudes, _ = magnitudes_of(theirs, Operation(number), 32)
            sign = -1 if np.signbit(strength) else 1
            expected = by_torchvision(theirs, expected, Operation(number), sign * magnitudes[17])
        assert ((found.int() - expected.int()).abs() > 0).float().mean() < 0.01


def drawn(augment: Augment, count: int, *, seed: int = 0, epoch: int = 0, first: int = 0) -> Any:
    sizes = np.tile(np.array([[300, 400]], np.int64), (count, 1))
    return augment.draw(seed, epoch, np.arange(first, first + count, dtype=np.int64), sizes)


GOLDEN_OPERATIONS = [9, 10, 6, 6, 3, 2]
GOLDEN_STRENGTHS = [-0.957, 6.0, 0.99, -0.759, 11.0, 0.66]

TRIVIAL = Augment(size=32, auto=TrivialAugment())


def chi_square(counts: np.ndarray) -> float:
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum())


def test_operations_magnitudes_and_signs_are_uniform_and_independent():
    uniforms = np.random.default_rng(0).random((4, 3))
    assert TrivialAugment().draw(uniforms, 32)[0].shape == (4, 1)
    choices = drawn(TRIVIAL, 200_000)
    kinds, strengths = choices.operations[:, 0], choices.strengths[:, 0]
    # Limits: what chi-square with so many degrees of freedom exceeds once in a thousand times.
    assert chi_square(np.bincount(kinds, minlength=14)) < 34.5
    table = TrivialAugment().strengths(32)
    for kind in (Operation.ROTATE, Operation.SHARPNESS, Operation.SOLARIZE):
        own = strengths[kinds == kind]
        counts = [np.isclose(np.abs(own), value).sum() for value in table[kind]]
        assert sum(counts) == len(own)
        assert chi_square(np.array(counts)) < 59.7
    for kind in Operation:
        negative = np.signbit(strengths[kinds == kind]).mean()
        signed = Operation.SHEAR_X <= kind <= Operation.SHARPNESS
        assert abs(negative - 0.5 * signed) < (0.02 if signed else 1e-9)


def test_the_operations_of_randaugment_are_independent_and_have_one_magnitude():
    augment = Augment(size=32, auto=RandAugment(operations=2, magnitude=9))
    choices = drawn(augment, 100_000)
    pairs = choices.operations[:, 0] * 14 + choices.operations[:, 1]
    assert chi_square(np.bincount(pairs, minlength=196)) < 260.0
    expected = RandAugment().strengths(32)[choices.operations, 9]
    assert np.array_equal(np.abs(choices.strengths), expected)


def test_choices_depend_on_position_seed_and_epoch_alone():
    whole = drawn(TRIVIAL, 64)
    parts = [drawn(TRIVIAL, 16, first=first) for first in range(0, 64, 16)]
    for name in ("operations", "strengths"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert np.array_equal(joined, getattr(whole, name))
        for other in (drawn(TRIVIAL, 64, seed=1), drawn(TRIVIAL, 64, epoch=1)):
            assert not np.array_equal(getattr(other, name), getattr(whole, name))


def test_the_other_draws_are_as_they_were():
    options: dict[str, Any] = {
        "size": 32,
        "rotation": 10.0,
        "jitter": ColourJitter(brightness=0.3),
        "erasing": Erasing(),
        "mix": Mix(cutmix=1.0),
    }
    plain = drawn(Augment(**options), 64)
    for auto in (TrivialAugment(), RandAugment()):
        choices = drawn(Augment(**options, auto=auto), 64)
        for name in plain.__slots__:
            if name not in {"operations", "strengths"}:
                assert np.array_equal(getattr(choices, name), getattr(plain, name)), name


def test_golden_operations_guard_upgrades():
    choices = drawn(TRIVIAL, 6, seed=5, epoch=2, first=1000)
    assert choices.operations[:, 0].tolist() == GOLDEN_OPERATIONS
    assert choices.strengths[:, 0] == pytest.approx(GOLDEN_STRENGTHS)


def test_samples_that_are_left_out_take_their_operations_with_them():
    choices, kept = drawn(TRIVIAL, 5), np.array([True, False, True, True, False])
    few = choices.keep(kept)
    assert np.array_equal(few.operations, choices.operations[kept])
    assert np.array_equal(few.strengths, choices.strengths[kept])
    assert few.factors is None


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_operations_come_before_normalisation_and_change_nothing_that_is_passed_in(dtype):
    images, labels = pictures(32), torch.arange(6)
    before = images.clone()
    choices = drawn(TRIVIAL, 6)
    result, _ = augment_images(TRIVIAL, images, labels, choices, dtype=dtype)
    assert torch.equal(images, before)
    changed = operate(images, choices.operations, choices.strengths)
    plain = Augment(size=32)
    expected, _ = augment_images(plain, changed, labels, drawn(plain, 6), dtype=dtype)
    assert torch.equal(result, expected)
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_an_empty_batch_stays_empty():
    empty = pictures(32)[:0]
    assert (
        augment_images(TRIVIAL, empty, torch.arange(0), drawn(TRIVIAL, 0))[0].shape == empty.shape
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered(tmp_path_factory.mktemp("operations") / "shards", {"train": 40})


FULL = Augment(size=32, auto=RandAugment(), jitter=ColourJitter(hue=0.1), mix=Mix(cutmix=1.0))


def batches(shards: Path, augment: Augment, **options: Any) -> torch.Tensor:
    with Loader(shards, augment=augment, drop_last=False, seed=3, **options) as loader:
        return torch.cat([images.clone() for images, _ in loader])


@pytest.mark.parametrize("augment", [TRIVIAL, FULL], ids=["trivial", "full"])
def test_a_loader_gives_the_same_pixels_for_any_batch_size_and_threads(shards, augment):
    whole = batches(shards, augment, batch_size=40, num_threads=1)
    parts = batches(shards, augment, batch_size=8, num_threads=2)
    assert torch.equal(whole, parts)
    assert not torch.equal(whole, batches(shards, Augment(size=32), batch_size=40))


def test_a_loader_resumes_with_the_same_operations(shards):
    options: dict[str, Any] = {"batch_size": 8, "augment": TRIVIAL, "seed": 3}
    with Loader(shards, **options) as loader:
        iterator = iter(loader)
        next(iterator)
        state = loader.state_dict()
        expected = next(iterator)[0].clone()
    with Loader(shards, **options) as again:
        again.load_state_dict(state)
        assert torch.equal(next(iter(again))[0], expected)
    for other in (None, RandAugment(), RandAugment(magnitude=10)):
        changed = {**options, "augment": Augment(size=32, auto=other)}
        with Loader(shards, **changed) as third, pytest.raises(StateMismatchError, match="augment"):
            third.load_state_dict(state)


def test_a_state_from_before_there_was_auto_is_still_good():
    # What the loader's state holds of the augmentation, as it was written then.
    assert repr(Augment.train(1)) == (
        "Augment(size=1, crop=RandomResizedCrop(area=(0.08, 1.0), "
        "ratio=(0.75, 1.3333333333333333)), flip=0.5, rotation=0.0, jitter=None, erasing=None, "
        "mix=None, normalise=((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))"
    )
    assert "auto=RandAugment(operations=2, magnitude=9)" in repr(Augment(auto=RandAugment()))
    assert repr(Augment(auto=TrivialAugment())) != repr(Augment())


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (RandAugment, {"operations": 0}, ValueError, r"operations must be in \[1, 16\], got 0"),
        (RandAugment, {"operations": 1.5}, TypeError, "operations must be an integer .* got 1.5"),
        (RandAugment, {"magnitude": 31}, ValueError, r"magnitude must be in \[0, 30\], got 31"),
        (RandAugment, {"magnitude": True}, TypeError, "magnitude must be an integer .* got True"),
        (TrivialAugment, {"magnitude": 9}, TypeError, "magnitude"),
        (
            Augment,
            {"auto": "trivial"},
            TypeError,
            "auto must be TrivialAugment or RandAugment or None, got 'trivial'",
        ),
        (Augment, {"auto": TrivialAugment}, TypeError, "auto must be TrivialAugment or"),
    ],
)
def test_impossible_settings_are_refused(make, options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


def test_numpy_integers_are_integers():
    options: dict[str, Any] = {"operations": np.int64(1), "magnitude": np.uint8(5)}
    assert repr(RandAugment(**options)) == "RandAugment(operations=1, magnitude=5)"


@pytest.mark.gpu
def test_a_gpu_chooses_the_same_and_differs_by_rounding_only():
    choices = drawn(FULL, 120)
    images = pictures(32).repeat(20, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    here = operate(images, choices.operations, choices.strengths)
    on_gpu = images.cuda()
    with forbidden_to_wait():
        there = operate(on_gpu, choices.operations, choices.strengths)
    assert ((here.int() - there.cpu().int()).abs() > 1).float().mean() < 0.001
