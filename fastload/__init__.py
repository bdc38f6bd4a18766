"""fastload: an image loader for training; it decides first what to read, then decodes only that.

Names are imported when they are first used, so that `import fastload` loads neither torch nor DALI.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastload.errors import FastloadError
    from fastload.load.augment import (
        Augment,
        CenterCrop,
        ColourJitter,
        Erasing,
        Mix,
        RandomCrop,
        RandomResizedCrop,
    )
    from fastload.load.auto_augment import RandAugment, TrivialAugment
    from fastload.load.dataset import TarDataset
    from fastload.load.loader import Loader
    from fastload.load.selection import Select
    from fastload.load.stats import Stats
    from fastload.world import World

    __version__: str

__all__ = [
    "Augment",
    "CenterCrop",
    "ColourJitter",
    "Erasing",
    "FastloadError",
    "Loader",
    "Mix",
    "RandAugment",
    "RandomCrop",
    "RandomResizedCrop",
    "Select",
    "Stats",
    "TarDataset",
    "TrivialAugment",
    "World",
]

_MODULES = {
    "FastloadError": "errors",
    "Loader": "load.loader",
    "RandAugment": "load.auto_augment",
    "Select": "load.selection",
    "Stats": "load.stats",
    "TarDataset": "load.dataset",
    "TrivialAugment": "load.auto_augment",
    "World": "world",
}


def __getattr__(name: str) -> object:
    value: object
    if name == "__version__":
        value = import_module("fastload.installation").version()
    elif name in __all__:
        value = getattr(import_module(f"fastload.{_MODULES.get(name, 'load.augment')}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
