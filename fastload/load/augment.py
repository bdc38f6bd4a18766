"""Augment: what is drawn for each sample; the choices are values, and `apply` carries them out.

    draw    (seed, epoch, positions, image sizes) -> Choices        NumPy, no state
    crop    boxes and flips go to the decoder, which reads only what they cover
            a transform of the caller's own: see `per_image`
    apply   operations -> rotation -> colour -> normalise -> erase -> mix
                                                                    torch, batched, on the device

The choices for a sample depend on its position in the epoch, never on threads, ranks or batch size.
MixUp and CutMix pair the positions 2k and 2k + 1. So mixed batches too do not depend on how a
global batch is split over ranks, as long as each rank takes an even number of samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from itertools import permutations
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastload import randomness
from fastload.arguments import (
    check_channels,
    check_integer,
    check_interval,
    check_kind,
    check_number,
    make_plain,
    shown,
)
from fastload.calls import explain_calls
from fastload.load.auto_augment import SLOTS, AutoAugment, RandAugment, TrivialAugment
from fastload.load.box import (
    ATTEMPTS,
    RANDOM_RESIZED_SLOTS,
    Boxes,
    Windows,
    attempted_sides,
    center_windows,
    first_fit,
    random_resized_boxes,
    random_windows,
)
from fastload.load.powers import power

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # the constants of torchvision's pre-trained weights
IMAGENET_STD = (0.229, 0.224, 0.225)

LARGEST_SIZE = 8192  # pixels; that of the native core
LEAST_STD = 1e-4

_JITTER_ORDERS = np.array(list(permutations(range(4))), np.int64)  # [24, 4]


@explain_calls()
@dataclass(frozen=True, slots=True, kw_only=True)
class RandomResizedCrop:
    """A box of random area and ratio at a random place, as torchvision's.

    Attributes:
        area: Interval of the box's share of the image's area.
        ratio: Interval of width / height.
    """

    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        make_plain(self)
        check_interval("area", self.area, 1e-6, 1)
        check_interval("ratio", self.ratio, 1e-3, 1e3)


@explain_calls()
@dataclass(frozen=True, slots=True, kw_only=True)
class RandomCrop:
    """Resize the shorter side, then crop a square at a random place: torchvision's two transforms.

    Attributes:
        fraction: Side of the crop over the resized shorter side: 224 / 256 for Resize(256) and
            RandomCrop(224). At another output size the shorter side becomes the whole number
            nearest to size / fraction: Resize(110), RandomCrop(96).
    """

    fraction: float = 224 / 256

    def __post_init__(self) -> None:
        make_plain(self)
        check_number("fraction", self.fraction, 1e-3, 1)


@explain_calls()
@dataclass(frozen=True, slots=True, kw_only=True)
class CenterCrop:
    """Resize the shorter side, then crop a square in the middle: torchvision's two transforms.

    Attributes:
        fraction: Side of the crop over the resized shorter side, as in `RandomCrop`.
    """

    fraction: float = 224 / 256

    def __post_init__(self) -> None:
        make_plain(self)
        check_number("fraction", self.fraction, 1e-3, 1)


@explain_calls()
@dataclass(frozen=True, slots=True, kw_only=True)
class ColourJitter:
    """Brightness, contrast, saturation, hue by random factors in a random order, as torchvision's.

    Attributes:
        brightness: The factor is uniform in [max(0, 1 - b), 1 + b]; b in [0, 255].
        contrast: The factor is uniform in [max(0, 1 - c), 1 + c]; c in [0, 255].
        saturation: The factor is uniform in [max(0, 1 - s), 1 + s]; s in [0, 255].
        hue: The shift is uniform in [-hue, hue] of the colour circle; hue in [0, 0.5].
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        make_plain(self)
        for name in ("brightness", "contrast", "saturation"):
            check_number(name, getattr(self, name), 0, 255)  # more leaves black and white only
        check_number("hue", self.hue, 0, 0.5)

    def factors(self, uniforms: NDArray[np.float64]) -> NDArray[np.float32]:
        """float32 [N, 4]: brightness, contrast, saturation factors and the shift of the hue."""
        spreads = np.array([self.brightness, self.contrast, self.saturation, self.hue])
        lows = np.maximum(1 - spreads, 0)
        lows[3] = -self.hue
        highs = 1 + spreads
        highs[3] = self.hue
        factors: NDArray[np.float32] = (lows + (highs - lows) * uniforms).astype(np.float32)
        return factors


