"""A permutation of [0, length) that is computed where it is asked for, not made as a whole.

    place -> (left, right) -> 18 rounds: one half is moved by a hash of the other -> place

A Feistel network whose halves are numbers below a and b, with a b just above `length`; what lands
at `length` or beyond goes through it again ("cycle walking"). Both are of Black and Rogaway,
"Ciphers with arbitrary finite domains" (CT-RSA 2002, sections 3 and 4). Here the two halves take
turns, moves are sums modulo a and b instead of exclusive or, and the hash is that of `randomness`,
which is fast and no cipher: an order has to look random, not to be secret.

Moves of halves are rotations of rows or columns of an a x b table. For some shapes all of them are
even permutations, so that half of all orders would never come: one bit of the key exchanges places
0 and 1 as well. A rotation at the end makes the place of each element exactly uniform.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastload import randomness

ROUNDS = 18  # with 12, chi-square still tells the orders of 6 elements from uniform ones
_STEPS = np.arange(1, ROUNDS + 1, dtype=np.uint64) * randomness.GOLDEN  # a key for each round

Words = NDArray[np.uint64]
Rows = NDArray[np.int64]


def permuted(places: Rows, *, lengths: int | Rows, keys: Words) -> Rows:
    """Where a permutation puts each of some places.

    Args:
        places: int64 [N], each in [0, length).
        lengths: Of the permutation, in [1, 2**62); or int64 [N], one for each place.
        keys: uint64 [1] or [N]: which permutation of that length it is.

    Returns:
        int64 [N], each in [0, length). All places of a length and a key have distinct results.
    """
    length = np.broadcast_to(np.asarray(lengths, np.uint64), places.shape)
    key = np.broadcast_to(keys, places.shape)
    network = _Network(length, key)
    found = network.passed(places.astype(np.uint64))
    beyond = np.flatnonzero(found >= length)
    while len(beyond):
        found[beyond] = _Network(length[beyond], key[beyond]).passed(found[beyond])
        beyond = beyond[found[beyond] >= length[beyond]]
    last = randomness.mixed(key)
    swapped = (found < 2) & ((last & np.uint64(1)) == 1) & (length > 1)
    found = np.where(swapped, np.uint64(1) - found, found)
    return ((found + last % length) % length).astype(np.int64)


class _Network:
    """The rounds, for places that each have a length and a key."""

    def __init__(self, length: Words, key: Words) -> None:
        rows = np.sqrt(length.astype(np.float64)).astype(np.uint64)
        rows += rows * rows < length
        self._rows, self._columns = rows, (length + rows - np.uint64(1)) // rows
        self._key = key

    def passed(self, places: Words) -> Words:
        """Each place in [0, rows x columns), moved by all rounds."""
        left, right = np.divmod(places, self._columns)
        for number, step in enumerate(_STEPS):
            if number % 2:
                right = _moved(right, left, self._key + step, self._columns)
            else:
                left = _moved(left, right, self._key + step, self._rows)
        found: Words = left * self._columns + right
        return found


def _moved(half: Words, other: Words, key: Words, size: Words) -> Words:
    """`half` plus a hash of `other`, modulo `size`, which is below 2**32."""
    words = randomness.mixed(other * randomness.GOLDEN + key) >> np.uint64(32)
    moved = half + (words * size >> np.uint64(32))
    return np.where(moved >= size, moved - size, moved)
