"""The last layer in float32, so that no two classes have the same score."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fastload.advise.models import build_model
from train.head import answer_in_float32
from train.model import head_names

CLASSES = 1000
MODELS = (
    *("resnet18", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5", "densenet121"),
    *("convnext_tiny", "swin_t"),
)


def small(name: str, classes: int = CLASSES) -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, classes).eval()


@torch.no_grad()
def in_bfloat16(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer: Tensor = model(images)
        return answer


def ties(logits: Tensor) -> int:
    """Images whose ten best scores are not all different."""
    best = logits.float().topk(10, 1).values
    return int((best[:, 1:] == best[:, :-1]).any(1).sum())


@pytest.mark.parametrize("name", MODELS)
def test_the_best_scores_of_an_evaluation_are_all_different(name):
    model, images = small(name), torch.randn(8, 3, 64, 64)
    before = in_bfloat16(model, images)

    answer_in_float32(model, head_names(name, CLASSES))

    after = in_bfloat16(model, images)
    assert (before.dtype, after.dtype) == (torch.bfloat16, torch.float32)
    assert ties(before) > 0
    if name != "squeezenet1_1":  # its scores end with a ReLU: many are 0
        assert ties(after) == 0
    assert torch.allclose(before.float(), after, atol=0.02 * float(after.abs().max()))


def test_training_computes_as_before_and_a_copy_has_layers_of_its_own():
    model, images = small("resnet18", 10), torch.randn(2, 3, 32, 32)
    answer_in_float32(model, head_names("resnet18", 10))
    other = copy.deepcopy(model)
    nn.init.zeros_(other.get_parameter("fc.weight"))
    nn.init.ones_(other.get_parameter("fc.bias"))

    assert in_bfloat16(other, images).tolist() == [[1.0] * 10] * 2
    assert in_bfloat16(model, images).tolist() != [[1.0] * 10] * 2
    assert in_bfloat16(model.train(), images).dtype == torch.bfloat16
    assert model.state_dict().keys() == small("resnet18", 10).state_dict().keys()


def test_nothing_changes_without_mixed_precision():
    model, images = small("resnet18", 10), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = model(images)
        answer_in_float32(model, head_names("resnet18", 10))

        assert torch.equal(model(images), before)


def test_a_compiled_model_answers_in_float32_too():
    model, images = small("resnet18", 10), torch.randn(2, 3, 32, 32)
    answer_in_float32(model, head_names("resnet18", 10))
    compiled = torch.compile(model, backend="eager", fullgraph=True)

    assert torch.equal(in_bfloat16(compiled, images), in_bfloat16(model, images))
    assert in_bfloat16(compiled, images).dtype == torch.float32
