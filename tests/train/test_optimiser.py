"""From losses to a step."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastload.advise.models import build_model
from fastload.world import World
from train.losses import Total, balance
from train.model import former_names, parameter_groups
from train.optimiser import MovingAverage, Stepper, autocast, make_optimizer, precision_for
from train.options import LossOptions, OptimisationOptions
from train.ranks import Ranks

CPU = torch.device("cpu")
ALONE = Ranks(world=World(), device=CPU)
COUNTS = np.array([50, 5, 1])


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def stepper_for(model: nn.Module, options: OptimisationOptions, **arguments) -> Stepper:
    groups = parameter_groups(model, weight_decay=options.weight_decay, stem_rate=1.0)
    facts = {"device": CPU, "precision": None, "batch_size": 8, "ranks": ALONE, **arguments}
    optimizer = make_optimizer(
        groups, options, device=facts["device"], precision=facts["precision"]
    )
    return Stepper(model, optimizer, options, **facts)


def batches(count: int, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 6, generator=generator), torch.randint(3, (size,), generator=generator))
        for _ in range(count)
    ]


def train(model: nn.Module, stepper: Stepper, steps: list[Any], loss) -> None:
    for parts in steps:
        for images, labels in parts:
            stepper.backward(loss(model(images), labels))
        stepper.step(0.1)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("loss", [LossOptions(), LossOptions(class_weights="inverse")])
def test_accumulated_batches_make_the_step_of_the_large_batch(optimizer, loss):
    options = OptimisationOptions(optimizer=optimizer, clip=0.5)
    minimised = balance("none", loss, COUNTS, CPU).loss
    parts = batches(12, 4)
    whole = [
        [tuple(torch.cat(column) for column in zip(*parts[i : i + 4], strict=True))]
        for i in range(0, 12, 4)
    ]
    small, large = network(), network()

    small_steps = [parts[i : i + 4] for i in range(0, 12, 4)]
    train(small, stepper_for(small, options, batch_size=4), small_steps, minimised)
    train(large, stepper_for(large, options, batch_size=16), whole, minimised)

    # AdamW divides each gradient by its own size, and so enlarges the rounding of a tiny one: over
    # 40 seeds and two sets of instructions the largest difference is 4e-6. The mean of the means of
    # weighted parts, which is what this is not, is at least 0.01 away.
    for one, other in zip(small.parameters(), large.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_a_short_last_batch_weighs_as_many_images_as_it_has():
    options = OptimisationOptions()
    loss = balance("none", LossOptions(), COUNTS, CPU).loss
    (images, labels), *_ = batches(1, 10)
    small, large = network(), network()

    parts = [[(images[:8], labels[:8]), (images[8:], labels[8:])]]
    train(small, stepper_for(small, options), parts, loss)
    train(large, stepper_for(large, options), [[(images, labels)]], loss)

    for one, other in zip(small.parameters(), large.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


class Passes(TorchDispatchMode):
    """Counts the multiplications of all gradients by one factor."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += "_foreach_mul_" in str(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("loss", "sizes", "passes"),
    [
        (LossOptions(), [8], 0),
        (LossOptions(loss="focal"), [8], 0),
        (LossOptions(loss="balanced", label_smoothing=0.1), [8], 0),
        (LossOptions(), [7], 1),
        (LossOptions(), [8, 8], 1),
        (LossOptions(), [8, 8, 8], 1),
        (LossOptions(), [8, 3], 1),
        (LossOptions(class_weights="sqrt"), [8], 1),
    ],
)
def test_gradients_are_passed_over_where_it_changes_them_and_have_the_same_bits(
    loss, sizes, passes
):
    minimised = balance("none", loss, COUNTS, CPU).loss
    models = network(), network()
    drawn = batches(len(sizes), 8)
    parts = [(drawn[i][0][:size], drawn[i][1][:size]) for i, size in enumerate(sizes)]

    with Passes() as passed:
        train(models[0], stepper_for(models[0], OptimisationOptions()), [parts], minimised)
    train(
        models[1],
        stepper_for(models[1], OptimisationOptions()),
        [parts],
        lambda logits, labels: minimised(logits, labels)._replace(known_weight=None),
    )

    assert passed.count == passes
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_sgd_is_that_of_torch_on_the_mean_loss():
    options = OptimisationOptions(momentum=0.9, weight_decay=0.0)
    model, plain = network(), network()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    steps = batches(3, 8)

    loss = balance("none", LossOptions(), COUNTS, CPU).loss
    train(model, stepper_for(model, options), [[batch] for batch in steps], loss)
    for images, labels in steps:
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(images), labels).backward()
        optimizer.step()

    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_clipping_limits_the_length_of_a_step():
    options = OptimisationOptions(clip=1e-3, momentum=0.0, weight_decay=0.0)
    model = network()
    before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    loss = balance("none", LossOptions(), COUNTS, CPU).loss
    train(model, stepper_for(model, options), [batches(1, 8)], loss)

    after = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert float((after - before).norm()) == pytest.approx(0.1 * 1e-3, rel=1e-3)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_mixed_precision_makes_nearly_the_same_step(precision):
    options = OptimisationOptions(momentum=0.0)
    half, full = network(), network()
    loss = balance("none", LossOptions(), COUNTS, CPU).loss
    (images, labels), *_ = batches(1, 8)

    stepper = stepper_for(half, options, precision=precision)
    with autocast(CPU, precision):
        logits = half(images)
    stepper.backward(loss(logits, labels))
    stepper.step(0.1)
    train(full, stepper_for(full, options), [[(images, labels)]], loss)

    assert logits.dtype == precision
    assert stepper.scaler.is_enabled() == (precision == torch.float16)
    for one, other in zip(half.parameters(), full.parameters(), strict=True):
        assert torch.allclose(one, other, atol=2e-3)


