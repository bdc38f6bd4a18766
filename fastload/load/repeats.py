"""A new Loader for each epoch gives the same epoch again: this tells the caller so, once.

    a Loader gives more than a first batch of epoch 0, and no other epoch
    another one, of the same data and options, made by the same line, does so too

Epochs that the caller cuts short count as well: the same batches would come each time, and the rest
of the data never. It is no mistake if the caller said which epoch comes (`set_epoch`,
`load_state_dict`), if the first Loader is still in use, as where two are compared, or if it gave
further epochs, as where a second run follows the first.
"""

from __future__ import annotations

import traceback
import warnings
import weakref
from collections.abc import Hashable
from pathlib import Path

_HERE = str(Path(__file__).parents[1])

# By all that decides the batches of a run: the finalizer of the Loader that is within epoch 0, or
# gave that epoch alone.
_given: dict[Hashable, weakref.finalize] = {}  # type: ignore[type-arg]  # of any arguments
_warned: set[Hashable] = set()


def line_of_caller() -> tuple[str, int]:
    """File and line of the nearest call from outside fastload."""
    for frame, line in traceback.walk_stack(None):
        if not frame.f_code.co_filename.startswith(_HERE):
            return frame.f_code.co_filename, line
    return "", 0


def note(run: Hashable, epoch: int, loader: weakref.finalize) -> None:  # type: ignore[type-arg]
    """A Loader that was told no epoch is within this one; warns the caller two frames up."""
    earlier = _given.get(run)
    if epoch > 0:
        if earlier is loader:
            del _given[run]
        return
    _given[run] = loader
    if earlier is None or earlier.alive or run in _warned:
        return
    _warned.add(run)
    warnings.warn(
        "this Loader gives epoch 0 again, the same batches as a Loader before it, of the same data,"
        " seed and options: keep one Loader for all epochs, or call set_epoch(epoch) on each new"
        " one (set_epoch(0) if a new run begins)",
        stacklevel=3,
    )
