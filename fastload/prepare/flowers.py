"""The painter behind `python -m fastload.sample`: flowers of ten species.

Each picture is computed, not photographed: petals in polar coordinates around a tilted centre, over
blurred foliage, under varying light, with grain. Species differ in number, outline and markings of
their petals and in their centre; colours overlap between species.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Plane = NDArray[np.float32]  # [H, W]
Planes = NDArray[np.float32]  # [3, H, W]


@dataclass(frozen=True, slots=True)
class Species:
    """What distinguishes one species; lengths are fractions of the flower's radius.

    Attributes:
        name: Name of the class folder.
        petals: Number of petals.
        width: Half of a petal's greatest width.
        peak: Where along the petal it is widest, in (0, 1).
        tip: Shape of the tip: above 1 pointed, below 1 blunt.
        notch: Depth of the cleft in the tip.
        centre: Radius of the centre.
        colours: Colours of petals as (hue, saturation, value) in [0, 1]; each flower draws one.
        heart: Colour of the centre, (hue, saturation, value) in [0, 1].
        marking: "plain", "veins", "spots" or "eye", a dark ring at the petals' base.
    """

    name: str
    petals: int
    width: float
    peak: float
    tip: float
    notch: float
    centre: float
    colours: tuple[tuple[float, float, float], ...]
    heart: tuple[float, float, float]
    marking: str = "plain"


# fmt: off
_WHITE, _PINK, _YELLOW = (0.15, 0.04, 0.95), (0.93, 0.42, 0.92), (0.14, 0.85, 0.95)
_GOLD, _PURPLE, _BLUE = (0.12, 0.9, 0.85), (0.78, 0.5, 0.8), (0.63, 0.68, 0.85)
_RED, _ORANGE, _GREEN = (0.99, 0.85, 0.82), (0.06, 0.85, 0.95), (0.22, 0.5, 0.65)
_BROWN, _BLACK = (0.07, 0.65, 0.3), (0.8, 0.3, 0.14)

_TABLE: tuple[tuple[Any, ...], ...] = (
    ("ox-eye daisy", 21, 0.12, 0.65, 0.5, 0.0, 0.27, (_WHITE, _WHITE, _PINK), _GOLD, "plain"),
    ("buttercup", 5, 0.42, 0.62, 0.5, 0.0, 0.16, (_YELLOW, _GOLD), _GREEN, "veins"),
    ("corn poppy", 4, 0.66, 0.68, 0.4, 0.0, 0.15, (_RED, _RED, _ORANGE), _BLACK, "eye"),
    ("tiger lily", 6, 0.23, 0.50, 1.3, 0.0, 0.07, (_ORANGE, _PINK, _YELLOW), _BROWN, "spots"),
    ("dog rose", 5, 0.45, 0.72, 0.45, 0.14, 0.15, (_PINK, _WHITE), _YELLOW, "plain"),
    ("cornflower", 11, 0.20, 0.85, 0.6, 0.26, 0.22, (_BLUE, _PURPLE), _PURPLE, "veins"),
    ("sunflower", 28, 0.12, 0.50, 1.4, 0.0, 0.45, (_YELLOW, _ORANGE), _BROWN, "plain"),
    ("clematis", 8, 0.26, 0.55, 1.2, 0.0, 0.14, (_PURPLE, _BLUE, _WHITE), _YELLOW, "veins"),
    ("hypericum", 5, 0.21, 0.58, 0.9, 0.0, 0.19, (_YELLOW, _YELLOW), _ORANGE, "plain"),
    ("cosmos", 8, 0.33, 0.85, 0.4, 0.10, 0.17, (_PINK, _PURPLE, _RED), _GOLD, "eye"),
)
# fmt: on
SPECIES = tuple(Species(*row) for row in _TABLE)


def draw_flower(species: Species, rng: np.random.Generator) -> Image.Image:
    """One photograph-like picture of a species, 300 to 700 pixels a side."""
    long_side = int(np.clip(rng.normal(500, 80), 360, 700))
    height, width = long_side, max(300, int(long_side * rng.uniform(0.66, 0.85)))
    if rng.random() < 0.7:
        height, width = width, height
    canvas = _foliage(height, width, rng)
    colour = species.colours[rng.integers(len(species.colours))]
    radius = min(height, width) * rng.uniform(0.26, 0.46)
    for _ in range(int(rng.choice([0, 0, 1, 2]))):  # others of its kind behind it, out of focus
        centre = rng.uniform(0, height), rng.uniform(0, width)
        _add_flower(canvas, species, colour, (*centre, radius * rng.uniform(0.3, 0.6)), rng)
    if rng.random() < 0.6:
        blur = ImageFilter.GaussianBlur(rng.uniform(1.0, 3.0))
        canvas = _to_planes(_to_image(canvas).filter(blur))
    centre = height * rng.uniform(0.38, 0.62), width * rng.uniform(0.38, 0.62)
    _add_flower(canvas, species, colour, (*centre, radius), rng)
    return _photograph(canvas, rng)


def _foliage(height: int, width: int, rng: np.random.Generator) -> Planes:
    """A blurred background, float32 [3, H, W] in [0, 1]: leaves, stems, soil and spots of light."""
    small_height, small_width = height // 4 + 1, width // 4 + 1
    hue = rng.choice([0.25, 0.28, 0.33, 0.1, 0.55], p=[0.3, 0.3, 0.2, 0.13, 0.07])
    base = _rgb((hue + rng.normal(0, 0.02), rng.uniform(0.3, 0.65), rng.uniform(0.2, 0.55)))
    field = sum(
        _noise(small_height, small_width, cells, rng) / strength
        for cells, strength in ((3, 1.0), (8, 2.0), (24, 3.0))
    )
    canvas = base * (1 + 0.45 * np.asarray(field, np.float32))
    y, x = np.mgrid[0:small_height, 0:small_width].astype(np.float32)
    for _ in range(int(rng.integers(4, 14))):  # leaves and blades of grass
        angle, length = rng.uniform(0, math.pi), rng.uniform(0.15, 0.9) * small_width
        cy, cx = rng.uniform(0, small_height), rng.uniform(0, small_width)
        along = (x - cx) * math.cos(angle) + (y - cy) * math.sin(angle)
        across = (y - cy) * math.cos(angle) - (x - cx) * math.sin(angle)
        slim = length * rng.uniform(0.03, 0.22)
        inside = 1 - (along / length) ** 2 - (across / slim) ** 2
        cover = np.clip(inside * 3, 0, 1) * rng.uniform(0.4, 0.9)
        leaf = _rgb((hue + rng.normal(0, 0.04), rng.uniform(0.3, 0.7), rng.uniform(0.15, 0.7)))
        shade = 1 - 0.35 * np.exp(-((across / (0.12 * slim)) ** 2))  # the midrib
        canvas += cover * (leaf * shade - canvas)
    image = _to_image(canvas).filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 2.5)))
    return _to_planes(image.resize((width, height), Image.Resampling.BICUBIC))


def _noise(height: int, width: int, cells: int, rng: np.random.Generator) -> Plane:
    """Smooth noise of unit size, float32 [H, W], about `cells` bumps wide."""
    grid = rng.standard_normal((cells, cells + 1)).astype(np.float32)
    image = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32)


def _add_flower(
    canvas: Planes,
    species: Species,
    colour: tuple[float, float, float],
    place: tuple[float, float, float],
    rng: np.random.Generator,
) -> None:
    """Paint a flower at (y, x, radius) onto float32 [3, H, W], in place."""
    cy, cx, radius = place
    reach = radius * 1.25
    top, bottom = max(0, int(cy - reach)), min(canvas.shape[1], int(cy + reach) + 1)
    left, right = max(0, int(cx - reach)), min(canvas.shape[2], int(cx + reach) + 1)
    if bottom - top < 8 or right - left < 8:
        return
    region = canvas[:, top:bottom, left:right]
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    turn, tilt = rng.uniform(0, 2 * math.pi), rng.uniform(0.62, 1.0)
    cos, sin = math.cos(turn), math.sin(turn)
    u = ((x - cx) * cos + (y - cy) * sin) / radius
    v = ((y - cy) * cos - (x - cx) * sin) / (radius * tilt)
    distance = np.hypot(u, v)
    shadow = np.clip(1.15 - np.hypot(u - 0.06, v - 0.1), 0, 1)
    region *= 1 - 0.5 * np.clip(shadow * 2, 0, 1)
    _add_petals(region, species, colour, (u, v, distance), 1.5 / radius, rng)
    _add_centre(region, species, (u, v, distance), 1.5 / radius, rng)


def _add_petals(
    region: Planes,
    species: Species,
    colour: tuple[float, float, float],
    polar: tuple[Plane, Plane, Plane],
    soft: float,
    rng: np.random.Generator,
) -> None:
    """Each pixel lies on the petal before it or the one after it, or both: that one is on top."""
    u, v, distance = polar
    count = species.petals
    turns = np.arctan2(v, u) * np.float32(count / (2 * np.pi))
    lengths = rng.uniform(0.86, 1.0, count).astype(np.float32)
    leans = rng.normal(0, 0.07, count).astype(np.float32)
    lights = rng.uniform(0.85, 1.08, count).astype(np.float32)
    hue, saturation, value = colour
    fresh = (hue + rng.normal(0, 0.012), np.clip(saturation * rng.uniform(0.8, 1.2), 0, 1), value)
    base, edge = (
        _rgb(fresh),
        _rgb((fresh[0], fresh[1] * rng.uniform(0.5, 0.9), min(1.0, value * 1.06))),
    )
    phase = rng.uniform(0, 6.28)
    for offset in (0, 1):
        petal = np.floor(turns).astype(np.int32) + offset
        which = petal % count
        angle = (turns - petal + leans[which]) * np.float32(2 * np.pi / count)
        along = distance * np.cos(angle) / lengths[which]
        across = distance * np.sin(angle)
        depth = _outline(species, along) - np.abs(across)
        cover = np.clip(depth / soft, 0, 1)
        light = lights[which] * (0.72 + 0.38 * np.clip(along, 0, 1))
        light *= 1 - 0.3 * np.exp(-np.maximum(depth, 0) / 0.035)  # the rim is in shade
        light *= _marking(species, along, across, phase)
        petals = (base + (edge - base) * np.clip(along, 0, 1)) * light
        region += cover * (petals - region)


def _outline(species: Species, along: Plane) -> Plane:
    """Half the width of a petal at each distance from its base; negative outside."""
    rise = np.clip(along / species.peak, 0, 1)
    fall = np.clip((1 - along) / (1 - species.peak), 0, 1)
    width = species.width * np.sqrt(rise) * fall**species.tip
    if species.notch:  # the cleft: width is lost in the middle, so the tip splits
        width = np.where(along > 1 - species.notch * 0.5, width * 0.55, width)
    return np.where((along > 0) & (along < 1), width, -1).astype(np.float32)


def _marking(species: Species, along: Plane, across: Plane, phase: float) -> Plane:
    """How light each point of a petal is."""
    shade: Any
    if species.marking == "veins":
        shade = 0.13 * (np.sin(across * 90 / (0.4 + along) + phase) > 0.3)
    elif species.marking == "spots":
        spots = np.sin(along * 42 + phase) * np.sin(across * 60 + along * 9)
        shade = 0.6 * ((spots > 0.5) & (along < 0.75))
    elif species.marking == "eye":
        shade = 0.75 * np.exp(-(((along - 0.2) / 0.13) ** 2))
    else:  # a crease along the middle
        shade = 0.12 * np.exp(-((across / 0.015) ** 2))
    return np.asarray(1 - shade, np.float32)


def _add_centre(
    region: Planes,
    species: Species,
    polar: tuple[Plane, Plane, Plane],
    soft: float,
    rng: np.random.Generator,
) -> None:
    size = species.centre * rng.uniform(0.88, 1.12)
    inside = polar[2] < size
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return
    high, wide = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    region, (u, v, distance) = region[:, high, wide], (plane[high, wide] for plane in polar)
    cover = np.clip((size - distance) / soft, 0, 1)
    florets = np.sin(distance * 95 + rng.uniform(0, 6)) * np.sin(np.arctan2(v, u) * 21)
    light = 0.8 + 0.22 * florets + 0.25 * np.clip(1 - distance / size, 0, 1) - 0.4 * (u + v)
    region += cover * (_rgb(species.heart) * light - region)


def _photograph(canvas: Planes, rng: np.random.Generator) -> Image.Image:
    """Light, white balance and grain."""
    height, width = canvas.shape[1:]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    angle = rng.uniform(0, 2 * math.pi)
    light = rng.uniform(0.75, 1.2) * (
        1 + rng.uniform(0, 0.25) * (x * math.cos(angle) + y * math.sin(angle))
    )
    light -= rng.uniform(0, 0.18) * (x * x + y * y)
    balance = rng.normal(1, 0.04, (3, 1, 1)).astype(np.float32)
    grain = rng.standard_normal((height, width), np.float32) * np.float32(rng.uniform(0.012, 0.05))
    texture = rng.standard_normal((height // 2 + 1, width // 2 + 1), np.float32)
    coarse = Image.fromarray(texture).resize((width, height), Image.Resampling.BILINEAR)
    grain += np.asarray(coarse, np.float32) * np.float32(rng.uniform(0.01, 0.035))
    return _to_image(canvas * light * balance + grain)


def _to_image(planes: Planes) -> Image.Image:
    pixels = (np.clip(planes, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def _to_planes(image: Image.Image) -> Planes:
    pixels = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
    return pixels * np.float32(1 / 255)


def _rgb(colour: tuple[float, float, float]) -> Planes:
    """HSV in [0, 1] to float32 [3, 1, 1] in [0, 1] (Smith, "Color gamut transform pairs", 1978)."""
    hue, saturation, value = colour
    sectors = [(start + 6 * hue) % 6 for start in (5, 3, 1)]
    ramps = [min(max(min(sector, 4 - sector), 0.0), 1.0) for sector in sectors]
    vivid = min(max(saturation, 0.0), 1.0)
    levels = [value * (1 - vivid * ramp) for ramp in ramps]
    return np.array(levels, np.float32).reshape(3, 1, 1)