def test_a_gradient_that_overflows_is_skipped_and_lowers_the_scale():
    model = network()
    stepper = stepper_for(model, OptimisationOptions(clip=1.0), precision=torch.float16)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    scale = stepper.scaler.get_scale()

    loss = balance("none", LossOptions(), COUNTS, CPU).loss
    images, labels = batches(1, 8)[0]
    total = loss(model(images), labels)
    stepper.backward(Total(total.loss * 1e38, total.weight))
    stepper.step(0.1)

    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert stepper.scaler.get_scale() < scale


def test_a_state_that_was_saved_without_float16_goes_on_with_it():
    plain = stepper_for(network(), OptimisationOptions())
    half = stepper_for(network(), OptimisationOptions(), precision=torch.float16)
    scale = half.scaler.get_scale()

    half.load_state_dict(plain.state_dict())

    assert half.scaler.get_scale() == scale


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_first_step_that_overflows_leaves_nothing_behind_with_a_gpu_s_optimizer(kind):
    # The fused kernels, where they are used, run on a CPU as well. torch's own for SGD fails here.
    options = OptimisationOptions(optimizer=kind)
    loss = balance("none", LossOptions(), COUNTS, CPU).loss
    steps = batches(3, 8)
    models = network(), network()
    for model, overflows in zip(models, (True, False), strict=True):
        groups = parameter_groups(model, weight_decay=options.weight_decay, stem_rate=1.0)
        optimizer = make_optimizer(
            groups, options, device=torch.device("cuda"), precision=torch.float16
        )
        stepper = Stepper(
            model,
            optimizer,
            options,
            device=CPU,
            precision=torch.float16,
            batch_size=8,
            ranks=ALONE,
        )
        if overflows:
            total = loss(model(steps[0][0]), steps[0][1])
            stepper.backward(Total(total.loss * 1e38, total.weight))
            stepper.step(0.1)
        train(model, stepper, [[batch] for batch in steps], loss)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_precision_is_float32_on_a_cpu_unless_asked_for():
    assert precision_for("auto", CPU) is None
    assert precision_for("off", torch.device("cuda")) is None
    assert precision_for("bf16", CPU) == torch.bfloat16


@pytest.mark.gpu
def test_precision_on_a_gpu_is_one_that_its_hardware_computes_with():
    native = torch.cuda.is_bf16_supported(including_emulation=False)

    found = precision_for("auto", torch.device("cuda"))

    assert found == (torch.bfloat16 if native else torch.float16)


def test_the_moving_average_follows_parameters_and_buffers():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = MovingAverage(model, 0.5)
    begin = model.get_parameter("0.weight").detach().clone()
    with torch.no_grad():
        model.get_parameter("0.weight").add_(1.0)
        model.get_buffer("1.running_mean").fill_(4.0)
        model.get_buffer("1.num_batches_tracked").fill_(7)

    average.update()  # decay (1 + 1) / (10 + 1) = 2/11 in the first step

    assert torch.allclose(average.model.get_parameter("0.weight"), begin + 9 / 11)
    assert torch.allclose(average.model.get_buffer("1.running_mean"), torch.tensor(4 * 9 / 11))
    assert int(average.model.get_buffer("1.num_batches_tracked")) == 7
    assert not average.model.training


def test_the_decay_of_the_average_grows_to_its_final_value():
    model = nn.Linear(1, 1, bias=False)
    average = MovingAverage(model, 0.9)
    average.updates = 10_000
    before = average.model.get_parameter("weight").clone()
    with torch.no_grad():
        model.weight.add_(1.0)

    average.update()

    assert torch.allclose(average.model.get_parameter("weight"), before + 0.1)


