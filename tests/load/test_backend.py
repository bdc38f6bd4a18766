"""A back-end is chosen by name; what is true of each name stands in one enum."""

from __future__ import annotations

import pytest
import torch

from fastload.load.backend import AUTO, BackendName, choose_backend
from fastload.load.buffers import Buffers
from fastload.pixels import dali, native

CPU = torch.device("cpu")


def runs_here(name: BackendName) -> bool:
    if name is BackendName.NATIVE:
        return native.is_available()
    return name is BackendName.LIBJPEG or not dali.why_unavailable()


@pytest.mark.parametrize("name", [name for name in BackendName if name.on_cpu])
def test_a_back_end_bears_the_name_that_was_asked_for(name: BackendName):
    if not runs_here(name):
        pytest.skip(f"{name.value} cannot run here")
    backend = choose_backend(name.value, CPU, num_threads=2)
    assert backend.renderer.name == name
    assert backend.reason == f"{name.value}: asked for"
    assert not backend.whole_batches
    assert isinstance(backend.memory, Buffers)
    backend.renderer.close()


def test_auto_is_the_fastest_on_the_cpu():
    expected = "native" if native.is_available() else "libjpeg"
    backend = choose_backend(AUTO, CPU, num_threads=2)
    assert backend.reason == f"{expected}: the fastest that runs here"


def test_dali_alone_renders_on_a_gpu_and_takes_whole_batches():
    assert [name for name in BackendName if not name.on_cpu] == [BackendName.DALI]
    assert [name for name in BackendName if name.whole_batches] == [BackendName.DALI]


def test_an_unknown_name_is_answered_with_the_known_ones():
    known = "auto, native, libjpeg, dali-cpu, dali"
    with pytest.raises(ValueError, match=f"backend must be one of {known}, got 'fast'"):
        choose_backend("fast", CPU, num_threads=2)
