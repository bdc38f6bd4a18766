"""Memory is used again when nothing refers to it, and as much is remembered as is in use."""

from __future__ import annotations

import numpy as np
import pytest

from fastload.errors import ResourceError
from fastload.load.buffers import MOST_COPIES, READY_BATCHES, Buffers, batches_ahead, most_batches


def test_memory_comes_back_when_its_last_user_is_gone():
    made = []

    def allocate(shape):
        made.append(np.empty(shape, np.uint8))
        return made[-1]

    buffers = Buffers(allocate, keep=2)
    first = buffers.take((2, 3))
    address = first.ctypes.data
    second = buffers.take((2, 3))
    assert second.ctypes.data != address
    del first
    assert buffers.take((3, 2)).ctypes.data == address
    assert len(made) == 2
    del second
    assert buffers.take((100,)).shape == (100,)
    assert len(made) == 3


def test_batches_ahead_are_those_that_the_threads_fill_and_the_ready_ones():
    assert batches_ahead(1, chunk=16, batch=128) == READY_BATCHES + 1
    assert batches_ahead(16, chunk=16, batch=128) == READY_BATCHES + 2
    assert batches_ahead(17, chunk=16, batch=128) == READY_BATCHES + 3


def test_no_more_batches_hold_memory_than_are_remembered():
    for num_threads in (1, 2, 7, 64):
        for chunk, batch in ((1, 1), (8, 8), (16, 128), (2, 3)):
            ahead = batches_ahead(num_threads, chunk=chunk, batch=batch)
            assert ahead + MOST_COPIES < most_batches(num_threads)


def test_a_batch_that_no_memory_holds_is_one_sentence():
    buffers = Buffers(lambda shape: np.empty(shape, np.uint8), keep=2)
    sentence = "a batch of 1,000,000,000,000 images takes 150,528,000.0 GB, .* lower batch_size"
    with pytest.raises(ResourceError, match=sentence):
        buffers.take((10**12, 224, 224, 3))
