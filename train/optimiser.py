"""From losses to a step: accumulation, mixed precision, clipping, optimizer, moving average."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from train.losses import Total
from train.model import former_names
from train.options import OptimisationOptions
from train.ranks import Ranks

Precision = torch.dtype | None


def precision_for(amp: str, device: torch.device) -> Precision:
    """The dtype of mixed precision, or None for float32 throughout.

    "auto" is off on a CPU; on a GPU it is bfloat16 where the hardware computes with it (Ampere and
    later), since it needs no loss scaling, else float16.
    """
    if amp == "auto":
        if device.type != "cuda":
            return None
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}[amp]


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """The context in which a model runs."""
    if precision is None:
        return nullcontext()
    return torch.autocast(device.type, dtype=precision)


def make_optimizer(
    groups: list[dict[str, Any]],
    options: OptimisationOptions,
    *,
    device: torch.device,
    precision: Precision,
) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW; the learning rate is set before each step.

    On CUDA, and for AdamW on a CPU, a step is one fused kernel. With float16 that of AdamW also
    skips a step whose gradients overflowed, without asking the host. That of SGD must not be used
    there: torch 2.11 and 2.14 leave the momentum of a first step that is skipped uninitialised, and
    the second step adds it.

    Args:
        groups: From `parameter_groups`.
        options: Which of the two, and its numbers.
        device: Where the model is.
        precision: The dtype of mixed precision, from `precision_for`.
    """
    on_gpu = device.type == "cuda"
    if options.optimizer == "adamw":
        return torch.optim.AdamW(
            groups,
            lr=0.0,
            betas=(options.momentum, 0.999),
            weight_decay=options.weight_decay,
            fused=device.type in ("cpu", "cuda") or None,
        )
    return torch.optim.SGD(
        groups,
        lr=0.0,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        nesterov=options.momentum > 0,
        fused=(on_gpu and precision != torch.float16) or None,
    )


class MovingAverage:
    """An exponential moving average of a model's parameters and buffers.

    torch.optim.swa_utils.AveragedModel would give other values and cost more: its first update
    copies the weights, and each update walks over all tensors in Python and copies a counter to the
    device.

    The decay grows to its final value as (1 + n) / (10 + n) over the updates n, as in TensorFlow's
    ExponentialMovingAverage, so that a short run does not average its random start.

    Attributes:
        model: The averaged model, in evaluation mode.
        updates: How many steps it has followed.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.updates = 0
        self._decay = decay
        self._averages, self._counters = _tensors(self.model)
        self._values, self._counts = _tensors(model)

    @torch.no_grad()
    def update(self) -> None:
        """Follow the model by one step."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._averages, self._values, 1 - decay)
        if self._counters:
            torch._foreach_copy_(self._counters, self._counts)


