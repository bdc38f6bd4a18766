"""Augment: draw the choices as values, then apply them, purely.

    draw    (seed, epoch, positions, image sizes) -> Choices        NumPy, no state
    crop    boxes and flips go to the decoder, which reads only what they cover
    apply   rotation -> colour -> normalise -> erase -> mix         torch, batched, on the device

Choices depend on the position in the epoch alone, never on threads, ranks or batch size. MixUp and
CutMix pair the positions 2k and 2k + 1, so that they too are the same however a global batch is
split over ranks, as long as each rank takes an even number of samples.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fastload import draw
from fastload.box import (
    ATTEMPTS,
    RANDOM_RESIZED_SLOTS,
    Boxes,
    attempted_sides,
    center_boxes,
    first_fit,
    random_boxes,
    random_resized_boxes,
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # the constants of torchvision's pre-trained weights
IMAGENET_STD = (0.229, 0.224, 0.225)

_JITTER_ORDERS = np.array(list(permutations(range(4))), np.int64)  # [24, 4]


def _check_interval(name: str, interval: tuple[float, float], low: float, high: float) -> None:
    if not (len(interval) == 2 and low <= interval[0] <= interval[1] <= high):
        raise ValueError(f"{name} must be an interval within [{low}, {high}], got {interval}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomResizedCrop:
    """A box of random area and ratio at a random place, as torchvision's.

    Attributes:
        area: Interval of the share of the image's area.
        ratio: Interval of width / height.
    """

    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        _check_interval("area", self.area, 1e-6, 1.0)
        _check_interval("ratio", self.ratio, 1e-3, 1e3)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomCrop:
    """Resize the shorter side, then crop a square at a random place.

    Attributes:
        fraction: Side of the crop over the resized shorter side: 224 / 256 for Resize(256) and
            RandomCrop(224). Given as a fraction, it holds for every output size.
    """

    fraction: float = 224 / 256

    def __post_init__(self) -> None:
        _check_interval("fraction", (self.fraction, 1.0), 1e-3, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CenterCrop:
    """Resize the shorter side, then crop a square in the middle.

    Attributes:
        fraction: Side of the crop over the resized shorter side.
    """

    fraction: float = 224 / 256

    def __post_init__(self) -> None:
        _check_interval("fraction", (self.fraction, 1.0), 1e-3, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourJitter:
    """Brightness, contrast, saturation, hue by random factors in a random order, as torchvision's.

    Attributes:
        brightness: The factor is uniform in [max(0, 1 - b), 1 + b].
        contrast: Likewise.
        saturation: Likewise.
        hue: The shift is uniform in [-hue, hue] of the colour circle; hue in [0, 0.5].
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            _check_interval(name, (getattr(self, name), math.inf), 0.0, math.inf)
        _check_interval("hue", (self.hue, 0.5), 0.0, 0.5)

    def factors(self, uniforms: NDArray[np.float64]) -> NDArray[np.float32]:
        """float32 [N, 4]: brightness, contrast, saturation factors and the shift of the hue."""
        spreads = np.array([self.brightness, self.contrast, self.saturation, self.hue])
        lows = np.maximum(1 - spreads, 0)
        lows[3] = -self.hue
        highs = 1 + spreads
        highs[3] = self.hue
        factors: NDArray[np.float32] = (lows + (highs - lows) * uniforms).astype(np.float32)
        return factors


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasing:
    """Random erasing (Zhong et al., AAAI 2020) with the colour of the mean, as torchvision's.

    Attributes:
        probability: Of erasing a box of an image.
        area: Interval of the box's share of the output's area.
        ratio: Interval of height / width of the box.
    """

    probability: float = 0.25
    area: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)

    def __post_init__(self) -> None:
        _check_interval("probability", (self.probability, 1.0), 0.0, 1.0)
        _check_interval("area", self.area, 1e-6, 1.0)
        _check_interval("ratio", self.ratio, 1e-3, 1e3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """MixUp (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019), with soft labels.

    An image is mixed with the one that stands next to it. Where both kinds are on, each pair draws
    one of them; each image draws its own share.

    Attributes:
        mixup: alpha of MixUp's Beta(alpha, alpha); 0 switches it off.
        cutmix: alpha of CutMix's Beta(alpha, alpha); 0 switches it off.
        probability: Of mixing an image at all.
    """

    mixup: float = 0.2
    cutmix: float = 0.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        _check_interval("mixup", (self.mixup, 100.0), 0.0, 100.0)
        _check_interval("cutmix", (self.cutmix, 100.0), 0.0, 100.0)
        _check_interval("probability", (self.probability, 1.0), 0.0, 1.0)
        if self.mixup == 0 and self.cutmix == 0:
            raise ValueError("mixup and cutmix must not both be 0; leave `mix` None instead")


Crop = RandomResizedCrop | RandomCrop | CenterCrop


@dataclass(frozen=True, slots=True)
class Choices:
    """What was drawn for N samples; None for what is switched off.

    Attributes:
        boxes: int32 [N, 4] = (top, left, height, width) of the stored image.
        flips: bool [N].
        factors: float32 [N, 4]: brightness, contrast, saturation, hue shift.
        orders: int64 [N, 4]: in which order those four are applied.
        angles: float32 [N], degrees, counter-clockwise.
        erased: int32 [N, 4] = (top, left, height, width) of the output; height 0 for none.
        partners: int64 [N]: with which sample of the batch each is mixed; itself for none.
        shares: float32 [N]: share of the sample itself, in [0, 1]; MixUp's.
        pasted: int32 [N, 4]: the box of the partner that CutMix pastes; height 0 for MixUp.
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

    def keep(self, kept: NDArray[np.bool_]) -> Choices:
        """The choices of some of the samples; where samples are left out nothing may be mixed."""
        if self.partners is not None:
            raise ValueError("a batch that is mixed cannot lose samples")
        parts = (self.boxes, self.flips, self.factors, self.orders, self.angles, self.erased)
        return Choices(*(None if part is None else part[kept] for part in parts))  # type: ignore[arg-type]  # boxes and flips are never None


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """All that happens to an image between the shard and the model.

    Attributes:
        size: Side of the square output in pixels.
        crop: Which box of the image is taken.
        flip: Probability of mirroring left and right.
        rotation: The angle is uniform in [-rotation, rotation] degrees; the corners become black.
        jitter: Changes of colour, or None.
        erasing: Random erasing, or None.
        mix: MixUp and CutMix, or None; labels then are float32 [N, classes].
        normalise: (mean, std) of the three channels in [0, 1], for floating-point batches.
    """

    size: int = 224
    crop: Crop = field(default_factory=RandomResizedCrop)
    flip: float = 0.5
    rotation: float = 0.0
    jitter: ColourJitter | None = None
    erasing: Erasing | None = None
    mix: Mix | None = None
    normalise: tuple[tuple[float, float, float], tuple[float, float, float]] = (
        IMAGENET_MEAN,
        IMAGENET_STD,
    )

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 8192:
            raise ValueError(f"size must be in [1, 8192], got {self.size}")
        _check_interval("flip", (self.flip, 1.0), 0.0, 1.0)
        _check_interval("rotation", (self.rotation, 180.0), 0.0, 180.0)
        if min(self.normalise[1]) <= 0:
            raise ValueError(f"std of normalise must be above 0, got {self.normalise[1]}")

    @classmethod
    def train(cls, size: int = 224) -> Augment:
        """RandomResizedCrop and flip: the ImageNet recipe."""
        return cls(size=size)

    @classmethod
    def eval(cls, size: int = 224) -> Augment:
        """The middle 7/8 of the shorter side: Resize(256) and CenterCrop(224), at any size."""
        return cls(size=size, crop=CenterCrop(), flip=0.0)

    @classmethod
    def plantnet(cls) -> Augment:
        """Pl@ntNet-300K's recipe (Garcin et al., NeurIPS 2021): Resize(256), RandomCrop(224)."""
        return cls(size=224, crop=RandomCrop(), flip=0.0)

    def resized(self, size: int) -> Augment:
        """The same with another output size."""
        return replace(self, size=size)

    @property
    def is_random(self) -> bool:
        """Whether two epochs differ."""
        fixed = isinstance(self.crop, CenterCrop) and self.flip == 0
        return not (fixed and self._crops_only)

    @property
    def _crops_only(self) -> bool:
        return not (self.rotation or self.jitter or self.erasing or self.mix)

    def boxes(
        self, seed: int, epoch: int, positions: NDArray[np.int64], sizes: NDArray[np.integer]
    ) -> Boxes:
        """The box of each sample.

        Args:
            seed: In [0, 2**63).
            epoch: In [0, 2**63).
            positions: int64 [N], positions in the global order of the epoch.
            sizes: [N, 2] = (height, width) of the stored images.

        Returns:
            int32 [N, 4] = (top, left, height, width).
        """
        crop = self.crop
        if isinstance(crop, RandomResizedCrop):
            slots = draw.uniforms(seed, epoch, positions, RANDOM_RESIZED_SLOTS, stream=draw.CROP)
            return random_resized_boxes(sizes, slots, area=crop.area, ratio=crop.ratio)
        if isinstance(crop, RandomCrop):
            slots = draw.uniforms(seed, epoch, positions, 2, stream=draw.CROP)
            return random_boxes(sizes, slots, resize=1.0, crop=crop.fraction)
        return center_boxes(sizes, resize=1.0, crop=crop.fraction)

    def draw(
        self, seed: int, epoch: int, positions: NDArray[np.int64], sizes: NDArray[np.integer]
    ) -> Choices:
        """All choices for the samples at some positions; arguments as for `boxes`."""
        count = len(positions)
        boxes = self.boxes(seed, epoch, positions, sizes)
        flips = np.zeros(count, np.bool_)
        if self.flip:
            flips = draw.uniforms(seed, epoch, positions, 1, stream=draw.FLIP)[:, 0] < self.flip
        if self._crops_only:
            return Choices(boxes, flips)
        factors = orders = angles = erased = partners = shares = pasted = None
        if self.jitter is not None:
            slots = draw.uniforms(seed, epoch, positions, 5, stream=draw.COLOUR)
            factors = self.jitter.factors(slots[:, :4])
            orders = _JITTER_ORDERS[(slots[:, 4] * len(_JITTER_ORDERS)).astype(np.int64)]
        if self.rotation:
            slots = draw.uniforms(seed, epoch, positions, 1, stream=draw.GEOMETRY)
            angles = ((2 * slots[:, 0] - 1) * self.rotation).astype(np.float32)
        if self.erasing is not None:
            slots = draw.uniforms(seed, epoch, positions, 2 * ATTEMPTS + 3, stream=draw.ERASE)
            erased = erased_boxes(self.erasing, self.size, slots)
        if self.mix is not None:
            slots = draw.uniforms(seed, epoch, positions, 4, stream=draw.MIX)
            kinds = draw.uniforms(seed, epoch, positions // 2, 5, stream=draw.MIX)[:, 4]
            partners = neighbours(positions)
            shares, pasted = mixed(self.mix, self.size, slots, kinds)
        return Choices(boxes, flips, factors, orders, angles, erased, partners, shares, pasted)


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
    """Where in the batch 2k + 1 stands for 2k, and 2k for 2k + 1; itself where it is not there.

    Args:
        positions: int64 [N], a run of positions.
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
        kinds: float64 [N] in [0, 1): MixUp or CutMix, equal for both of a pair.

    Returns:
        float32 [N] in [0, 1] and int32 [N, 4], height 0 for MixUp.
    """
    cut = kinds < (0.5 if mix.mixup and mix.cutmix else float(mix.cutmix > 0))
    shares = np.ones(len(uniforms))
    mixup = ~cut & (uniforms[:, 0] < mix.probability)
    cutmix = cut & (uniforms[:, 0] < mix.probability)
    if mix.mixup:
        shares[mixup] = symmetric_beta(mix.mixup, uniforms[mixup, 1])
    pasted = np.zeros((len(uniforms), 4), np.int32)
    if mix.cutmix:
        lengths = size * np.sqrt(1 - symmetric_beta(mix.cutmix, uniforms[cutmix, 1])) / 2
        centre = np.floor(uniforms[cutmix, 2:4] * size)
        first = np.clip(np.trunc(centre - lengths[:, None]), 0, size)
        last = np.clip(np.trunc(centre + lengths[:, None]), 0, size)
        pasted[cutmix] = np.concatenate([first, last - first], axis=1)
        shares[cutmix] = 1 - np.prod(last - first, axis=1) / size**2
    return shares.astype(np.float32), pasted


def symmetric_beta(alpha: float, uniforms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Beta(alpha, alpha) by inversion: one uniform number makes one value.

    The distribution function is tabulated over v = x**alpha in [0, 1/2**alpha], where its
    derivative (1 - v**(1/alpha))**(alpha - 1) / alpha has no pole; the upper half mirrors it.

    Args:
        alpha: Above 0.
        uniforms: float64 [N] in [0, 1).

    Returns:
        float64 [N] in [0, 1].
    """
    grid = np.linspace(0, 0.5**alpha, 4097)
    slope = (1 - grid ** (1 / alpha)) ** (alpha - 1)
    area = np.concatenate([[0], np.cumsum((slope[1:] + slope[:-1]) / 2)])
    lower = np.minimum(uniforms, 1 - uniforms)
    values = np.interp(lower, area / area[-1] / 2, grid) ** (1 / alpha)
    return np.where(uniforms < 0.5, values, 1 - values)


def apply(
    augment: Augment,
    images: Tensor,
    labels: Tensor,
    choices: Choices,
    *,
    dtype: torch.dtype = torch.uint8,
    num_classes: int = 0,
) -> tuple[Tensor, Tensor]:
    """Everything after the crop, batched, on the device of `images`.

    Args:
        augment: What was drawn.
        images: uint8 [N, 3, S, S], channels-last, cropped and flipped; not changed.
        labels: int64 [N], on the same device.
        choices: The draws.
        dtype: torch.uint8, or a floating-point type for normalised images.
        num_classes: Width of soft labels; needed when `augment.mix` is set.

    Returns:
        Images [N, 3, S, S] of `dtype`, channels-last, and the labels: int64 [N], or float32
        [N, num_classes] when `augment.mix` is set. `images` itself where nothing is to be done.
    """
    touched = augment.rotation or augment.jitter or augment.erasing or augment.mix
    if not touched and dtype == torch.uint8:
        return images, labels
    mean, std = (tuple(values) for values in augment.normalise)
    if not touched:
        # One multiplication and one addition per value.
        scale = _channels(tuple(1 / (255 * part) for part in std), images.device)
        shift = _channels(tuple(m / s for m, s in zip(mean, std, strict=True)), images.device)
        return (images * scale).sub_(shift).to(dtype), labels
    pixels = images.float().div_(255)
    pixels = _geometry_and_colour(pixels, choices)
    erased_with = mean
    if dtype != torch.uint8:
        pixels = pixels.sub_(_channels(mean, images.device)).div_(_channels(std, images.device))
        erased_with = (0.0, 0.0, 0.0)
    if choices.erased is not None:
        filling = _channels(erased_with, images.device)
        pixels = torch.where(box_masks(choices.erased, pixels), filling, pixels)
    if choices.partners is not None:
        pixels, labels = _mix(pixels, labels, choices, num_classes)
    if dtype == torch.uint8:
        pixels = pixels.mul(255).round_().clamp_(0, 255)
    return pixels.to(dtype, memory_format=torch.channels_last), labels


@functools.cache  # a few pairs a process; made anew for each batch, the GPU would be waited for
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).view(1, 3, 1, 1)


def _geometry_and_colour(pixels: Tensor, choices: Choices) -> Tensor:
    if choices.angles is not None:
        pixels = rotate(pixels, _move(choices.angles, pixels))
    if choices.factors is not None and choices.orders is not None:
        pixels = jitter(pixels, choices.factors, choices.orders)
    return pixels


def moved(values: NDArray[np.generic], device: torch.device) -> Tensor:
    """A small array as a tensor on the device, of the same shape and type.

    Through pinned memory on CUDA: from pageable memory, the copy would be waited for.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _move(values: NDArray[np.generic], like: Tensor) -> Tensor:
    return moved(values, like.device)


def box_masks(boxes: NDArray[np.int32], like: Tensor) -> Tensor:
    """Which pixels of `like` [N, C, H, W] lie in the box of their image: bool [N, 1, H, W]."""
    top, left, height, width = _move(boxes, like).view(-1, 4, 1, 1).unbind(1)
    rows = torch.arange(like.shape[2], device=like.device).view(1, -1, 1)
    columns = torch.arange(like.shape[3], device=like.device).view(1, 1, -1)
    inside = (rows >= top) & (rows < top + height)
    inside = inside & (columns >= left) & (columns < left + width)
    return inside.unsqueeze(1)


def rotate(pixels: Tensor, degrees: Tensor) -> Tensor:
    """Rotate counter-clockwise about the centre, bilinear, black outside: torchvision's `rotate`.

    Args:
        pixels: float32 [N, 3, H, W].
        degrees: float32 [N].
    """
    height, width = pixels.shape[2:]
    cosine, sine = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
    zero = torch.zeros_like(cosine)
    # affine_grid's coordinates run over [-1, 1] in both directions, whatever height and width.
    first = torch.stack([cosine, -sine * (height / width), zero], 1)
    second = torch.stack([sine * (width / height), cosine, zero], 1)
    grid = functional.affine_grid(
        torch.stack([first, second], 1), list(pixels.shape), align_corners=False
    )
    return functional.grid_sample(pixels, grid, padding_mode="zeros", align_corners=False)


def _grey(pixels: Tensor) -> Tensor:
    # ITU-R 601-2, the constants of torchvision's rgb_to_grayscale and Pillow's L.
    red, green, blue = pixels.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def _blend(pixels: Tensor, other: Tensor | float, factors: Tensor) -> Tensor:
    return (factors * pixels + (1 - factors) * other).clamp_(0, 1)


def adjust_brightness(pixels: Tensor, factors: Tensor) -> Tensor:
    """Blend with black. pixels float32 [N, 3, H, W] in [0, 1], factors float32 [N]."""
    return _blend(pixels, 0.0, factors.view(-1, 1, 1, 1))


def adjust_contrast(pixels: Tensor, factors: Tensor) -> Tensor:
    """Blend with its mean grey. pixels float32 [N, 3, H, W] in [0, 1], factors float32 [N]."""
    return _blend(pixels, _grey(pixels).mean((1, 2, 3), keepdim=True), factors.view(-1, 1, 1, 1))


def adjust_saturation(pixels: Tensor, factors: Tensor) -> Tensor:
    """Blend with grey. pixels float32 [N, 3, H, W] in [0, 1], factors float32 [N]."""
    return _blend(pixels, _grey(pixels), factors.view(-1, 1, 1, 1))


def adjust_hue(pixels: Tensor, shifts: Tensor) -> Tensor:
    """Turn the hue. pixels float32 [N, 3, H, W] in [0, 1], shifts float32 [N] in turns."""
    red, green, blue = pixels.unbind(1)
    value = pixels.amax(1)
    chroma = value - pixels.amin(1)
    safe = torch.where(chroma > 0, chroma, 1.0)
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = torch.remainder(hue / 6 + shifts.view(-1, 1, 1), 1.0) * 6
    # f(n) = V - C * clamp(min(k, 4 - k), 0, 1) with k = (n + H) mod 6, n = 5, 3, 1 for R, G, B.
    turned = []
    for channel in (5, 3, 1):
        sextant = torch.remainder(hue + channel, 6.0)
        turned.append(value - chroma * torch.minimum(sextant, 4 - sextant).clamp(0, 1))
    return torch.stack(turned, 1)


_ADJUSTMENTS = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)


def jitter(pixels: Tensor, factors: NDArray[np.float32], orders: NDArray[np.int64]) -> Tensor:
    """Apply the four adjustments to each image in its own order.

    Args:
        pixels: float32 [N, 3, H, W] in [0, 1]; overwritten.
        factors: float32 [N, 4].
        orders: int64 [N, 4], permutations of 0 (brightness), 1, 2, 3 (hue).

    Returns:
        `pixels`.
    """
    idle = np.array([1, 1, 1, 0], np.float32)
    for step in range(4):
        for kind, adjust in enumerate(_ADJUSTMENTS):
            chosen = np.flatnonzero((orders[:, step] == kind) & (factors[:, kind] != idle[kind]))
            if len(chosen):
                where = _move(chosen, pixels)
                pixels[where] = adjust(pixels[where], _move(factors[chosen, kind], pixels))
    return pixels


def _mix(
    pixels: Tensor, labels: Tensor, choices: Choices, num_classes: int
) -> tuple[Tensor, Tensor]:
    if choices.partners is None or choices.shares is None or choices.pasted is None:
        return pixels, labels
    partners, shares = _move(choices.partners, pixels), _move(choices.shares, pixels)
    # Where CutMix pastes, the pixels themselves are whole: only MixUp weighs them.
    weights = torch.where(_move(choices.pasted[:, 2] > 0, pixels), 1.0, shares).view(-1, 1, 1, 1)
    others = pixels[partners]
    blended = pixels * weights + others * (1 - weights)
    blended = torch.where(box_masks(choices.pasted, pixels), others, blended)
    # Not one_hot, which looks at the labels, and so waits for them.
    hard = torch.zeros(len(labels), num_classes, device=labels.device)
    hard.scatter_(1, labels.view(-1, 1), 1.0)
    soft = hard * shares.view(-1, 1) + hard[partners] * (1 - shares.view(-1, 1))
    return blended, soft
