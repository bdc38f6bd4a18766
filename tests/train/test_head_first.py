"""--head-epochs: the last layer alone at first, then all, in one run; and --head-rate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fastload.advise.models import build_model
from tests.train.pictures import striped_shards
from tests.train.test_run import assert_nearly_the_same_run, start_ranks
from train import compiled
from train.assembly import Run, assemble
from train.command import parse
from train.compiled import Compiler
from train.console import Console
from train.interrupt import Interrupt
from train.log import read_log
from train.run import main, train_epoch
from train.tensorfile import read_tensors

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core:RuntimeWarning")
MODEL = "shufflenet_v2_x0_5"
HEAD = {"fc.weight", "fc.bias"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return striped_shards(tmp_path_factory.mktemp("striped") / "shards")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of another data set: all fit but the last layer's."""
    torch.manual_seed(0)
    file: Path = tmp_path_factory.mktemp("weights") / "start.pt"
    torch.save(build_model(MODEL, 7).state_dict(), file)
    return file


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def arguments(shards: Path, weights: Path, *more: str) -> list[str]:
    return [
        *("--data", str(shards), "--device", "cpu", "--model", MODEL, "--init", str(weights)),
        *("--size", "32", "--batch-size", "8", "--threads", "1", "--quiet-seconds", "3600"),
        *("--no-tensorboard", "--no-report", "--epochs", "3", "--head-epochs", "1", *more),
    ]


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    return {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}


def next_epoch(run: Run, folder: Path) -> None:
    train_epoch(run, folder, Console(writes=False), Interrupt())
    run.position.finish_epoch(0.0)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("tune", ["all", "layerwise"])
def test_the_last_layer_learns_alone_and_then_everything(
    shards, weights, stack, tmp_path, tune, optimizer
):
    more = ("--tune", tune, "--optimizer", optimizer, "--ema", "0.9")
    run = assemble(parse(arguments(shards, weights, *more)).options, stack)
    model, average = run.network.model, run.stepper.evaluated()
    before = state(model)

    next_epoch(run, tmp_path)

    assert changed(before, model) == HEAD  # no weight is decayed, no statistics are taken
    assert changed(before, average) == HEAD
    own = run.stepper.optimizer.state
    assert {id(parameter) for parameter in own} == {id(model.get_parameter(k)) for k in HEAD}

    middle = state(model)
    next_epoch(run, tmp_path)

    assert changed(middle, model) == changed(middle, average) == before.keys()
    assert len(own) == len(list(model.parameters()))
    if optimizer == "adamw":  # each parameter corrects its moments by its own steps
        steps = {k: int(own[model.get_parameter(k)]["step"]) for k in ("fc.bias", "conv1.0.weight")}
        assert steps == {"fc.bias": 2 * 6, "conv1.0.weight": 6}
    assert all(module.training for module in model.modules())


def test_the_first_epoch_is_that_of_tuning_the_head(shards, weights, stack, tmp_path):
    alone = arguments(shards, weights, "--head-epochs", "0", "--tune", "head", "--warmup-epochs")
    first = assemble(parse([*alone, "0", "--epochs", "9999"]).options, stack)
    both = assemble(parse(arguments(shards, weights, "--warmup-epochs", "0")).options, stack)

    for run in (first, both):
        next_epoch(run, tmp_path)

    # 9999 epochs: the cosine of --tune head has hardly begun to fall.
    for key in HEAD:
        one, two = (run.network.model.get_parameter(key) for run in (first, both))
        assert torch.allclose(one, two, atol=1e-5)


@pytest.mark.parametrize("tune", ["all", "layerwise", "head"])
def test_the_rate_of_the_last_layer_is_a_factor_on_its_own(shards, weights, stack, tune):
    more = ("--tune", tune, "--head-rate", "10", "--head-epochs", "0")
    run = assemble(parse(arguments(shards, weights, *more)).options, stack)
    plain = assemble(
        parse(arguments(shards, weights, *more[:2], "--head-epochs", "0")).options, stack
    )

    found, usual = (
        {name: group["rate_scale"] for group in one.network.groups for name in group["names"]}
        for one in (run, plain)
    )

    assert found == {name: usual[name] * (10 if name in HEAD else 1) for name in usual}


def test_stages_are_compiled_each(shards, weights, tmp_path, monkeypatch):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(compiled, "Compiler", partial(Compiler, backend="aot_eager"))
    folder = ("--runs", str(tmp_path), "--name")
    assert main(arguments(shards, weights, *folder, "compiled", "--compile", "--ema", "0.9")) == 0
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert torch._dynamo.utils.counters["graph_break"] == {}
    torch._dynamo.reset()
    assert main(arguments(shards, weights, *folder, "plain", "--ema", "0.9")) == 0

    assert graphs == 2 + 1
    one, two = (read_log(tmp_path / name / "log.csv") for name in ("compiled", "plain"))
    losses = [[float(row["loss"]) for row in rows] for rows in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--tune", "head"), "--tune head trains the last layer alone for all --epochs"),
        (("--init", "scratch"), "those of --init scratch are random"),
        (("--head-epochs", "3"), "--head-epochs must be in [0, 3), so that epochs for all layers"),
        (("--head-epochs", "-1"), "--head-epochs must be in [0, 3)"),
        (("--head-rate", "0"), "--head-rate must be in (0, 1000], got 0.0"),
        (("--head-rate", "nan"), "--head-rate must be a finite number, got nan"),
    ],
)
def test_what_makes_no_sense_is_refused(shards, weights, tmp_path, capsys, more, sentence):
    with pytest.raises(SystemExit) as ended:
        main(arguments(shards, weights, "--runs", str(tmp_path), *more))

    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_two_processes_train_both_stages_as_one_does(shards, tmp_path, optimizer):
    # Neither BatchNorm, which would see the small batches, nor anything random.
    torch.manual_seed(0)
    start = tmp_path / "start.pt"
    torch.save(build_model("squeezenet1_1", 7).state_dict(), start)
    more = (
        *("--model", "squeezenet1_1", "--dropout", "0", "--optimizer", optimizer, "--amp", "off"),
        *("--ema", "0.9", "--runs", str(tmp_path), "--name"),
    )
    commands = {
        "one": ("--batch-size", "8"),
        "two": ("--batch-size", "4"),
        "accumulated": ("--batch-size", "2", "--accumulate", "2"),
    }
    for name, batches in commands.items():
        command = arguments(shards, start, *more, name, *batches)
        processes = start_ranks(command, 1 if name == "one" else 2)
        said = [process.communicate(timeout=600) for process in processes]
        assert not any(process.returncode for process in processes), said

    for name in ("two", "accumulated"):
        assert_nearly_the_same_run(tmp_path / name, tmp_path / "one")
        one, two = (read_tensors(tmp_path / run / "last.pt")["model"] for run in ("one", name))
        for key, value in one.items():
            assert torch.allclose(two[key], value, atol=1e-4), key
