"""What is said of a GPU, where PyTorch is built for NVIDIA's, for AMD's or for none."""

from __future__ import annotations

import pytest
import torch

from fastload.advise.backends import why_absent
from fastload.advise.versions import installed_versions
from fastload.errors import BackendUnavailableError
from fastload.load.backend import _on_the_gpu, find_backend
from train.ranks import DeviceError, joined

AMD = "DALI needs an NVIDIA GPU, and this PyTorch is built for GPUs of AMD (ROCm)"


# No machine of CI has such a build: the two names by which torch tells them apart are set.
@pytest.mark.parametrize(
    ("cuda", "hip", "built"),
    [("13.0", None, "CUDA 13.0"), (None, None, "CUDA none"), (None, "6.4.43", "ROCm 6.4.43")],
)
def test_the_build_of_torch_decides_what_is_said_of_a_gpu(monkeypatch, cuda, hip, built):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", hip)
    facts = dict(installed_versions())
    assert facts["PyTorch"] == f"{torch.__version__}, built for {built}"
    assert ("nvidia-smi" in facts["driver"]) <= (hip is None)
    assert (why_absent("dali", torch.device("cuda")) == AMD) == bool(hip)
    with pytest.raises(DeviceError) as raised, joined("cuda:99"):
        pass
    assert ("rocm-smi" if hip else "nvidia-smi") in str(raised.value)


def test_on_a_gpu_of_amd_dali_is_neither_tried_nor_advised(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", "6.4.43")
    with pytest.raises(BackendUnavailableError) as raised:
        _on_the_gpu(torch.device("cuda:0"), 2)
    assert str(raised.value) == AMD
    assert "dali" not in find_backend("auto", torch.device("cpu"), num_threads=1).reason
