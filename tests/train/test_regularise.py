"""What is dropped while a model trains, and what begins at zero."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import StochasticDepth

from fastload.advise.models import build_model
from fastload.errors import FastloadError
from tests.train.pictures import striped_shards
from train.model import head_names
from train.options import RegularisationOptions
from train.regularise import RegulariseError, builder_arguments, regularise
from train.run import main
from train.tensorfile import read_tensors

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core:RuntimeWarning")
OFF = RegularisationOptions()


def built(name: str, **chosen: Any) -> nn.Module:
    """The same model each time, with what the options change."""
    options = RegularisationOptions(**chosen)
    torch.manual_seed(0)
    model = build_model(name, 5, arguments=builder_arguments(name, options))
    regularise(model, name, options, head=head_names(name, 5))
    return model


def answers(model: nn.Module, size: int = 64) -> Tensor:
    torch.manual_seed(1)
    found: Tensor = model(torch.randn(4, 3, size, size))
    return found.detach()


def rates(model: nn.Module) -> list[float]:
    return [module.p for module in model.modules() if isinstance(module, StochasticDepth)]


@pytest.mark.parametrize("name", ["convnext_tiny", "swin_t"])
def test_stochastic_depth_is_torchvision_s_own_where_a_model_has_it(name):
    expected = models.get_model(name, weights=None)
    default = rates(expected)[-1]

    assert rates(built(name, drop_path=default)) == pytest.approx(rates(expected))
    assert max(rates(built(name, drop_path=0.37))) == pytest.approx(0.37)
    assert not any(rates(built(name, drop_path=0.0)))
    assert rates(built(name)) == pytest.approx(rates(expected))


@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")  # torchvision 0.20
@pytest.mark.parametrize("name", ["efficientnet_b0", "maxvit_t"])
def test_stochastic_depth_rises_from_nothing_in_the_first_block(name):
    found = rates(built(name, drop_path=0.3))

    assert found[0] == 0
    assert found[-1] == pytest.approx(0.3)
    assert found == sorted(found)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "regnet_y_400mf"])
def test_a_resnet_drops_whole_branches_of_single_images_in_training_alone(name):
    plain, model = built(name), built(name, drop_path=0.9)
    blocks = {"resnet18": "layer4.1", "resnet50": "layer4.2"}
    block = model.get_submodule(blocks.get(name, "trunk_output.block4.block4-5"))
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []

    def see(_: nn.Module, given: tuple[Tensor], output: Tensor) -> None:
        inputs.append(given[0].clone())
        outputs.append(output.detach())

    block.register_forward_hook(see)

    assert model.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(answers(model.eval()), answers(plain.eval()))
    inputs.clear()
    outputs.clear()
    torch.manual_seed(2)
    model.train()(torch.randn(64, 3, 32, 32))

    # A block without its branch gives its (positive) input; nine in ten images go that way.
    same = (inputs[0] == outputs[0]).flatten(1).all(1)
    assert 0.7 < float(same.float().mean()) < 1


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "resnet18", "convnext_atto", "efficientnet_lite0"]
)
def test_timm_s_models_are_built_with_the_rate(name):
    pytest.importorskip("timm")
    model = built(f"timm:{name}", drop_path=0.2)

    found = [getattr(module, "drop_prob", 0.0) for module in model.modules()]

    assert 0.15 < max(found) < 0.2001  # as float32
    assert model.state_dict().keys() == built(f"timm:{name}").state_dict().keys()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vgg11", "vgg11 has no residual branches that could be dropped; torchvision's ResNet"),
        ("vit_b_16", "vit_b_16 has no residual branches that could be dropped"),
        ("timm:vgg11", "timm:vgg11.*drop_path_rate"),
    ],
)
def test_a_model_without_branches_to_drop_is_refused(name, reason):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    with pytest.raises(FastloadError, match=reason):
        built(name, drop_path=0.1)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",  # none of its own
        "efficientnet_b0",  # one of 0.2 before the last layer
        "googlenet",  # one that is no neighbour in a Sequential
        "squeezenet1_1",  # whose last layer is a convolution
        "timm:vit_tiny_patch16_224",
        "timm:resnet18",
    ],
)
@pytest.mark.parametrize("rate", [0.0, 0.75])
def test_dropout_acts_on_what_enters_the_last_layer_in_training_alone(name, rate):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    plain, model = built(name), built(name, dropout=rate)
    (path,) = {key.rpartition(".")[0] for key in head_names(name, 5)}
    last = model.get_submodule(path)
    seen: list[Tensor] = []
    last.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    size = 224 if "vit" in name else 64

    assert model.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(answers(model.eval(), size), answers(plain.eval(), size))
    (whole,) = seen
    seen.clear()
    last.train()  # as --tune head does: the rest is in evaluation mode
    answers(model, size)

    (dropped,) = seen
    positive = whole != 0
    share = float((dropped[positive] == 0).float().mean())
    assert share == pytest.approx(rate, abs=0.08)
    kept = dropped != 0
    assert torch.allclose(dropped[kept], whole[kept] / (1 - rate), rtol=1e-4)
    if rate == 0:  # nor does the model's own
        assert not any(
            isinstance(module, nn.Dropout) and module.p
            for module in model.get_submodule(path.rpartition(".")[0]).children()
        )


def test_an_average_of_the_model_drops_as_the_model_does_and_is_its_own():
    model = built("resnet18", dropout=0.5, drop_path=0.5)
    average = copy.deepcopy(model).eval()

    assert torch.equal(answers(average), answers(copy.deepcopy(model).eval()))
    assert not torch.equal(answers(model), answers(built("resnet18")))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2"])
def test_branches_begin_at_zero_as_torchvision_s_resnets_do(name):
    torch.manual_seed(0)
    expected = models.get_model(name, weights=None, num_classes=5, zero_init_residual=True)

    found = built(name, zero_init=True)

    for key, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[key], value), key


@pytest.mark.parametrize("name", ["resnet18", "regnetx_002", "resnetrs50"])
def test_branches_begin_at_zero_as_timm_s_do(name):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    expected = timm.create_model(name, num_classes=5, zero_init_last=True)

    found = built(f"timm:{name}", zero_init=True)

    for key, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[key], value), key


def test_a_regnet_s_branches_add_nothing_at_first():
    model = built("regnet_x_400mf", zero_init=True).eval()
    block = model.get_submodule("trunk_output.block4.block4-2")
    images = torch.rand(1, 400, 4, 4)

    assert torch.equal(block(images), images)


@pytest.mark.parametrize("name", ["vgg11_bn", "vit_b_16", "convnext_tiny", "densenet121"])
def test_a_model_without_branches_that_end_with_a_norm_is_refused(name):
    with pytest.raises(RegulariseError, match="no residual branches that end with a norm"):
        built(name, zero_init=True)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--drop-path", "1"), "--drop-path must be in [0, 1), or -1 for what the model has"),
        (("--dropout", "-0.5"), "--dropout must be in [0, 1), or -1 for what the model has"),
        (("--zero-init", "--init", "imagenet"), "--zero-init is for --init scratch"),
    ],
)
def test_what_makes_no_sense_is_refused(capsys, more, sentence):
    with pytest.raises(SystemExit) as ended:
        main([*more])

    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_a_run_with_all_of_it_leaves_the_weights_of_the_plain_model(tmp_path, capsys):
    shards = striped_shards(tmp_path / "shards")
    more = ("--dropout", "0.2", "--drop-path", "0.2", "--zero-init", "--ema", "0.9")
    run = [
        *("--data", str(shards), "--runs", str(tmp_path), "--device", "cpu", "--threads", "1"),
        *("--init", "scratch", "--size", "32", "--batch-size", "8", "--epochs", "1"),
        *("--no-tensorboard", "--no-report", "--quiet-seconds", "3600", *more),
    ]
    assert main([*run, "--name", "a", "--model", "resnet18"]) == 0

    weights = read_tensors(tmp_path / "a" / "best.pt")["model"]
    assert weights.keys() == build_model("resnet18", 4).state_dict().keys()
    capsys.readouterr()
    assert main([*run, "--name", "b", "--model", "squeezenet1_1"]) == 1
    assert "--drop-path: squeezenet1_1 has no residual branches" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_nothing_is_changed_unless_it_is_asked_for():
    assert builder_arguments("timm:resnet18", OFF) == {}
    for name in ("resnet18", "efficientnet_b0"):
        torch.manual_seed(0)
        plain = build_model(name, 5)
        assert repr(plain) == repr(built(name))
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in built(name).modules())
