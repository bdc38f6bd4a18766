"""GPUs by the names that people give them, with training rates that others published.

`cards.json` holds the table. Each rate has a source that was read: ResNet-50 at 224 pixels, mixed
precision, one card. A card without one has the specifications of the vendor as lists of cards give
them, and a card of a published rate to compare it with; or nothing, and then its rate is unknown.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

_TABLE = Path(__file__).with_suffix(".json")

# What names carry beside the model: "NVIDIA GeForce RTX 3060", "Tesla V100-SXM2-16GB"
_NOISE = {"nvidia", "geforce", "tesla", "gpu", "graphics", "card", "generation", "edition", "vram"}
_NOISE |= {"hbm2", "hbm2e", "hbm3e"}
_OPTIONAL = {"rtx", "gtx", "sxm", "pcie"}  # "3060", "A100" and "A6000" say enough
_SPELLINGS = {"mobile": "laptop", "m": "laptop"} | dict.fromkeys(
    ("sxm2", "sxm4", "sxm5", "hbm3"),
    "sxm",  # the driver calls it "NVIDIA H100 80GB HBM3"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One GPU.

    Attributes:
        name: As we print it.
        memory_gib: Its memory.
        capability: CUDA compute capability, which tells the architecture.
        tensor_cores: Whether it multiplies float16 matrices in cores made for it.
        rate: Published images/s; 0 where none was found.
        layout: Memory layout with which it was measured: channels-last or contiguous.
        amp: Precision with which it was measured.
        batch: Batch size with which it was measured.
        source: Key of the rate's source.
        cuda_cores: As listed; 0 where it was not looked up.
        gb_per_second: Bandwidth of its memory, as listed; 0 where it was not looked up.
        specs: Key of the source of these two.
        basis: Name of the card of a published rate to estimate from; "" for none.
    """

    name: str
    memory_gib: float
    capability: float
    tensor_cores: bool = True
    rate: float = 0.0
    layout: str = ""
    amp: str = ""
    batch: int = 0
    source: str = ""
    cuda_cores: int = 0
    gb_per_second: float = 0.0
    specs: str = ""
    basis: str = ""

    @property
    def computes_bf16(self) -> bool:
        """Whether it computes with bfloat16, as PyTorch asks without emulation: from Ampere on."""
        return self.capability >= 8

    @property
    def has_tensor_cores(self) -> bool:
        """Whether float16 is faster by much: from Volta on, the GTX 16 series excepted."""
        return self.tensor_cores and self.capability >= 7

    @property
    def listed_with_engine(self) -> bool:
        """Whether NVIDIA lists its architecture as one with a JPEG engine (docs/dali.md)."""
        return self.capability >= 8 and self.capability not in (8.6, 8.7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a figure is from."""

    title: str
    link: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRate:
    """Training rate of a model on an RTX 3090, channels-last, float16 (source `timm`)."""

    names: tuple[str, ...]
    rate: float
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All that `cards.json` holds."""

    sources: dict[str, Source]
    cards: dict[str, Card] = field(default_factory=dict)
    models: dict[str, ModelRate] = field(default_factory=dict)


@cache
def card_table() -> Table:
    """The table, read once."""
    raw: dict[str, Any] = json.loads(_TABLE.read_text(encoding="utf-8"))
    rates = [ModelRate(**{**row, "names": tuple(row["names"])}) for row in raw["models"]]
    return Table(
        sources={key: Source(**row) for key, row in raw["sources"].items()},
        cards={row["name"]: Card(**row) for row in raw["cards"]},
        models={name: rate for rate in rates for name in rate.names},
    )


def find_card(text: str) -> Card:
    """The card that a name means: "3060", "rtx3060 12gb", "NVIDIA A100-SXM4-40GB".

    Where a name leaves the memory or the socket open, the first such card of the table is meant:
    the usual one, or the smaller.

    Raises:
        ValueError: If there is no such card, with those that come near.
    """
    words = _words(text)
    cards = card_table().cards.values()
    for card in cards:
        own = _words(card.name)
        if _needed(own) <= words <= own | {"rtx", "gtx", f"{card.memory_gib:g}gb"}:
            return card
    near = _near(words)
    hint = f"did you mean {' or '.join(near)}?" if near else "--help lists those that are"
    raise ValueError(f"gpu must be a card that the table has, got {text!r}; {hint}")


def _words(text: str) -> frozenset[str]:
    plain = re.sub(r"[^a-z0-9]+", " ", text.lower())
    plain = re.sub(r"max q\b", "maxq", plain)
    plain = re.sub(r"\b(rtx|gtx|quadro|titan)(?=[a-z]?\d)", r"\1 ", plain)
    plain = re.sub(r"\b(titan)(?=rtx|xp)", r"\1 ", plain)
    plain = re.sub(r"(?<=\b\d{4})(ti|super|laptop|mobile|maxq|m)", r" \1 ", plain)
    plain = re.sub(r"\b(ti|super)(?=super|laptop|mobile|maxq)", r"\1 ", plain)
    plain = re.sub(r"\b(\d+) ?g(i?b)?\b", r"\1gb", plain)
    return frozenset(_SPELLINGS.get(word, word) for word in plain.split() if word not in _NOISE)


def _needed(words: frozenset[str]) -> frozenset[str]:
    """The words without which a name would mean another card."""
    keep = {"rtx"} if "titan" in words else set()
    return frozenset(
        word for word in words if word in keep or not (word in _OPTIONAL or word.endswith("gb"))
    )


def _near(words: frozenset[str]) -> list[str]:
    names = {name: _words(name) for name in card_table().cards}
    numbers = {word for word in words if re.search(r"\d", word) and not word.endswith("gb")}
    same = [name for name, own in names.items() if (numbers or _needed(words)) & own]
    if same:
        return sorted(same, key=lambda name: len(words ^ names[name]))[:4]
    plain = {name: " ".join(sorted(_needed(own))) for name, own in names.items()}
    asked = " ".join(sorted(_needed(words)))
    close = difflib.get_close_matches(asked, set(plain.values()), 1, 0.7)
    return [name for name in names if plain[name] in close]
