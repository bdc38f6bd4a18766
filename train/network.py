"""The model of a run, ready to be trained: built, started from weights, tuned and wrapped."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fastload.advise.models import build_model
from fastload.advise.sizes import View, require_size
from train.compiled import Compiler, Forward, compiler_for
from train.model import freeze_all_but, head_names, parameter_groups, set_training
from train.options import Normalisation, Options
from train.ranks import Ranks
from train.regularise import builder_arguments, regularise
from train.schedule import size_at
from train.weights import described, load_weights, start_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What is trained in some epochs, and how it is called.

    Attributes:
        trained: Names of the parameters that are trained.
        wrapped: The module that training calls: wrapped for several processes.
        forward: How training calls the wrapped module.
    """

    trained: AbstractSet[str]
    wrapped: nn.Module
    forward: Forward

    def begin(self, model: nn.Module) -> None:
        """Freeze the rest of the model, in evaluation mode, and train these parameters."""
        freeze_all_but(model, self.trained)
        set_training(model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A model and how it is called.

    Attributes:
        model: The bare module: saved, evaluated, averaged.
        stages: Those of the run. Of two, the first trains the last layer for --head-epochs.
        compiler: Compiles what is called; None without --compile.
        groups: The trainable parameters, grouped for an optimizer.
        head: The names of the last layer's parameters.
        normalise: (mean, std) of the images that the weights were trained on, where known.
        fresh_head: True unless the last layer came with the weights.
        origin: Where the weights come from, and which of them were kept.
        doubt: Why these may not be weights of this model; "" where nothing speaks for it.
    """

    model: nn.Module
    stages: tuple[Stage, ...]
    compiler: Compiler | None
    groups: list[dict[str, Any]]
    head: frozenset[str]
    normalise: Normalisation | None
    fresh_head: bool
    origin: str
    doubt: str = ""

    def forward_of(self, module: nn.Module) -> Forward:
        """How another module of the run is called: compiled with --compile."""
        return self.compiler.forward_of(module) if self.compiler else module

    @property
    def num_trained(self) -> int:
        """How many parameters are trained."""
        return sum(item.numel() for item in self.model.parameters() if item.requires_grad)


def build_network(
    options: Options, classes: Sequence[str], ranks: Ranks, *, resumed: bool = False
) -> Network:
    """Build the model that the options describe, on the device of this process.

    Args:
        options: Which model, from which weights, and what of it is trained.
        classes: What its outputs mean, in order.
        ranks: The processes that train it together.
        resumed: True if a checkpoint will give the weights: those of --init may be gone.

    Raises:
        FastloadError: If there is no such model, or its weights cannot be had or do not fit.
    """
    chosen = options.model
    compiler = compiler_for(options, ranks)
    arguments = builder_arguments(chosen.model, options.regularisation)
    model = build_model(
        chosen.model, len(classes), size=options.resolution.size, arguments=arguments
    )
    head = head_names(chosen.model, len(classes))
    if chosen.tune == "head":
        freeze_all_but(model, head)
    _check_images(model, options, ranks, len(classes))
    origin, doubt, fresh_head = "random weights", "", True
    weights = None if resumed else start_weights(chosen, model.state_dict())
    if weights is not None:
        tensors = weights.tensors
        others = weights.classes not in {None, tuple(classes)}  # an output would mean another class
        if others:
            tensors = {name: value for name, value in tensors.items() if name not in head}
        loaded = load_weights(model, tensors, head=head)
        if others:
            loaded = replace(loaded, missing=tuple(k for k in loaded.missing if k not in head))
        origin, doubt = described(chosen.init, weights, loaded), loaded.doubt
        if others:
            origin += f"; of other classes, started anew: {', '.join(sorted(head))}"
        fresh_head = not head <= set(loaded.kept)
    if chosen.sync_batchnorm and ranks.world.size > 1 and ranks.device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]  # untyped in torch
    regularise(model, chosen.model, options.regularisation, head=head)
    model = model.to(ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
    trained = [{name for name, value in model.named_parameters() if value.requires_grad}]
    if options.schedule.head_epochs:
        trained = [trained[0] & head, *trained]
    return Network(
        model=model,
        stages=tuple(_stage(names, model, compiler, ranks) for names in trained),
        compiler=compiler,
        groups=parameter_groups(
            model,
            weight_decay=options.optimisation.weight_decay,
            stem_rate=chosen.stem_rate if chosen.tune == "layerwise" else 1.0,
            decay_norms=options.optimisation.decay_norms,
            head=head,
            head_rate=options.optimisation.head_rate,
        ),
        head=head,
        normalise=weights.normalise if weights is not None else None,
        fresh_head=fresh_head,
        origin=origin,
        doubt=doubt,
    )


def _stage(
    trained: AbstractSet[str], model: nn.Module, compiler: Compiler | None, ranks: Ranks
) -> Stage:
    """The stage that trains these parameters; the model is left in that stage.

    DistributedDataParallel exchanges the gradients of what is trained when it is made, so that each
    stage has one of its own. Only the one that is called exchanges gradients.
    """
    freeze_all_but(model, trained)
    wrapped = _wrapped(model, ranks)
    forward = compiler.forward_of(wrapped) if compiler else wrapped
    return Stage(trained=trained, wrapped=wrapped, forward=forward)


def _check_images(model: nn.Module, options: Options, ranks: Ranks, num_classes: int) -> None:
    """Check that the model takes every batch of the run, before anything is downloaded or written.

    Raises:
        SizeError: If it does not.
    """
    resolution, epochs = options.resolution, options.schedule.epochs
    joined = options.model.sync_batchnorm and ranks.device.type == "cuda"
    images = options.data.batch_size * (ranks.world.size if joined else 1)
    sizes = {
        size_at(resolution, epoch=epoch, epochs=epochs): "--start-size" for epoch in range(epochs)
    }
    set_training(model)
    for size, flag in {**sizes, resolution.size: "--size"}.items():
        view = View(flag, size, resolution.size)
        require_size(model, options.model.model, view, images=images, num_classes=num_classes)
    model.eval()
    view = View("--eval-size", resolution.eval_size or resolution.size, resolution.size)
    require_size(model, options.model.model, view, images=images, num_classes=num_classes)
    model.train()


def _wrapped(model: nn.Module, ranks: Ranks) -> nn.Module:
    trainable = any(parameter.requires_grad for parameter in model.parameters())
    if ranks.world.size == 1 or not trainable:
        return model
    places = [ranks.device.index] if ranks.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=places)
