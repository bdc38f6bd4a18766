"""What changes while training runs: learning rate, image size, and when to stop.

Pure arithmetic on (options, step, history). A run that is resumed needs no scheduler state: the
same step and the same history give the same learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from train.options import OptimisationOptions, ResolutionOptions, ScheduleOptions

# Goyal et al., "Accurate, large minibatch SGD", 2017, state their rates for a batch of 256.
REFERENCE_BATCH = 256

# Learning rates for a batch of 256, where --lr is not given.
#   sgd scratch    0.1: Goyal et al. 2017, section 2.1; He et al. 2016.
#   sgd transfer   0.08: Pl@ntNet-300K's 0.01 at a batch of 32 (README of its repository), by the
#                  linear rule.
#   adamw scratch  1e-3: the optimizer's own default (Loshchilov and Hutter, 2019).
#   adamw transfer 2e-4: tiffanyding/long-tail-conformal fine-tunes at 1e-4 and a batch of 32;
#                  1e-4 * sqrt(8), rounded down.
_DEFAULT_RATES = {
    ("sgd", "scratch"): 0.1,
    ("sgd", "transfer"): 0.08,
    ("adamw", "scratch"): 1e-3,
    ("adamw", "transfer"): 2e-4,
}


def base_rate(options: OptimisationOptions, *, scratch: bool, effective_batch: int) -> float:
    """The peak learning rate.

    Args:
        options: `lr` is stated for a batch of 256; 0 takes the default of the optimizer.
        scratch: True if the weights are random.
        effective_batch: Images per optimizer step: batch size x accumulated batches x ranks.

    Returns:
        `lr` times effective_batch / 256 for the linear rule, its square root for the "sqrt" rule,
        unchanged for "none". "auto" is linear for SGD (Goyal et al. 2017) and sqrt for AdamW
        (Malladi et al., "On the SDEs and scaling rules for adaptive gradient algorithms", 2022).
    """
    kind = "scratch" if scratch else "transfer"
    rate = options.lr or _DEFAULT_RATES[options.optimizer, kind]
    rule = options.lr_rule
    if rule == "auto":
        rule = "linear" if options.optimizer == "sgd" else "sqrt"
    ratio = effective_batch / REFERENCE_BATCH
    return rate * {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[rule]


def rate_factor(
    options: ScheduleOptions, *, step: int, steps_per_epoch: int, history: Sequence[float]
) -> float:
    """The factor on the peak learning rate at one optimizer step.

    While the last layer is trained alone, for `head_epochs`, the rate rises and stays at its peak.
    Then all layers begin the schedule with a warm-up of their own, as in fast.ai's fine_tune.

    Args:
        options: The schedule.
        step: In [0, epochs * steps_per_epoch), over the whole run.
        steps_per_epoch: At least 1.
        history: The chosen validation figure after each finished epoch, higher is better;
            only "plateau" reads it.

    Returns:
        In [0, 1].
    """
    warmup, alone = (
        round(epochs * steps_per_epoch) for epochs in (options.warmup_epochs, options.head_epochs)
    )
    if step < alone:
        return min((step + 1) / (min(warmup, alone) + 1), 1.0)
    since = step - alone
    if since < warmup:
        return (since + 1) / (warmup + 1)
    if options.schedule == "cosine":
        rest = max(options.epochs * steps_per_epoch - alone - warmup, 1)
        return 0.5 * (1 + math.cos(math.pi * min((since - warmup) / rest, 1.0)))
    if options.schedule == "step":
        epoch = step // steps_per_epoch
        return float(options.step_factor ** sum(epoch >= start for start in options.step_epochs))
    drops = _plateaus(history[options.head_epochs :], options.patience)
    return float(options.step_factor**drops)


def _plateaus(history: Sequence[float], patience: int) -> int:
    """How often `patience` epochs in a row brought no new best."""
    drops, waited, best = 0, 0, -math.inf
    for figure in history:
        if figure > best:
            best, waited = figure, 0
        else:
            waited += 1
        if waited == patience:
            drops, waited = drops + 1, 0
    return drops


def has_stopped_improving(history: Sequence[float], early_stop: int) -> bool:
    """True if the last `early_stop` epochs brought no new best; 0 never stops early."""
    if not early_stop or len(history) <= early_stop:
        return False
    return max(history[-early_stop:]) <= max(history[:-early_stop])


def is_over(options: ScheduleOptions, history: Sequence[float]) -> bool:
    """Whether a run with this history, one figure for each finished epoch, is at its end.

    The epochs of the last layer alone do not count for stopping early: the rest has yet to learn.
    """
    return len(history) >= options.epochs or has_stopped_improving(
        history[options.head_epochs :], options.early_stop
    )


def size_at(options: ResolutionOptions, *, epoch: int, epochs: int) -> int:
    """The side of the training images in one epoch, in pixels.

    Progressive resizing (as in the FFCV and fast.ai recipes): `start_size` until the share
    `ramp_from` of the run, then a straight line up to `size`, reached at the share `ramp_to`;
    multiples of 32 in between.

    Args:
        options: `start_size` 0 means `size` throughout.
        epoch: In [0, epochs).
        epochs: Length of the run.
    """
    start, end = options.start_size, options.size
    share = epoch / epochs
    if not start or share >= options.ramp_to:
        return end
    if share <= options.ramp_from:
        return start
    risen = (share - options.ramp_from) / (options.ramp_to - options.ramp_from)
    exact = start + risen * (end - start)
    return min(max(round(exact / 32) * 32, min(start, end)), max(start, end))
