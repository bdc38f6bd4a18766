"""What a run prints: on one rank, and without an exchange with the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fastload.world import World
from tests.train.pictures import striped_shards
from train.assembly import Run, assemble
from train.checks import Overfit
from train.command import parse
from train.console import Console, percent
from train.evaluation import Examination, Verdict, judge
from train.meter import Meter
from train.ranks import Ranks

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core:RuntimeWarning")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run that believes itself one of two processes, and has joined no other."""
    shards = striped_shards(tmp_path_factory.mktemp("striped") / "shards")
    command = parse(
        [
            *("--data", str(shards), "--device", "cpu", "--model", "shufflenet_v2_x0_5"),
            *("--init", "scratch", "--size", "32", "--batch-size", "4", "--threads", "1"),
        ]
    )
    with ExitStack() as stack:
        alone = assemble(command.options, stack)
        ranks = Ranks(world=World(rank=0, size=2), device=torch.device("cpu"))
        yield replace(alone, ranks=ranks, warnings=("something is odd",))


def verdict_on(run: Run) -> Verdict:
    labels = torch.arange(4)
    examination = Examination(4, 4, torch.zeros(4), temperature=None, chooses=True)
    examination.add(10 * torch.eye(4), labels, labels)
    alone = Ranks(world=World(rank=0, size=1), device=torch.device("cpu"))
    return judge(run, examination.finish(alone, 2.0))


def everything(console: Console, run: Run) -> None:
    """Print all that a run can print."""
    console.setup(run, Path("runs/a/last.pt"))
    meter = Meter(loss=6.0, weight=4.0, images=4, waiting_seconds=1.0, compute_seconds=3.0)
    console.epoch(run, meter, verdict_on(run))
    console.profile(run.loaders.train.stats())
    result = {"best_epoch": 3, "epochs": 5, "best_by": "top1", "images_per_second": 20.0}
    console.result(run, Path("runs/a"), {**result, "waiting_share": 0.25, "val": {"top1": 0.5}})
    console.overfit(Overfit(first_loss=2.0, last_loss=0.1, accuracy=1.0, steps=9))


def test_an_exchange_of_this_run_with_other_ranks_fails(run):
    with pytest.raises(ValueError, match="process group"):
        run.ranks.gathered(1)


def test_what_is_printed_needs_no_exchange_with_other_ranks(run, capsys):
    everything(Console(writes=True), run)

    said = capsys.readouterr()
    assert said.out.startswith("data:     48 training images of 4 classes in ")
    assert (
        "epoch 1/30: loss 1.500, val top-1 100.0%, macro 100.0% (prior corrected 100.0%), "
        "top-5 - | 1 img/s, 25.0% waiting for data, 3.0 s computing, 2.0 s evaluation\n"
    ) in said.out
    assert "\nbest epoch 3 of 5, by top1\n" in said.out
    assert "check passed" in said.out
    assert said.err == (
        "warning: something is odd\n"
        "warning: 9 of 13 val images cannot be read: the figures are of 4\n"
    )


def test_a_rank_that_does_not_write_says_nothing(run, capsys):
    everything(Console(writes=False), run)

    assert capsys.readouterr() == ("", "")


def test_a_figure_that_is_missing_is_a_dash():
    assert percent(float("nan")) == "-"
    assert percent(0.1234) == "12.3%"
