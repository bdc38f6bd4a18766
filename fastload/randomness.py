"""Counter-based randomness: every random number is a hash of (seed, epoch, position, slot).

Nothing is consumed and nothing carried from one draw to the next, so a draw does not depend on
threads, ranks, batch size or on what was drawn before, and a run can start anywhere. The words are
absorbed one after another and never summed: (seed 1, epoch 0) and (seed 0, epoch 1) are unrelated.

The mixing function is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014, variant 13 of Stafford's constants).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Streams: one for each use, so that adding a draw to one leaves the others as they were.
ORDER = 0
CROP = 1
FLIP = 2
COLOUR = 3
GEOMETRY = 4
ERASE = 5
MIX = 6
RESAMPLE = 7
WINDOW = 8
OPERATION = 9
TRANSFORM = 10

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, SplitMix64's increment
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_TO_UNIT = 2.0**-53


def mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser: a permutation of all 64-bit words; each bit changes half of the others."""
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))


def _key(seed: int, epoch: int, stream: int) -> NDArray[np.uint64]:
    key = np.zeros(1, np.uint64)
    for word in (seed, epoch, stream):
        if not 0 <= word < 2**63:
            raise ValueError(f"seed, epoch and stream must be in [0, 2**63), got {word}")
        key = mixed((key ^ np.uint64(word)) + GOLDEN)
    return key


def hashes(
    seed: int, epoch: int, positions: NDArray[np.int64], *, stream: int = ORDER
) -> NDArray[np.uint64]:
    """One 64-bit hash for each position.

    Args:
        seed: In [0, 2**63).
        epoch: In [0, 2**63).
        positions: int64 [N], each at least 0.
        stream: Which use the numbers are for; one of the constants of this module.

    Returns:
        uint64 [N], uniform over all 64-bit words; distinct positions have distinct hashes.
    """
    counters = np.asarray(positions, np.int64).astype(np.uint64)
    return mixed(mixed(counters * GOLDEN + _key(seed, epoch, stream)))


def uniforms(
    seed: int, epoch: int, positions: NDArray[np.int64], slots: int, *, stream: int
) -> NDArray[np.float64]:
    """`slots` uniform numbers for each position.

    Args:
        seed: In [0, 2**63).
        epoch: In [0, 2**63).
        positions: int64 [N], each at least 0: positions in the global order of the epoch.
        slots: Numbers for each position; slot k of a position does not depend on `slots`.
        stream: Which use the numbers are for; one of the constants of this module.

    Returns:
        float64 [N, slots] in [0, 1), multiples of 2**-53.
    """
    heads = hashes(seed, epoch, positions, stream=stream)
    offsets = np.arange(1, slots + 1, dtype=np.uint64) * GOLDEN
    words = mixed(heads[:, None] + offsets[None, :])
    unit: NDArray[np.float64] = (words >> np.uint64(11)).astype(np.float64) * _TO_UNIT
    return unit