@explain_calls()
@dataclass(frozen=True, slots=True, kw_only=True)
class Erasing:
    """Random erasing (Zhong et al., AAAI 2020) with the colour of the mean, as torchvision's.

    Attributes:
        probability: Probability that a box of an image is erased.
        area: Interval of the box's share of the output's area.
        ratio: Interval of height / width of the box.
    """

    probability: float = 0.25
    area: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)

    def __post_init__(self) -> None:
        make_plain(self)
        check_number("probability", self.probability, 0, 1)
        check_interval("area", self.area, 1e-6, 1)
        check_interval("ratio", self.ratio, 1e-3, 1e3)


@explain_calls()
@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """MixUp (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019), with soft labels.

    An image is mixed with the one that stands next to it. Where both kinds are on, each pair draws
    one of them; each image draws its own share.

    Attributes:
        mixup: alpha of MixUp's Beta(alpha, alpha); 0 switches it off.
        cutmix: alpha of CutMix's Beta(alpha, alpha); 0 switches it off.
        probability: Probability that an image is mixed.
    """

    mixup: float = 0.2
    cutmix: float = 0.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        make_plain(self)
        check_number("mixup", self.mixup, 0, 100)
        check_number("cutmix", self.cutmix, 0, 100)
        check_number("probability", self.probability, 0, 1)
        if self.mixup == 0 and self.cutmix == 0:
            raise ValueError("mixup and cutmix must not both be 0; leave `mix` None instead")


Crop = RandomResizedCrop | RandomCrop | CenterCrop


def _check_size(size: object) -> None:
    if isinstance(size, tuple) and len(set(size)) == 1:
        raise TypeError(f"size is the side of a square, one number: {size[0]}, got {shown(size)}")
    check_integer("size", size, 1, LARGEST_SIZE)


def _check_normalise(normalise: object) -> None:
    if not (isinstance(normalise, tuple | list) and len(normalise) == 2):
        raise TypeError(f"normalise must be a pair (mean, std), got {shown(normalise)}")
    mean, std = normalise
    # Of pixels in [0, 255] images would be of nearly one colour; float16 ends at 65504.
    for name, values, least in (("mean", mean, 0), ("std", std, LEAST_STD)):
        check_channels(f"{name} of normalise", values)
        if not least <= min(values) <= max(values) <= 1:
            raise ValueError(
                f"{name} of normalise must be in [{least:g}, 1], as of pixels in [0, 1], got"
                f" {shown(values)}"
            )


@dataclass(frozen=True, slots=True)
class Choices:
    """What was drawn for N samples; a field is None where its augmentation is switched off.

    Attributes:
        boxes: int32 [N, 4] = (top, left, height, width) in pixels of the stored image: what is read
            of it.
        flips: bool [N].
        factors: float32 [N, 4]: brightness, contrast, saturation, hue shift.
        orders: int64 [N, 4]: in which order the four adjustments are applied.
        angles: float32 [N], degrees, counter-clockwise.
        erased: int32 [N, 4] = (top, left, height, width) in pixels of the output; height 0 where
            nothing is erased.
        partners: int64 [N]: the sample of the batch that each sample is mixed with; the sample
            itself where it is not mixed.
        shares: float32 [N]: share of the sample itself in the mixture, in [0, 1].
        pasted: int32 [N, 4]: the box of the partner that CutMix pastes; height 0 for MixUp.
        operations: int64 [N, K], members of `Operation`: what is done to each image, in turn.
        strengths: float64 [N, K], how strongly.
        windows: float64 [N, 4] = (top, left, height, width) in pixels from the corner of the box:
            what becomes the output; None where all of each box does.
    """

    boxes: Boxes
    flips: NDArray[np.bool_]
    factors: NDArray[np.float32] | None = None
    orders: NDArray[np.int64] | None = None
    angles: NDArray[np.float32] | None = None
    erased: NDArray[np.int32] | None = None
    partners: NDArray[np.int64] | None = None
    shares: NDArray[np.float32] | None = None
    pasted: NDArray[np.int32] | None = None
    operations: NDArray[np.int64] | None = None
    strengths: NDArray[np.float64] | None = None
    windows: Windows | None = None

    def keep(self, kept: NDArray[np.bool_]) -> Choices:
        """The choices of some of the samples; samples of a mixed batch cannot be left out."""
        if self.partners is not None:
            raise ValueError("a batch that is mixed cannot lose samples")
        drawn = {name: getattr(self, name) for name in self.__slots__}
        return Choices(
            **{name: values[kept] for name, values in drawn.items() if values is not None}
        )


