"""Which images a model takes, against forward passes with real tensors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastload.advise.models import build_model
from fastload.advise.sizes import SizeError, View, refusal, require_size


def check(name: str, size: int, *, flag: str = "--size", images: int = 2) -> None:
    built_for = size if flag == "--size" else 64
    model = build_model(name, 5, size=built_for)
    require_size(model, name, View(flag, size, built_for), images=images, num_classes=5)


@pytest.mark.parametrize(
    ("name", "size", "given"),
    [
        ("vit_b_32", 100, "--size 96 or 128"),
        ("inception_v3", 64, "--size 84 or 96"),
        ("alexnet", 32, "--size 64 or 70"),
        pytest.param("maxvit_t", 64, "--size 224", marks=pytest.mark.slow),
        pytest.param("timm:halonet26t", 224, "--size 252 or 256", marks=pytest.mark.slow),
    ],
)
def test_a_size_that_is_not_taken_is_said_with_sizes_that_are(name, size, given):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    sentence = rf"^{name} does not take images of {size} pixels, which --size asks for \(.+\); give"

    with pytest.raises(SizeError, match=rf"{sentence} {given}$"):
        check(name, size)
    for other in given.removeprefix("--size ").split(" or "):
        check(name, int(other))


@pytest.mark.parametrize("flag", ["--eval-size", "--start-size"])
def test_a_model_for_one_size_is_shown_that_size_only(flag):
    with pytest.raises(SizeError, match=rf"which {flag} asks for \(.*\); give {flag} 64$"):
        check("vit_b_32", 96, flag=flag)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "densenet121"])
def test_batchnorm_of_a_single_value_is_refused_and_nothing_else(name):
    with pytest.raises(
        SizeError, match=r"on batches of one image of 32 .* BatchNorm .* --batch-size 2 or more$"
    ):
        check(name, 32, images=1)
    check(name, 32, images=2)
    check(name, 96, images=1)
    require_size(build_model(name, 5).eval(), name, View("--size", 32, 32), images=1, num_classes=5)


def test_layernorm_takes_a_single_image():
    check("vit_b_32", 32, images=1)


@pytest.mark.parametrize("size", [16, 32, 63, 75])
@pytest.mark.parametrize("name", ["alexnet", "googlenet", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_a_pass_without_data_refuses_what_a_real_one_does(name, size):
    model = build_model(name, 5).train()
    try:
        shape = tuple(model(torch.randn(2, 3, size, size)).shape)
    except RuntimeError:
        shape = ()

    assert (refusal(model, size=size, images=2, num_classes=5) == "") == (shape == (2, 5))


class Reading(nn.Module):
    """Looks at a value, which a meta tensor does not have, and draws a number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 5)
        self.norm = nn.BatchNorm1d(5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[-1] < 50, "too wide"
        factor = float(images.max()) + float(torch.rand(()))
        scores: torch.Tensor = self.norm(self.layer(images.mean((2, 3)) * factor))
        return scores


def test_a_model_that_looks_at_values_is_tried_with_real_ones_and_left_as_it_was():
    model = Reading()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    drawn = torch.random.get_rng_state()

    assert refusal(model, size=32, images=2, num_classes=5) == ""
    assert refusal(model, size=64, images=2, num_classes=5) == "too wide"
    assert torch.equal(drawn, torch.random.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_what_gives_no_scores_is_refused():
    class Two(nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return images, images

    assert refusal(Two(), size=8, images=2, num_classes=5) == "it gives a tuple, not scores [2, 5]"
    found = refusal(nn.Flatten(), size=8, images=2, num_classes=5)
    assert found == "it gives [2, 192], not scores [2, 5]"