def _tensors(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters and buffers of floating point; other buffers, such as BatchNorm's counters.

    The tensors stay the same objects as long as the model stays on its device.
    """
    every = [*model.parameters(), *model.buffers()]
    return (
        [tensor for tensor in every if tensor.is_floating_point()],
        [tensor for tensor in every if not tensor.is_floating_point()],
    )


class Stepper:
    """Gathers the gradients of some batches and makes one exact step of them.

    The gradient of a step is that of (sum of losses) / (sum of weights) over all batches of the
    step and all ranks. So it is the gradient of one large batch; only BatchNorm sees the small
    batches. A step of one full batch whose images weigh 1 each has this gradient as it is; other
    gradients are multiplied by a factor, which is one more pass over them.

    Every rank must have as many images in a step as the others, as a training loader gives them.

    Args:
        model: The bare module: its parameters are stepped and clipped.
        optimizer: Over groups from `parameter_groups`.
        options: Clipping and moving average.
        device: Where the model is.
        precision: The dtype of mixed precision, from `precision_for`.
        batch_size: Images of a full batch on this rank.
        ranks: The processes of the run.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        options: OptimisationOptions,
        *,
        device: torch.device,
        precision: Precision,
        batch_size: int,
        ranks: Ranks,
    ) -> None:
        self.optimizer = optimizer
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
        self.average = MovingAverage(model, options.ema) if options.ema else None
        self._model = model
        self._clip = options.clip
        self._ranks = ranks
        self._batch_size = float(batch_size)
        self._weight: Tensor | float = 0.0  # a number as long as the host knows it

    @contextmanager
    def accumulating(self, wrapped: nn.Module, *, last: bool) -> Iterator[None]:
        """Around forward and backward of a batch; ranks exchange gradients in the `last` batch.

        Args:
            wrapped: The module that is called: the model, or DistributedDataParallel around it.
            last: True in the batch that the step follows.
        """
        no_sync = getattr(wrapped, "no_sync", None)
        with nullcontext() if last or no_sync is None else no_sync():
            yield

    def backward(self, total: Total) -> None:
        """Add the gradients of one batch's loss."""
        # The division keeps numbers near 1, which float16 needs; `step` reverts it.
        self.scaler.scale(total.loss / self._batch_size).backward()  # type: ignore[no-untyped-call]  # untyped in torch
        known = total.known_weight
        self._weight = self._weight + (total.weight.detach() if known is None else known)

    def step(self, learning_rate: float) -> None:
        """Make the step, and begin the next one."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["rate_scale"]
        self.scaler.unscale_(self.optimizer)
        self._rescale()
        if self._clip:
            nn.utils.clip_grad_norm_(self._parameters(), self._clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self._weight = 0.0
        if self.average is not None:
            self.average.update()

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step, before a layer's own factor."""
        group = self.optimizer.param_groups[0]
        return float(group["lr"] / group["rate_scale"])

    @torch.no_grad()
    def _rescale(self) -> None:
        """Make the gradients those of the mean loss; `backward` divided by a full batch instead."""
        factor: Tensor | float
        if isinstance(self._weight, Tensor):
            # DistributedDataParallel gives the mean over ranks; the step needs the sum.
            factor = self._batch_size * self._ranks.world.size / self._ranks.summed(self._weight)
        elif self._weight == self._batch_size:
            return
        else:
            factor = self._batch_size / self._weight
        gradients = [item.grad for item in self._parameters() if item.grad is not None]
        torch._foreach_mul_(gradients, factor)

    def _parameters(self) -> list[nn.Parameter]:
        return [item for group in self.optimizer.param_groups for item in group["params"]]

    def evaluated(self) -> nn.Module:
        """The model that is evaluated and saved: the moving average, where there is one."""
        return self._model if self.average is None else self.average.model

    def state_dict(self) -> dict[str, Any]:
        """Optimizer, scaler and moving average; between two steps nothing else has a state."""
        average = None
        if self.average is not None:
            average = {"model": self.average.model.state_dict(), "updates": self.average.updates}
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": average,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`, with the weight decay and so on of the options."""
        self.optimizer.load_state_dict(self._by_name(state["optimizer"]))
        if state["scaler"]:  # empty where it was saved without float16
            self.scaler.load_state_dict(state["scaler"])
        if self.average is not None and state["average"] is not None:
            self.average.model.load_state_dict(state["average"]["model"])
            self.average.updates = state["average"]["updates"]

    def _by_name(self, saved: dict[str, Any]) -> dict[str, Any]:
        """The saved state of each parameter, in the groups of today's options.

        Other options for weight decay or learning rates make other groups. torch would go by the
        number of a parameter, and never compares shapes.
        """
        theirs = saved["param_groups"]
        if not all("names" in group for group in theirs):  # an earlier version
            names = former_names(self._model, layerwise=len({g["rate_scale"] for g in theirs}) > 1)
            theirs = [{**group, "names": n} for group, n in zip(theirs, names, strict=True)]
        numbers: dict[str, int] = {}
        of_name: dict[str, dict[str, Any]] = {}
        for group in theirs:
            numbers.update(zip(group["names"], group["params"], strict=True))
            of_name.update(dict.fromkeys(group["names"], group))
        state, groups = {}, []
        for mine in self.optimizer.state_dict()["param_groups"]:
            former = of_name[mine["names"][0]]
            rate = former["lr"] * (mine["rate_scale"] / former["rate_scale"])
            groups.append({**mine, "lr": rate})
            for number, name in zip(mine["params"], mine["names"], strict=True):
                if numbers[name] in saved["state"]:
                    state[number] = saved["state"][numbers[name]]
        return {"state": state, "param_groups": groups}
