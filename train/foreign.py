"""The weights in a checkpoint of another trainer: found, and named as the model names them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor

# What torch.compile, FSDP and activation checkpointing insert into the names of a module.
_INSERTED = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")

# Where trainers keep the weights; one of two sets that fit is taken by its place in this order.
_USUAL = ("", "model", "state_dict", "model_state_dict")

# A moving average, as in torchvision's model_ema, timm's state_dict_ema and our own `average`.
_AVERAGE = re.compile(r"(?:^|[._])(?:ema|swa|averaged?)(?:$|[._])", re.IGNORECASE)

_AS_GOOD = 0.95  # of the values that the best set fills: one without its last layer, say
_DEPTH = 4  # of a dict of tensors in dicts


class Found(NamedTuple):
    """A set of weights.

    Attributes:
        tensors: Name -> tensor, under the names of the model where it has them.
        source: Where in the file it was, such as "model_ema (prefix module.)"; may be "".
        others: Sets that fit as well, where none of them can be preferred.
    """

    tensors: dict[str, Tensor]
    source: str = ""
    others: tuple[str, ...] = ()


class _Place(NamedTuple):
    key: str
    prefix: str

    def __str__(self) -> str:
        prefix = f"(prefix {self.prefix})" if self.prefix else ""
        return " ".join(part for part in (self.key, prefix) if part)

    @property
    def is_average(self) -> bool:
        return bool(_AVERAGE.search(f"{self.key}.{self.prefix}"))

    @property
    def rank(self) -> tuple[bool, int, bool]:
        """Smaller is preferred: averages, then the usual keys, then names without a prefix."""
        usual = _USUAL.index(self.key) if self.key in _USUAL else len(_USUAL)
        return not self.is_average, usual, bool(self.prefix)


def find_weights(content: object, own: Mapping[str, Tensor]) -> Found:
    """The set of tensors in a checkpoint that fills most of a model.

    A moving average is taken only if it fills as much as any other set: some are of the parameters
    alone, and a model without the statistics of its norms answers nonsense.

    A prefix is whatever stands before the names of the model, in all tensors or some. Tensors
    without it keep their names: a head beside a backbone, the weights of a loss.

    Args:
        content: What a trainer saved: a state dict, or dicts of dicts with some in them.
        own: The state dict of the model.

    Returns:
        The set; its tensors are empty if the file has none, and of the largest set if none fits.
    """
    sets = dict(_state_dicts(content, set()))
    filled = {
        _Place(key, prefix): count
        for key, tensors in sets.items()
        for prefix, count in _prefixes(tensors, own).items()
    }
    if not filled:
        largest = max(
            sets.values(), key=lambda item: sum(map(Tensor.numel, item.values())), default={}
        )
        return Found(largest)
    most = max(filled.values())
    fitting = [
        place
        for place, count in filled.items()
        if count >= (most if place.is_average else _AS_GOOD * most)
    ]
    first = min(place.rank for place in fitting)
    best = [place for place in fitting if place.rank == first]
    if len(best) > 1:
        return Found({}, others=tuple(map(str, best)))
    return Found(_renamed(sets[best[0].key], best[0].prefix), str(best[0]))


def _state_dicts(
    content: object, seen: set[int], key: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """All dicts of tensors in dicts, by their keys joined with dots; each dict once."""
    if not isinstance(content, Mapping) or id(content) in seen or depth > _DEPTH:
        return
    seen.add(id(content))
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    tensors = {
        _INSERTED.sub("", name): value for name, value in named.items() if isinstance(value, Tensor)
    }
    if tensors:
        yield key, tensors
    for name, value in named.items():
        yield from _state_dicts(value, seen, f"{key}.{name}" if key else name, depth + 1)


def _prefixes(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Counter[str]:
    """How many floating-point values of the model the tensors behind each prefix fill."""
    counts: Counter[str] = Counter()
    for name, value in tensors.items():
        parts = name.split(".")
        for start in range(len(parts)):
            rest = ".".join(parts[start:])
            if rest in own and own[rest].is_floating_point() and own[rest].shape == value.shape:
                counts[name.removesuffix(rest)] += value.numel()
    return counts


def _renamed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    behind = {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
    return {**{n: v for n, v in tensors.items() if not n.startswith(prefix)}, **behind}
