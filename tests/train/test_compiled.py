"""Compiled models: a graph for each size, none for a rest, and what cannot be compiled runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.train.pictures import striped_shards
from train import compiled
from train.compiled import Compiler, Forward
from train.log import read_log
from train.run import main

BATCH = 4


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 3))


def images(count: int, size: int, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(size)
    drawn = torch.randn(count, 3, size, size, generator=generator).to(device)
    return drawn.contiguous(memory_format=torch.channels_last)


def graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def test_each_size_has_a_graph_and_a_rest_has_none():
    model, plain = network(), network()
    sizes = range(8, 8 + 12)  # by itself torch compiles eight, the second for all sizes
    forward = Compiler(batch_size=BATCH, graphs=13, backend="aot_eager").forward_of(model)
    for _ in range(2):
        for size in sizes:
            forward(images(BATCH, size)).sum().backward()
            plain(images(BATCH, size)).sum().backward()
    assert graphs() == 12
    model.eval()
    plain.eval()
    with torch.no_grad():
        for count in (BATCH, 3, BATCH, 1):
            answers = forward(images(count, 12))
            assert torch.allclose(answers, plain(images(count, 12)), atol=1e-6)
    assert graphs() == 13
    assert torch._dynamo.utils.counters["graph_break"] == {}
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.allclose(one.grad, other.grad, atol=1e-5)


def failing_after(count: int) -> Callable[..., Any]:
    """A compiler that can do so many graphs."""
    done: list[int] = []

    def compiler(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        if len(done) == count:
            raise OSError("no space for the kernels\nand many more lines")
        done.append(1)
        return graph.forward

    return compiler


@pytest.mark.parametrize("count", [0, 2])
def test_what_cannot_be_compiled_runs_as_it_is_and_is_said_once(count, capsys):
    model, plain = network(), network()
    compiler = Compiler(batch_size=BATCH, graphs=13, backend=failing_after(count))
    forward, other = compiler.forward_of(model), compiler.forward_of(network())
    for size in (8, 9, 10, 11):
        found, expected = forward(images(BATCH, size)), plain(images(BATCH, size))
        assert torch.allclose(found, expected, atol=1e-6)
        found.sum().backward()
    other(images(BATCH, 8))  # another module of the same run is not tried
    assert graphs() == count
    assert model.state_dict()["1.num_batches_tracked"] == 4
    assert capsys.readouterr().err == (
        "warning: --compile cannot be done here and is left out: no space for the kernels\n"
    )


def test_one_process_says_it_for_all(capsys):
    forward = Compiler(
        batch_size=BATCH, graphs=1, backend=failing_after(0), silent=True
    ).forward_of(network())
    forward(images(BATCH, 8))
    assert capsys.readouterr().err == ""


def test_an_unknown_compiler_is_no_reason_to_end(capsys):
    forward = Compiler(batch_size=BATCH, graphs=1, backend="none-such").forward_of(network())
    assert forward(images(BATCH, 8)).shape == (BATCH, 3)
    assert "none-such" in capsys.readouterr().err


def test_the_mistake_of_a_model_is_raised_as_its_own():
    forward = Compiler(batch_size=BATCH, graphs=1, backend="aot_eager").forward_of(network())
    with pytest.raises(RuntimeError, match="channels"):
        forward(torch.zeros(BATCH, 2, 8, 8))


def arguments(shards: Path, runs: Path, name: str, *more: str) -> list[str]:
    return [
        *("--data", str(shards), "--runs", str(runs), "--name", name, "--device", "cpu"),
        *("--model", "shufflenet_v2_x0_5", "--init", "scratch", "--size", "96"),
        *("--start-size", "32", "--ramp-from", "0", "--ramp-to", "0.9", "--epochs", "4"),
        *("--batch-size", "8", "--threads", "1", "--no-tensorboard", "--no-report"),
        *("--quiet-seconds", "3600", "--ema", "0.9", *more),
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:fastload's native core:RuntimeWarning")
def test_a_compiled_run_is_the_run_with_a_graph_for_each_size_and_one_to_evaluate(
    tmp_path, monkeypatch
):
    shards = striped_shards(tmp_path / "shards")
    # All of torch.compile but the C++ compiler, which takes a minute.
    monkeypatch.setattr(compiled, "Compiler", partial(Compiler, backend="aot_eager"))
    assert main(arguments(shards, tmp_path, "compiled", "--compile")) == 0
    assert graphs() == 3 + 1  # 32, 64, 96, and the moving average at 96
    assert torch._dynamo.utils.counters["graph_break"] == {}
    assert main(arguments(shards, tmp_path, "plain")) == 0

    found, expected = (read_log(tmp_path / name / "log.csv") for name in ("compiled", "plain"))
    assert [row["size"] for row in found] == [row["size"] for row in expected]
    losses = [[float(row["loss"]) for row in rows] for rows in (found, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--cuda-graphs",), "--cuda-graphs needs --compile"),
        (("--compile", "--cuda-graphs"), "--cuda-graphs cannot be used: the device is cpu"),
    ],
)
def test_cuda_graphs_where_there_can_be_none_are_refused(tmp_path, capsys, more, sentence):
    shards = striped_shards(tmp_path / "shards")
    try:
        status = main(arguments(shards, tmp_path, "a", *more))
    except SystemExit as error:
        status = int(error.code or 0)
    assert status != 0
    assert sentence in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["compiled", "cuda graphs"])
def test_on_a_gpu_steps_and_kept_answers_are_those_of_the_plain_model(cuda_graphs):
    model, plain = network().cuda(), network().cuda()
    forward = Compiler(batch_size=BATCH, graphs=3, cuda_graphs=cuda_graphs).forward_of(model)
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (model, plain)]
    losses: list[list[Tensor]] = [[], []]
    for _ in range(6):  # CUDA graphs are recorded at the second call
        for size in (16, 24):
            for place in range(2):
                called: Forward = plain if place else forward
                loss = called(images(BATCH, size, "cuda")).square().sum()
                loss.backward()
                optimizers[place].step()
                optimizers[place].zero_grad(set_to_none=True)
                losses[place].append(loss.detach())
    assert torch.allclose(torch.stack(losses[0]), torch.stack(losses[1]), rtol=1e-3)
    model.eval()
    plain.eval()
    with torch.no_grad():
        batches = [images(BATCH, 16, "cuda") + shift for shift in range(8)]
        kept = [forward(batch) for batch in batches]
        expected = [plain(batch) for batch in batches]
    assert torch.allclose(torch.stack(kept), torch.stack(expected), rtol=1e-3, atol=1e-4)
    assert graphs() == 3