def test_the_evaluated_model_is_the_average_where_there_is_one():
    model = network()

    assert stepper_for(model, OptimisationOptions()).evaluated() is model
    assert stepper_for(model, OptimisationOptions(ema=0.9)).evaluated() is not model


def test_frozen_parameters_need_no_gradient():
    model = build_model("shufflenet_v2_x0_5", 3)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("fc"))
    stepper = stepper_for(model, OptimisationOptions())
    loss = balance("none", LossOptions(), COUNTS, CPU).loss
    before = {name: value.detach().clone() for name, value in model.named_parameters()}

    stepper.backward(loss(model(torch.randn(2, 3, 32, 32)), torch.tensor([0, 1])))
    stepper.step(0.1)

    assert stepper.learning_rate == 0.1
    changed = {k for k, v in model.named_parameters() if not torch.equal(v, before[k])}
    assert changed == {"fc.weight", "fc.bias"}


class Tokens(nn.Module):
    """All kinds of parameters, in an order that no group keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 6))
        self.first, self.norm, self.last = nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(self.norm(self.first(images + self.token)))
        return logits


def tokens(**grouping: Any) -> tuple[nn.Module, Stepper]:
    torch.manual_seed(0)
    model, options = Tokens(), OptimisationOptions(optimizer="adamw")
    groups = parameter_groups(model, weight_decay=0.1, **grouping)
    optimizer = make_optimizer(groups, options, device=CPU, precision=None)
    return model, Stepper(
        model, optimizer, options, device=CPU, precision=None, batch_size=8, ranks=ALONE
    )


def moments(model: nn.Module, stepper: Stepper) -> dict[str, torch.Tensor]:
    return {
        name: stepper.optimizer.state[parameter]["exp_avg"]
        for name, parameter in model.named_parameters()
    }


def assert_equal_tensors(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name]), name


@pytest.mark.parametrize(
    "grouping",
    [{}, {"decay_norms": True}, {"stem_rate": 0.1}, {"stem_rate": 0.5, "decay_norms": True}],
    ids=str,
)
def test_the_state_of_the_optimizer_belongs_to_names_whatever_the_groups(grouping):
    loss = balance("none", LossOptions(), COUNTS, CPU).loss
    model, stepper = tokens()
    train(model, stepper, [[batch] for batch in batches(3, 8)], loss)

    resumed, goes_on = tokens(**grouping)
    resumed.load_state_dict(model.state_dict())
    goes_on.load_state_dict(copy.deepcopy(stepper.state_dict()))

    assert_equal_tensors(moments(resumed, goes_on), moments(model, stepper))
    assert goes_on.learning_rate == pytest.approx(0.1)
    train(resumed, goes_on, [[batch] for batch in batches(3, 8)], loss)


@pytest.mark.parametrize("stem_rate", [1.0, 0.1])
def test_a_checkpoint_whose_groups_have_no_names_and_other_members_goes_on(stem_rate):
    loss = balance("none", LossOptions(), COUNTS, CPU).loss
    steps = [[batch] for batch in batches(3, 8)]
    model, stepper = tokens(stem_rate=stem_rate)
    train(model, stepper, steps, loss)
    # As it was written when the token was among the weights: by number, in former groups.
    former = former_names(model, layerwise=stem_rate != 1)
    numbers: dict[str, int] = {}
    groups: list[dict[str, Any]] = []
    rates = {n: g["rate_scale"] for g in stepper.optimizer.param_groups for n in g["names"]}
    for names in former:
        number = len(numbers)
        numbers.update({name: number + i for i, name in enumerate(names)})
        group = {"lr": 0.1 * rates[names[0]], "rate_scale": rates[names[0]], "weight_decay": 0.1}
        groups.append({**group, "params": [numbers[name] for name in names]})
    assert any({"token", "first.weight"} <= set(names) for names in former) == (stem_rate == 1)
    of_name = dict(model.named_parameters())
    state = {numbers[name]: stepper.optimizer.state[of_name[name]] for name in numbers}
    saved = {**stepper.state_dict(), "optimizer": {"state": state, "param_groups": groups}}

    resumed, goes_on = tokens(stem_rate=stem_rate)
    resumed.load_state_dict(model.state_dict())
    goes_on.load_state_dict(copy.deepcopy(saved))

    assert_equal_tensors(moments(resumed, goes_on), moments(model, stepper))
    train(model, stepper, steps, loss)
    train(resumed, goes_on, steps, loss)
    assert_equal_tensors(dict(resumed.named_parameters()), dict(model.named_parameters()))
