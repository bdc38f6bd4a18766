"""What of a network is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models
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
        ("regnet_y_128gf", {"fc.weight", "fc.bias"}),
        ("regnet_x_400mf", {"fc.weight", "fc.bias"}),
        ("vit_h_14", {"heads.head.weight", "heads.head.bias"}),
        ("maxvit_t", {"classifier.5.weight"}),
        ("inception_v3", {"fc.weight", "fc.bias"}),
    ],
)
def test_the_head_is_found_without_knowing_its_name(name, expected):
    assert head_names(name, 7) == expected


@pytest.mark.slow
def test_every_model_of_torchvision_has_a_head_of_one_layer():
    heads = {name: head_names(name, 7) for name in models.list_models(module=models)}

    layers = {"fc", "head", "heads.head", "classifier"} | {f"classifier.{i}" for i in range(1, 7)}
    assert len(heads) >= 80
    for name, head in heads.items():
        (layer,) = {key.rpartition(".")[0] for key in head}
        assert layer in layers, name
        assert f"{layer}.weight" in head


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("mobilenetv3_small_050", {"classifier"}),
        ("efficientnet_lite0", {"classifier"}),
        ("regnety_002", {"head.fc"}),
        ("convnextv2_atto", {"head.fc"}),
        ("deit_tiny_distilled_patch16_224", {"head", "head_dist"}),
        ("levit_128s", {"head.linear", "head_dist.linear"}),
        ("crossvit_tiny_240", {"head.0", "head.1"}),
        ("volo_d1_224", {"head", "aux_head"}),
    ],
)
def test_the_heads_of_a_timm_model_are_found(name, layers):
    timm = pytest.importorskip("timm")
    head = head_names(f"timm:{name}", 5)

    assert timm.is_model(name)
    assert head == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


# Of each architecture in use a small one, at a size at which a step takes well under a second.
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("regnet_y_400mf", 32),
        ("regnet_x_400mf", 32),
        ("mnasnet0_5", 32),
        ("timm:resnet10t", 32),
        ("timm:convnext_atto", 32),
        ("timm:vit_tiny_patch16_224", 32),
        ("timm:deit_tiny_distilled_patch16_224", 32),
        ("timm:efficientnet_lite0", 32),
        ("timm:mobilenetv3_small_050", 32),
        ("timm:regnety_002", 32),
        ("timm:mixer_s32_224", 32),
        ("timm:levit_128s", 64),
        pytest.param("timm:eva02_tiny_patch14_224", 56, marks=pytest.mark.slow),
        pytest.param("timm:cait_xxs24_224", 32, marks=pytest.mark.slow),
        pytest.param("timm:maxvit_rmlp_pico_rw_256", 64, marks=pytest.mark.slow),
        pytest.param("timm:coatnet_nano_rw_224", 64, marks=pytest.mark.slow),
        pytest.param("timm:swin_tiny_patch4_window7_224", 224, marks=pytest.mark.slow),
    ],
)
def test_a_model_takes_a_step_and_then_its_head_alone_does(name, size):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    model = build_model(name, 5, size=size)
    head = head_names(name, 5)

    everything = stepped(model, size)
    freeze_all_but(model, head)

    assert everything >= head  # no more where the head is zero at first
    assert stepped(model, size) == head


def stepped(model: nn.Module, size: int) -> set[str]:
    """The parameters that one step changes."""
    set_training(model)
    before = {name: value.clone() for name, value in model.named_parameters()}
    answers = model(torch.randn(2, 3, size, size))
    nn.functional.cross_entropy(answers, torch.tensor([0, 1])).backward()
    torch.optim.SGD(parameter_groups(model, weight_decay=0.0, stem_rate=1.0), lr=0.1).step()
    return {
        name for name, value in model.named_parameters() if not torch.equal(value, before[name])
    }


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


def decayed_names(name: str, **more: Any) -> tuple[set[str], dict[str, nn.Parameter]]:
    """The parameters that are decayed, and all of them."""
    with torch.device("meta"):
        model = build_model(name, 5)
    groups = parameter_groups(model, weight_decay=0.1, **more)
    assert all(
        parameter is model.get_parameter(key)
        for group in groups
        for key, parameter in zip(group["names"], group["params"], strict=True)
    )
    decayed = {key for group in groups if group["weight_decay"] for key in group["names"]}
    return decayed, dict(model.named_parameters())


# What torchvision's references leave out, by --norm-weight-decay 0, --bias-weight-decay 0 and
# --transformer-embedding-decay 0, and what is a scale.
NOT_DECAYED = (
    *("class_token", "position_embedding", "pos_embedding", "relative_position_bias_table"),
    *("layer_scale", "logit_scale"),
)


@pytest.mark.parametrize(
    ("name", "exempt"),
    [
        ("vit_b_16", {"class_token", "encoder.pos_embedding"}),
        ("swin_t", {"features.1.0.attn.relative_position_bias_table"}),
        ("swin_v2_t", {"features.1.0.attn.logit_scale"}),
        ("convnext_tiny", {"features.1.0.layer_scale"}),
        (
            "maxvit_t",
            {"blocks.0.layers.0.layers.window_attention.attn_layer.1.relative_position_bias_table"},
        ),
        ("resnet18", set()),
        ("efficientnet_b0", set()),
        ("densenet121", set()),
        ("vgg11_bn", set()),
    ],
)
def test_what_torchvision_s_recipes_exempt_is_not_decayed(name, exempt):
    decayed, every = decayed_names(name)

    assert exempt <= every.keys()
    for key, parameter in every.items():
        own = key.rpartition(".")[2]
        assert (key in decayed) == (parameter.ndim > 1 and own not in NOT_DECAYED), key
    if name == "vit_b_16":
        assert "encoder.layers.encoder_layer_0.self_attention.in_proj_weight" in decayed


@pytest.mark.parametrize(
    ("name", "scales"),
    [
        ("vit_tiny_patch16_224", set()),
        ("deit3_small_patch16_224", set()),
        ("deit_tiny_distilled_patch16_224", set()),
        ("beit_base_patch16_224", set()),
        ("cait_xxs24_224", set()),
        ("swin_tiny_patch4_window7_224", set()),
        ("swinv2_tiny_window8_256", set()),  # names all of cpb_mlp: weights, too
        ("xcit_nano_12_p8_224", {"temperature"}),  # names pos_embed.*: a convolution
        ("levit_128s", set()),
        ("convnext_atto", set()),
        ("resnet50", set()),
        ("resmlp_12_224", {"alpha", "beta"}),
        ("dm_nfnet_f0", {"gain"}),  # De, Brock and Smith decay weights of convolutions alone
    ],
)
def test_what_timm_exempts_is_not_decayed(name, scales):
    timm, optim = pytest.importorskip("timm"), pytest.importorskip("timm.optim")
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=5)
    exempt = model.no_weight_decay() if hasattr(model, "no_weight_decay") else set()
    # timm's own grouping, and the scales that timm decays, since its models do not name them.
    plain, theirs = optim.param_groups_weight_decay(model, 0.1, no_weight_decay_list=exempt)
    assert (plain["weight_decay"], theirs["weight_decay"]) == (0, 0.1)
    expected = {id(parameter) for parameter in theirs["params"]}
    for key, parameter in model.named_parameters():
        if key.rpartition(".")[2] in scales:
            assert id(parameter) in expected, key
            expected.remove(id(parameter))

    found = parameter_groups(model, weight_decay=0.1)

    ours = {id(p) for group in found if group["weight_decay"] for p in group["params"]}
    assert ours == expected


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "convnext_tiny"])
def test_all_parameters_are_decayed_where_that_is_asked_for(name):
    decayed, every = decayed_names(name, decay_norms=True)

    assert decayed == every.keys()


def test_the_weights_of_attention_and_recurrence_are_decayed():
    model = nn.ModuleList(
        [nn.MultiheadAttention(4, 2, kdim=3, vdim=3, add_bias_kv=True), nn.LSTM(3, 4)]
    )

    groups = parameter_groups(model, weight_decay=0.1)

    assert {key for group in groups if group["weight_decay"] for key in group["names"]} == {
        *("0.q_proj_weight", "0.k_proj_weight", "0.v_proj_weight", "0.out_proj.weight"),
        *("1.weight_ih_l0", "1.weight_hh_l0"),
    }


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
