"""Models by name."""

from __future__ import annotations

import sys

import pytest
import torch

from fastload.advise.models import build_model, require_model
from fastload.errors import FastloadError


def test_a_model_has_as_many_outputs_as_there_are_classes():
    assert build_model("shufflenet_v2_x0_5", 5).eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


def test_timm_models_are_built_by_name():
    pytest.importorskip("timm")
    model = build_model("timm:mobilenetv3_small_050", 5).eval()

    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


def test_auxiliary_heads_are_left_out():
    model = build_model("googlenet", 3).train()

    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize("name", ["resnet51", "fcn_resnet50", "timm:no_such_model"])
def test_a_model_that_is_not_there_is_named(name):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(FastloadError, match=f'"{name}" is .*; try .*'):
        build_model(name, 3)
    with pytest.raises(FastloadError, match=f'"{name}" is .*; try .*'):
        require_model(name)


@pytest.mark.parametrize("function", [require_model, lambda name: build_model(name, 3)])
def test_timm_is_asked_for_where_it_is_missing(monkeypatch, function):
    monkeypatch.setitem(sys.modules, "timm", None)

    with pytest.raises(FastloadError, match="timm:NAME needs timm, which is not installed; pip"):
        function("timm:resnet18")


def test_a_model_that_is_there_may_be_required():
    require_model("resnet18")
