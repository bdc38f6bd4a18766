"""What of a network is trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import Conv2dNormActivation

from fastload.advise.models import build_model
from train.model import freeze_all_but, head_names, parameter_groups, set_training

SMALL = "shufflenet_v2_x0_5"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", {"fc.weight", "fc.bias"}),
        ("mobilenet_v3_small", {"classifier.3.weight", "classifier.3.bias"}),
        ("squeezenet1_1", {"classifier.1.weight", "classifier.1.bias"}),
        ("convnext_tiny", {"classifier.2.weight", "classifier.2.bias"}),
        ("vit_b_16", {"heads.head.weight", "heads.head.bias"}),
        ("densenet121", {"classifier.weight", "classifier.bias"}),
    ],
)
def test_the_head_is_found_without_knowing_its_name(name, expected):
    assert head_names(name, 7) == expected


def test_the_head_of_a_timm_model_is_found():
    pytest.importorskip("timm")
    assert head_names("timm:mobilenetv3_small_050", 5) == {"classifier.weight", "classifier.bias"}


def test_tuning_the_head_freezes_the_rest_and_leaves_it_in_evaluation_mode():
    model = build_model(SMALL, 5)
    head = head_names(SMALL, 5)
    freeze_all_but(model, head)
    set_training(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    loss = model(torch.randn(4, 3, 32, 32)).square().mean()
    loss.backward()
    torch.optim.SGD(parameter_groups(model, weight_decay=0.0, stem_rate=1.0), lr=0.1).step()

    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == head
    assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert model.get_submodule("fc").training


def test_a_whole_model_is_wholly_in_training_mode():
    model = build_model("mobilenet_v3_small", 5).eval()

    set_training(model)

    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", "vit_b_16"])
def test_norms_and_biases_are_not_decayed_and_nothing_is_left_out(name):
    with torch.device("meta"):
        model = build_model(name, 5)
    decayed: set[int] = set()
    plain: set[int] = set()

    for group in parameter_groups(model, weight_decay=0.1, stem_rate=1.0):
        (decayed if group["weight_decay"] else plain).update(map(id, group["params"]))

    owners = {id(p): m for m in model.modules() for p in m.parameters(recurse=False)}
    assert decayed | plain == {id(parameter) for parameter in model.parameters()}
    assert not decayed & plain
    for number in decayed:
        assert not isinstance(owners[number], nn.BatchNorm2d | nn.LayerNorm)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert id(module.weight) in decayed
            assert module.bias is None or id(module.bias) in plain


def test_a_norm_is_known_by_its_type_not_its_name_or_shape():
    class WideNorm(nn.LayerNorm):
        def __init__(self) -> None:
            super().__init__((4, 4))

    model = nn.Sequential(nn.Linear(4, 4), WideNorm())

    groups = parameter_groups(model, weight_decay=0.1, stem_rate=1.0)

    decayed = [p for group in groups if group["weight_decay"] for p in group["params"]]
    assert decayed == [model[0].weight]


def test_layerwise_rates_rise_from_the_stem_to_the_head():
    model = build_model("resnet18", 5)
    groups = parameter_groups(model, weight_decay=0.1, stem_rate=0.1)
    rates = {id(p): group["rate_scale"] for group in groups for p in group["params"]}

    in_order = [rates[id(parameter)] for parameter in model.parameters()]

    assert in_order == sorted(in_order)
    assert in_order[0] == pytest.approx(0.1)
    assert in_order[-1] == 1.0
    assert len(groups) <= 2 * 9


def test_tied_parameters_are_stepped_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight

    groups = parameter_groups(model, weight_decay=0.0, stem_rate=1.0)

    assert sum(len(group["params"]) for group in groups) == 3


def test_a_composed_block_is_no_norm():
    block = Conv2dNormActivation(3, 4)

    groups = parameter_groups(block, weight_decay=0.1, stem_rate=1.0)

    assert sorted(len(group["params"]) for group in groups) == [1, 2]
