"""Models by name, weights from files, and what is trained."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.ops import Conv2dNormActivation

from train.data import normalisation_for
from train.model import (
    WeightsError,
    build_model,
    freeze_all_but,
    head_names,
    imagenet_normalisation,
    load_weights,
    parameter_groups,
    read_weights,
    set_training,
    start_weights,
)
from train.options import ModelOptions

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


def test_a_model_has_as_many_outputs_as_there_are_classes():
    assert build_model(SMALL, 5).eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


def test_timm_models_are_built_by_name():
    pytest.importorskip("timm")
    model = build_model("timm:mobilenetv3_small_050", 5).eval()

    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    assert head_names("timm:mobilenetv3_small_050", 5) == {"classifier.weight", "classifier.bias"}


def test_auxiliary_heads_are_left_out():
    model = build_model("googlenet", 3).train()

    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize("name", ["resnet51", "fcn_resnet50", "timm:no_such_model"])
def test_a_model_that_is_not_there_is_named(name):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(WeightsError, match=f'"{name}" is .*; try .*'):
        build_model(name, 3)


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {"model": {f"module.{k}": v for k, v in weights.items()}},
        lambda weights: {"state_dict": {f"model._orig_mod.{k}": v for k, v in weights.items()}},
    ],
    ids=["plain", "state_dict", "ddp", "lightning-compiled"],
)
def test_weights_are_found_however_they_are_wrapped(tmp_path, wrap):
    source = build_model(SMALL, 5)
    model = build_model(SMALL, 5)

    weights = read_weights(save(tmp_path / "w.pt", wrap(source.state_dict()))).tensors
    loaded = load_weights(model, weights, head=head_names(SMALL, 5))

    assert set(loaded.kept) == set(model.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(value, source.state_dict()[name])


def test_another_number_of_classes_starts_the_head_anew_and_says_so(tmp_path):
    source, model = build_model(SMALL, 9), build_model(SMALL, 5)
    before = model.get_parameter("fc.weight").detach().clone()

    weights = read_weights(save(tmp_path / "w.pt", source.state_dict())).tensors
    loaded = load_weights(model, weights, head=head_names(SMALL, 5))

    assert set(loaded.reshaped) == {"fc.weight", "fc.bias"}
    assert "other shape, started anew: fc.weight, fc.bias" in str(loaded)
    assert torch.equal(model.get_parameter("fc.weight"), before)
    stem = "conv1.0.weight"
    assert torch.equal(model.get_parameter(stem), source.get_parameter(stem))


def test_what_is_missing_and_unused_is_said():
    model = build_model(SMALL, 5)
    weights = dict(model.state_dict())
    weights["extra.weight"] = weights.pop("conv1.0.weight")

    text = str(load_weights(model, weights, head=head_names(SMALL, 5)))

    assert "not in the weights, started anew: conv1.0.weight" in text
    assert "not in the model, dropped: extra.weight" in text


@pytest.mark.parametrize("other", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x1_0"])
def test_weights_of_another_model_are_refused_and_nothing_is_changed(other):
    model = build_model(SMALL, 5)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    with pytest.raises(WeightsError, match="so they are of another model"):
        load_weights(model, build_model(other, 5).state_dict(), head=head_names(SMALL, 5))

    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made by the file"),)

    path = save(tmp_path / "w.pt", {"model": Harmful()})

    with pytest.raises(WeightsError, match="not a file of weights that can be read safely"):
        read_weights(path)
    assert not (tmp_path / "made by the file").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a file of weights"),
        (b"hello", "not a file of weights"),
        (b"PK\x03\x04 broken", "not a file of weights"),
        (None, "there is no such file; give imagenet, scratch or a file"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_one_sentence(tmp_path, content, message):
    path = tmp_path / "w.pt"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(WeightsError, match=message) as raised:
        read_weights(path)
    assert "\n" not in str(raised.value)


def test_a_file_without_tensors_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="holds no tensors"):
        read_weights(save(tmp_path / "w.pt", {"model": {"epoch": 3}}))


def test_scratch_needs_no_weights():
    assert start_weights(ModelOptions(init="scratch")) is None


def test_imagenet_weights_that_cannot_be_downloaded_name_the_other_choices(tmp_path, monkeypatch):
    # A proxy on a closed port of this machine makes every download fail, with or without a network.
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    with pytest.raises(WeightsError) as raised:
        start_weights(ModelOptions(model="resnet18"))

    assert str(raised.value).startswith("the ImageNet weights of resnet18 cannot be downloaded (")
    assert str(raised.value).endswith("; give --init FILE, or --init scratch")
    assert "\n" not in str(raised.value)


def test_imagenet_weights_in_the_cache_need_no_network(tmp_path, monkeypatch):
    from torchvision.models import ShuffleNet_V2_X0_5_Weights

    source = build_model(SMALL, 1000)
    name = Path(ShuffleNet_V2_X0_5_Weights.DEFAULT.url).name
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(source.state_dict(), tmp_path / "hub" / "checkpoints" / name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    weights = start_weights(ModelOptions(model=SMALL))

    assert weights is not None
    assert torch.equal(weights.tensors["fc.weight"], source.get_parameter("fc.weight"))


def test_unknown_imagenet_weights_name_those_there_are():
    options = ModelOptions(model="resnet50", init="imagenet:V9")

    with pytest.raises(WeightsError, match=r"no weights V9; it has IMAGENET1K_V1, IMAGENET1K_V2"):
        start_weights(options)


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


def test_the_normalisation_of_the_weights_is_known():
    mean, std = imagenet_normalisation(ModelOptions(model="resnet18")) or ((), ())

    assert mean == (0.485, 0.456, 0.406)
    assert std == (0.229, 0.224, 0.225)
    assert imagenet_normalisation(ModelOptions(init="scratch")) is None
    assert imagenet_normalisation(ModelOptions(model="no such model")) is None


def test_timm_weights_with_another_normalisation_get_it():
    pytest.importorskip("timm")
    options = ModelOptions(model="timm:vit_tiny_patch16_224", init="imagenet")

    assert normalisation_for(options) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert normalisation_for(ModelOptions(init="scratch"))[0] == (0.485, 0.456, 0.406)


def test_a_composed_block_is_no_norm():
    block = Conv2dNormActivation(3, 4)

    groups = parameter_groups(block, weight_decay=0.1, stem_rate=1.0)

    assert sorted(len(group["params"]) for group in groups) == [1, 2]