@explain_calls()
@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """All that happens to an image between the shard and the model.

    Attributes:
        size: Side of the square output in pixels.
        crop: Which box of the image is taken.
        flip: Probability of mirroring left and right.
        auto: TrivialAugment or RandAugment, on the pixels of the crop, or None.
        rotation: The angle is uniform in [-rotation, rotation] degrees; the corners become black.
        jitter: Changes of colour, or None.
        erasing: Random erasing, or None.
        mix: MixUp and CutMix, or None; labels then are float32 [N, classes].
        normalise: (mean, std) of the three channels in [0, 1], for floating-point batches.
    """

    size: int = 224
    crop: Crop = field(default_factory=RandomResizedCrop)
    flip: float = 0.5
    auto: AutoAugment | None = None
    rotation: float = 0.0
    jitter: ColourJitter | None = None
    erasing: Erasing | None = None
    mix: Mix | None = None
    normalise: tuple[tuple[float, float, float], tuple[float, float, float]] = (
        IMAGENET_MEAN,
        IMAGENET_STD,
    )

    def __post_init__(self) -> None:
        make_plain(self)
        _check_size(self.size)
        check_kind("crop", self.crop, RandomResizedCrop, RandomCrop, CenterCrop)
        check_number("flip", self.flip, 0, 1)
        check_kind("auto", self.auto, TrivialAugment, RandAugment, NoneType)
        check_number("rotation", self.rotation, 0, 180)
        check_kind("jitter", self.jitter, ColourJitter, NoneType)
        check_kind("erasing", self.erasing, Erasing, NoneType)
        check_kind("mix", self.mix, Mix, NoneType)
        _check_normalise(self.normalise)

    def __repr__(self) -> str:
        # A loader's state has it, and those that were saved before there was `auto` are still good.
        shown = [part.name for part in fields(self) if part.name != "auto" or self.auto is not None]
        return f"Augment({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    @classmethod
    def train(cls, size: int = 224, **options: Any) -> Augment:  # noqa: ANN401  the fields' types
        """RandomResizedCrop and flip: the ImageNet recipe; `options` are other fields."""
        return cls(size=size, **options)

    @classmethod
    def eval(cls, size: int = 224, **options: Any) -> Augment:  # noqa: ANN401
        """Torchvision's Resize(256), CenterCrop(224); at other sizes the same share, 7/8."""
        return cls(size=size, **{"crop": CenterCrop(), "flip": 0.0, **options})

    @classmethod
    def plantnet(cls, size: int = 224, **options: Any) -> Augment:  # noqa: ANN401
        """Pl@ntNet-300K's recipe (Garcin et al., NeurIPS 2021): Resize(256), RandomCrop(224)."""
        return cls(size=size, **{"crop": RandomCrop(), "flip": 0.0, **options})

    def resized(self, size: int) -> Augment:
        """This augmentation with another output size."""
        return replace(self, size=size)

    @property
    def _crops_only(self) -> bool:
        return not (self.rotation or self.jitter or self.erasing or self.mix or self.auto)

    def views(
        self, seed: int, epoch: int, positions: NDArray[np.int64], sizes: NDArray[np.integer]
    ) -> tuple[Boxes, Windows | None]:
        """Which part of each sample becomes the output.

        Args:
            seed: In [0, 2**63).
            epoch: In [0, 2**63).
            positions: int64 [N], positions in the global order of the epoch.
            sizes: [N, 2] = (height, width) of the stored images.

        Returns:
            The fields `boxes` and `windows` of `Choices`.
        """
        crop = self.crop
        if isinstance(crop, RandomResizedCrop):
            slots = randomness.uniforms(
                seed, epoch, positions, RANDOM_RESIZED_SLOTS, stream=randomness.CROP
            )
            return random_resized_boxes(sizes, slots, area=crop.area, ratio=crop.ratio), None
        if isinstance(crop, RandomCrop):
            slots = randomness.uniforms(seed, epoch, positions, 2, stream=randomness.CROP)
            return random_windows(sizes, slots, size=self.size, fraction=crop.fraction)
        return center_windows(sizes, size=self.size, fraction=crop.fraction)

    def draw(
        self, seed: int, epoch: int, positions: NDArray[np.int64], sizes: NDArray[np.integer]
    ) -> Choices:
        """All choices for the samples at some positions; the arguments are those of `views`."""
        count = len(positions)
        boxes, windows = self.views(seed, epoch, positions, sizes)
        flips = np.zeros(count, np.bool_)
        if self.flip:
            flips = (
                randomness.uniforms(seed, epoch, positions, 1, stream=randomness.FLIP)[:, 0]
                < self.flip
            )
        if self._crops_only:
            return Choices(boxes, flips, windows=windows)
        factors = orders = angles = erased = partners = shares = pasted = None
        operations = strengths = None
        if self.auto is not None:
            slots = randomness.uniforms(
                seed, epoch, positions, SLOTS * self.auto.operations, stream=randomness.OPERATION
            )
            operations, strengths = self.auto.draw(slots, self.size)
        if self.jitter is not None:
            slots = randomness.uniforms(seed, epoch, positions, 5, stream=randomness.COLOUR)
            factors = self.jitter.factors(slots[:, :4])
            orders = _JITTER_ORDERS[(slots[:, 4] * len(_JITTER_ORDERS)).astype(np.int64)]
        if self.rotation:
            slots = randomness.uniforms(seed, epoch, positions, 1, stream=randomness.GEOMETRY)
            angles = ((2 * slots[:, 0] - 1) * self.rotation).astype(np.float32)
        if self.erasing is not None:
            slots = randomness.uniforms(
                seed, epoch, positions, 2 * ATTEMPTS + 3, stream=randomness.ERASE
            )
            erased = erased_boxes(self.erasing, self.size, slots)
        if self.mix is not None:
            slots = randomness.uniforms(seed, epoch, positions, 4, stream=randomness.MIX)
            kinds = randomness.uniforms(seed, epoch, positions // 2, 5, stream=randomness.MIX)[:, 4]
            partners = neighbours(positions)
            shares, pasted = mixed(self.mix, self.size, slots, kinds)
        return Choices(
            boxes=boxes,
            flips=flips,
            factors=factors,
            orders=orders,
            angles=angles,
            erased=erased,
            partners=partners,
            shares=shares,
            pasted=pasted,
            operations=operations,
            strengths=strengths,
            windows=windows,
        )


def erased_boxes(erasing: Erasing, size: int, uniforms: NDArray[np.float64]) -> NDArray[np.int32]:
    """Boxes with the distribution of torchvision's `RandomErasing`.

    Args:
        erasing: What to draw.
        size: Side of the image.
        uniforms: float64 [N, 23] in [0, 1).

    Returns:
        int32 [N, 4] = (top, left, height, width); height 0 where nothing is erased.
    """
    count = len(uniforms)
    sizes = np.full((count, 2), size, np.int64)
    inverse = (1 / erasing.ratio[1], 1 / erasing.ratio[0])  # ours is width / height
    sides = attempted_sides(sizes, uniforms[:, : 2 * ATTEMPTS], area=erasing.area, ratio=inverse)
    chosen, found = first_fit((sides[0] < size) & (sides[1] < size))
    rows = np.arange(count)
    found &= uniforms[:, -1] < erasing.probability
    height = np.where(found, sides[0][rows, chosen], 0)
    width = np.where(found, sides[1][rows, chosen], 0)
    top = np.floor(uniforms[:, -3] * (size - height + 1))
    left = np.floor(uniforms[:, -2] * (size - width + 1))
    return np.stack([top, left, height, width], axis=1).astype(np.int32)


def neighbours(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """The partner of each sample: positions 2k and 2k + 1 are partners.

    Args:
        positions: int64 [N], consecutive positions in the epoch.

    Returns:
        int64 [N], places in the batch; a sample whose partner is in another batch has itself.
    """
    here = np.arange(len(positions), dtype=np.int64)
    there = here + np.where(positions % 2 == 0, 1, -1)
    return np.where((there >= 0) & (there < len(positions)), there, here)


def mixed(
    mix: Mix, size: int, uniforms: NDArray[np.float64], kinds: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The share of each sample in its own mixture, and the box that CutMix pastes.

    Args:
        mix: What to draw.
        size: Side of the image.
        uniforms: float64 [N, 4] in [0, 1): whether, share, centre of the box.
        kinds: float64 [N] in [0, 1): MixUp or CutMix, the same number for both of a pair.

    Returns:
        Shares, float32 [N] in [0, 1], and boxes, int32 [N, 4], of height 0 for MixUp.
    """
    cut = kinds < (0.5 if mix.mixup and mix.cutmix else float(mix.cutmix > 0))
    shares = np.ones(len(uniforms))
    mixup = ~cut & (uniforms[:, 0] < mix.probability)
    cutmix = cut & (uniforms[:, 0] < mix.probability)
    if mix.mixup:
        shares[mixup] = symmetric_beta(mix.mixup, uniforms[mixup, 1])
    pasted = np.zeros((len(uniforms), 4), np.int32)
    if mix.cutmix:
        pasted[cutmix] = pasted_boxes(
            size, symmetric_beta(mix.cutmix, uniforms[cutmix, 1]), uniforms[cutmix, 2:4]
        )
        shares[cutmix] = 1 - np.prod(pasted[cutmix, 2:], axis=1) / size**2
    return shares.astype(np.float32), pasted


def pasted_boxes(
    size: int, shares: NDArray[np.float64], uniforms: NDArray[np.float64]
) -> NDArray[np.int32]:
    """Boxes that leave about `shares` of an image, where torchvision's `CutMix` puts them.

    Half a side is rounded down to whole pixels; what lies outside the image is cut off.

    Args:
        size: Side of the image.
        shares: float64 [N] in [0, 1].
        uniforms: float64 [N, 2] in [0, 1): row and column of the centre.

    Returns:
        int32 [N, 4] = (top, left, height, width), inside the image; perhaps empty.
    """
    halves = np.trunc(0.5 * np.sqrt(1 - shares) * size)[:, None]
    centres = np.floor(uniforms * size)
    first = np.maximum(centres - halves, 0)
    last = np.minimum(centres + halves, size)
    return np.concatenate([first, last - first], axis=1).astype(np.int32)


def symmetric_beta(alpha: float, uniforms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Beta(alpha, alpha) by inversion: one uniform number makes one value.

    The distribution function is tabulated over v = x**r, x in [0, 1/2]; the upper half mirrors it.
    Below alpha = 1 its derivative over x has a pole at 0, and just above it is steep there; over
    x**alpha it is neither. For larger alpha the points of x**alpha would crowd at 1/2 (of alpha =
    16 all lie above 0.29), and over x the derivative is smooth.

    Args:
        alpha: Above 0.
        uniforms: float64 [N] in [0, 1).

    Returns:
        float64 [N] in [0, 1].
    """
    alpha = max(alpha, 1e-6)  # below, nearly all are 0 or 1, and 1 / alpha may overflow
    areas, grid = _beta_table(alpha)
    lower = np.minimum(uniforms, 1 - uniforms)
    # Not np.interp: a processor that multiplies and adds in one step rounds its sums otherwise.
    cell = np.searchsorted(areas[1:-1], lower, side="right")
    width = np.maximum(areas[cell + 1] - areas[cell], np.finfo(np.float64).tiny)
    part = (lower - areas[cell]) / width
    values = power(grid[cell] + part * (grid[cell + 1] - grid[cell]), 1 / _root(alpha))
    return np.where(uniforms < 0.5, values, 1 - values)


def _root(alpha: float) -> float:
    return alpha if alpha < 2 else 1.0


@lru_cache(maxsize=8)
def _beta_table(alpha: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The distribution function of `symmetric_beta`, in [0, 1/2], and the v that it is of."""
    grid = np.linspace(0, 1, 4097) * power(0.5, _root(alpha))
    x = power(grid, 1 / _root(alpha))
    slope = power(1 - x, alpha - 1)
    if _root(alpha) != alpha:
        slope = slope * power(x, alpha - 1)
    area = np.concatenate([[0], np.cumsum((slope[1:] + slope[:-1]) / 2)])
    return area / area[-1] / 2, grid
