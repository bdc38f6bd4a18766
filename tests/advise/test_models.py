"""Models by name."""

from __future__ import annotations

import sys

import pytest
import torch

from fastload.advise.models import build_model, require_model, skeleton
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


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "regnet_y_400mf", "swin_t", "vit_b_32"])
def test_a_skeleton_has_the_shapes_of_the_model_and_no_memory(name):
    before = torch.random.get_rng_state()
    bones = skeleton(name, 5).state_dict()
    assert torch.equal(before, torch.random.get_rng_state())

    whole = build_model(name, 5).state_dict()
    assert {k: v.shape for k, v in bones.items()} == {k: v.shape for k, v in whole.items()}
    assert all(value.is_meta for value in bones.values())


def test_a_model_that_looks_at_its_weights_while_it_is_built_has_a_skeleton(monkeypatch):
    def looking(name: str, num_classes: int, *, size: int | None = None) -> torch.nn.Module:
        model = torch.nn.Linear(3, num_classes)
        assert float(model.weight.abs().max()) > 0  # which a meta tensor cannot tell
        return model

    monkeypatch.setattr("fastload.advise.models.build_model", looking)

    bones = skeleton("looking", 5).state_dict()
    assert bones["weight"].is_meta
    assert bones["weight"].shape == (5, 3)


@pytest.mark.parametrize("name", ["vit_b_32", "timm:vit_tiny_patch16_224", "timm:levit_128s"])
def test_a_model_for_one_size_is_built_for_the_size_asked_for(name):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    images = torch.empty(2, 3, 96, 96, device="meta")

    assert skeleton(name, 5, size=96)(images).shape == (2, 5)
    with pytest.raises((AssertionError, RuntimeError)):
        skeleton(name, 5)(images)


def test_a_size_that_a_model_cannot_be_built_for_is_refused_by_its_forward_pass():
    with pytest.raises(AssertionError, match="Expected 224 but got 100"):
        skeleton("vit_b_32", 5, size=100)(torch.empty(2, 3, 100, 100, device="meta"))
