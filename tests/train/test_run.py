"""`python train/run.py` as people use it: small real runs on the CPU."""

from __future__ import annotations

import csv
import json
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastload import Augment, Loader, index
from fastload.advise.models import build_model
from tests.shards import flip_bit, write_shards
from tests.train.pictures import CLASSES, striped_picture, striped_shards
from train.interrupt import Interrupt, InterruptedRunError
from train.log import read_log
from train.run import main
from train.tensorfile import read_tensors, write_tensors

ROOT = Path(__file__).parents[2]
# Without the native core the loader warns that it is slower; that is not the matter here.
pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core:RuntimeWarning")
# Times differ from run to run, and nothing else may.
TIMES = {"seconds", "images_per_second", "waiting_share", "compute_seconds"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return striped_shards(tmp_path_factory.mktemp("striped") / "shards")


def arguments(shards: Path, runs: Path, name: str, *more: str) -> list[str]:
    return [
        *("--data", str(shards), "--runs", str(runs), "--name", name, "--device", "cpu"),
        *("--model", "shufflenet_v2_x0_5", "--init", "scratch", "--size", "32"),
        *("--batch-size", "8", "--threads", "1", "--no-tensorboard", "--no-report"),
        *("--quiet-seconds", "3600", *more),
    ]


def rows(folder: Path) -> list[dict[str, str]]:
    return [
        {key: value for key, value in row.items() if key not in TIMES}
        for row in read_log(folder / "log.csv")
    ]


def test_a_run_leaves_everything_it_promises(shards, tmp_path, capsys):
    status = main(arguments(shards, tmp_path, "a", "--epochs", "2", "--report"))

    folder, said = tmp_path / "a", capsys.readouterr()
    assert status == 0
    assert {item.name for item in folder.iterdir()} == {
        *("options.toml", "log.csv", "last.pt", "best.pt"),
        *("classes.csv", "result.json", "audit.csv", "report.html"),
    }
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert result["epochs"] == 2
    # The best weights, read from best.pt and evaluated again, have the figures of their epoch.
    best = rows(folder)[2 * result["best_epoch"] - 1]
    for name in ("loss", "top1", "macro_top1", "corrected_macro_top1", "average3"):
        assert float(best[name]) == result["val"][name], name
    assert float(best["macro_top1"]) == max(float(row["macro_top1"]) for row in rows(folder)[1::2])
    assert result["test"].keys() == result["val"].keys()
    assert result["train_images"] == 48
    assert [row["split"] for row in rows(folder)] == ["train", "val"] * 2
    assert "classes.csv, result.json, audit.csv, report.html" in said.out
    assert "中文 植物" in (folder / "report.html").read_text(encoding="utf-8")
    assert "epoch 2/2: loss" in said.out
    assert "waiting for data" in said.out
    assert said.err == ""


def test_the_validation_figures_are_those_of_the_logits_of_the_best_weights(shards, tmp_path):
    main(arguments(shards, tmp_path, "a", "--epochs", "1"))

    model = build_model("shufflenet_v2_x0_5", 4).eval()
    model.load_state_dict(read_tensors(tmp_path / "a" / "best.pt")["model"])
    view = Augment.eval(32)
    right = []
    with (
        Loader(
            shards, split="val", batch_size=5, augment=view, dtype=torch.float32, num_threads=1
        ) as loader,
        torch.no_grad(),
    ):
        for images, labels in loader:
            right += (model(images).argmax(1) == labels).tolist()
    assert len(right) == 13
    assert float(rows(tmp_path / "a")[1]["top1"]) == pytest.approx(np.mean(right))


def test_a_run_learns(shards, tmp_path):
    # The same pixels every epoch, and a network that soon knows them: over 26 seeds, nine of them
    # with other instructions too, the last loss was at most 0.18. Without a step it is 1.35.
    more = ("--model", "resnet18", "--epochs", "6", "--crop", "centre", "--flip", "0")
    optimizer = ("--optimizer", "adamw", "--lr", "0.002", "--reweight", "sqrt")

    main(arguments(shards, tmp_path, "a", *more, *optimizer))

    losses = [float(row["loss"]) for row in rows(tmp_path / "a") if row["split"] == "train"]
    shares = np.sqrt([24, 12, 8, 4]) / np.sqrt([24, 12, 8, 4]).sum()
    knowing_only_the_classes = -(shares * np.log(shares)).sum()  # 1.32
    assert losses[-1] < 0.5 * knowing_only_the_classes


RESUMED = (
    *("--model", "mobilenet_v3_small", "--epochs", "3", "--ema", "0.9", "--accumulate", "2"),
    *("--reweight", "sqrt", "--jitter", "0.3", "--mixup", "0.2", "--save-every", "1"),
)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_loader_dali_gives_way_and_one_line_says_so(shards, tmp_path):
    words = arguments(shards, tmp_path, "a", "--epochs", "1", "--loader", "dali")
    command = [sys.executable, str(ROOT / "train" / "run.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "dali" in line]
    backend = json.loads((tmp_path / "a" / "result.json").read_text())["backend"]
    assert backend in {"native", "libjpeg"}
    reason = "dali cannot run: it renders on a GPU, the device is cpu"
    assert lines == [f"loader:   {backend}: {reason}"]
    assert "limited by" not in done.stdout  # a second's work


@pytest.fixture(scope="module")
def uninterrupted(shards, tmp_path_factory) -> Path:
    """Dropout, BatchNorm, moving average, accumulation and augmentation: all that has a state."""
    runs: Path = tmp_path_factory.mktemp("uninterrupted")
    assert main(arguments(shards, runs, "whole", *RESUMED)) == 0
    return runs / "whole"


def assert_same_run(folder: Path, other: Path) -> None:
    assert rows(folder) == rows(other)
    one, two = (read_tensors(place / "last.pt") for place in (folder, other))
    for name, value in one["model"].items():
        assert torch.equal(value, two["model"][name]), name
    for name, value in one["average"]["model"].items():
        assert torch.equal(value, two["average"]["model"][name]), name
    assert one["progress"]["history"] == two["progress"]["history"]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}


def wait_for(path: Path, process: subprocess.Popen[Any]) -> None:
    limit = time.monotonic() + 600
    while not path.exists():
        assert process.poll() is None, "the run ended by itself"
        assert time.monotonic() < limit
        time.sleep(0.005)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_bit_for_bit(shards, tmp_path, uninterrupted):
    command = [sys.executable, str(ROOT / "train" / "run.py")]
    process = subprocess.Popen(
        [*command, *arguments(shards, tmp_path, "killed", *RESUMED)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(tmp_path / "killed" / "last.pt", process)
    process.send_signal(signal.SIGKILL)
    assert process.wait(300) == -signal.SIGKILL
    before = read_tensors(tmp_path / "killed" / "last.pt")["progress"]
    assert before["step"] < 9

    assert main(["--resume", "--runs", str(tmp_path)]) == 0

    assert_same_run(tmp_path / "killed", uninterrupted)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_ends_the_run_and_it_goes_on_bit_for_bit(
    shards, tmp_path, uninterrupted, capsys, number, status
):
    folder = tmp_path / "stopped"

    over = threading.Event()

    def interrupt() -> None:
        while not (folder / "last.pt").exists():
            if over.wait(0.002):
                return
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        ended = main(arguments(shards, tmp_path, "stopped", *RESUMED))
    finally:
        over.set()
        thread.join()

    said = capsys.readouterr().err
    assert ended == status
    assert f"stopped by {number.name}; continue with --resume" in said
    assert read_tensors(folder / "last.pt")["progress"]["step"] < 9
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert main(["--resume", "--runs", str(tmp_path), "--name", "stopped"]) == 0
    assert_same_run(folder, uninterrupted)


def test_a_finished_run_that_is_resumed_changes_nothing_but_may_be_prolonged(
    shards, tmp_path, capsys
):
    main(arguments(shards, tmp_path, "a", "--epochs", "1"))
    before = rows(tmp_path / "a")
    assert (tmp_path / "a" / "audit.csv").exists()

    assert main(["--resume", "--runs", str(tmp_path), "--audit", "0"]) == 0
    assert rows(tmp_path / "a") == before
    assert not (tmp_path / "a" / "audit.csv").exists()  # it would be of another end of the run

    capsys.readouterr()
    assert main(["--resume", "--runs", str(tmp_path), "--epochs", "2", "--audit", "50"]) == 0
    assert "classes.csv, result.json, audit.csv\n" in capsys.readouterr().out
    assert rows(tmp_path / "a")[:2] == before
    assert len(rows(tmp_path / "a")) == 4


# BatchNorm sees the small batches, so it is kept out: only the head is tuned.
EXACT = (
    "--tune",
    "head",
    "--epochs",
    "2",
    "--lr",
    "5",
    "--class-weights",
    "inverse",
    "--seed",
    "3",
)


def assert_nearly_the_same_run(folder: Path, other: Path) -> None:
    for one, two in zip(rows(folder), rows(other), strict=True):
        assert (one["split"], one["images"], one["top1"]) == (
            two["split"],
            two["images"],
            two["top1"],
        )
        assert float(one["loss"]) == pytest.approx(float(two["loss"]), rel=1e-4)
        assert one["macro_top1"] == two["macro_top1"]


def test_a_resumed_run_says_where_it_goes_on(shards, tmp_path, capsys):
    last = tmp_path / "a" / "last.pt"
    more = ("--epochs", "2", "--tune", "head")
    main(arguments(shards, tmp_path, "a", *more))
    assert "model:    shufflenet_v2_x0_5, random weights; 0.0 million" in capsys.readouterr().out

    def resumed(**progress: object) -> str:
        content = read_tensors(last)
        content["progress"].update(progress)
        if "batch" in progress:
            content["loader"].update(epoch=1, position=8 * content["progress"]["batch"])
        write_tensors(last, content)
        assert main(["--resume", "--runs", str(tmp_path)]) == 0
        said: str = capsys.readouterr().out
        assert "random weights" not in said
        assert f"model:    shufflenet_v2_x0_5, weights from {last}; 0.0 million" in said
        (line,) = re.findall(r"^resumed:  (.*)$", said, re.MULTILINE)
        return str(line)

    assert resumed() == "after step 12; all 2 epochs are done, their best is evaluated"
    under_way = {"epoch": 1, "history": [0.5], "log_rows": 2}
    assert resumed(**under_way, batch=4, step=10) == (
        "after step 10, in epoch 2 of 2 with batch 5 of 6"
    )
    assert resumed(**under_way, batch=6, step=12, trained=True) == (
        "after step 12, with the evaluation of epoch 2 of 2"
    )


def test_without_a_terminal_a_run_says_how_far_it_is(shards, tmp_path):
    more = ("--epochs", "1", "--tune", "head", "--quiet-seconds", "0")

    said = subprocess.run(
        [sys.executable, str(ROOT / "train" / "run.py"), *arguments(shards, tmp_path, "a", *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    ).stdout

    lines = re.findall(
        r"^epoch 1: (\d) of 6 batches, .*/s, .* s left, loss .*$", said, re.MULTILINE
    )
    assert lines == list("123456")
    # Of the epoch, and of the best weights on val and test.
    assert re.findall(r"^evaluation: (\d) of 2 batches", said, re.MULTILINE) == list("121212")


# Stops where torch would be loaded, which reads the environment then and never again.
ENVIRONMENT_OF_TORCH = """
import os, runpy, sys

class Watcher:
    def find_spec(self, name, *_):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"))
            raise SystemExit

sys.meta_path.insert(0, Watcher())
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("given", "taken"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")]
)
def test_torchs_threads_wait_asleep_unless_the_user_says_otherwise(given, taken):
    rest = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-c", ENVIRONMENT_OF_TORCH, str(ROOT / "train" / "run.py")]

    said = subprocess.run(command, env={**rest, **given}, stdout=subprocess.PIPE, text=True).stdout

    assert said == f"{taken}\n"


INTERRUPTED = """
import os, runpy, signal, sys

class Watcher:
    def find_spec(self, name, *_):
        if name == "torch":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Watcher())
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def test_ctrl_c_while_torch_is_imported_ends_the_command_without_a_traceback():
    command = [sys.executable, "-c", INTERRUPTED, str(ROOT / "train" / "run.py"), "--help"]

    done = subprocess.run(command, capture_output=True, text=True)

    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_accumulated_batches_make_the_run_of_the_large_batch(shards, tmp_path):
    main(arguments(shards, tmp_path, "large", *EXACT))
    main(arguments(shards, tmp_path, "small", *EXACT, "--batch-size", "4", "--accumulate", "2"))

    assert_nearly_the_same_run(tmp_path / "small", tmp_path / "large")


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=pytest.mark.gpu(2),
        ),
    ],
    ids=["gloo", "nccl"],
)
def where(request) -> tuple[str, ...]:
    """Options of a run that several processes share: on the CPU, and on a GPU each."""
    return ("--device", request.param, "--amp", "off")


def start_ranks(command: list[str], count: int = 2) -> list[subprocess.Popen[str]]:
    """The processes that torchrun would start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    # Runs are compared: a GPU shall not round products to TF32.
    shared = {**environment(), "NVIDIA_TF32_OVERRIDE": "0", "WORLD_SIZE": str(count)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        subprocess.Popen(
            [sys.executable, str(ROOT / "train" / "run.py"), *command],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


@pytest.mark.slow
def test_two_processes_of_which_one_gets_a_signal_go_on_bit_for_bit(shards, tmp_path, where):
    def run(*command: str) -> list[int]:
        processes = start_ranks([*command])
        for process in processes:
            process.communicate(timeout=600)
        return [process.returncode for process in processes]

    more = ("--epochs", "2", "--batch-size", "4", "--save-every", "1", *where)
    assert run(*arguments(shards, tmp_path, "whole", *more)) == [0, 0]
    processes = start_ranks(arguments(shards, tmp_path, "stopped", *more))
    wait_for(tmp_path / "stopped" / "last.pt", processes[1])
    processes[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=600) for process in processes]

    assert [process.returncode for process in processes] == [143, 143], said
    assert read_tensors(tmp_path / "stopped" / "last.pt")["progress"]["step"] < 12
    assert run("--resume", "--runs", str(tmp_path), "--name", "stopped") == [0, 0]
    if "cuda" in where:  # whose kernels are chosen by the clock
        assert_nearly_the_same_run(tmp_path / "stopped", tmp_path / "whole")
        return
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")
    one, two = (read_tensors(tmp_path / name / "last.pt") for name in ("whole", "stopped"))
    for name, value in one["model"].items():
        assert torch.equal(value, two["model"][name]), name


@pytest.mark.slow
def test_a_process_whose_companion_fails_ends_in_one_sentence(shards, tmp_path):
    bad = tmp_path / "bad"
    shutil.copytree(shards, bad)
    flip_bit(bad / "train-000000.tar", 700)
    more = ("--batch-size", "4", "--max-corrupt-fraction", "0")
    processes = start_ranks(arguments(bad, tmp_path, "a", *more))
    said = "".join(process.communicate(timeout=600)[1] for process in processes)

    assert [process.returncode for process in processes] == [1, 1], said
    assert "1 bad sample in epoch 0, --max-corrupt-fraction 0 allows 0" in said
    assert "train/run.py: another process of the run has ended, so this one ends too" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_two_processes_make_the_run_of_one_and_count_each_sample_once(shards, tmp_path, where):
    (alone,) = start_ranks(arguments(shards, tmp_path, "one", *EXACT, *where), 1)
    _, error = alone.communicate(timeout=600)
    assert alone.returncode == 0, error

    two = arguments(shards, tmp_path, "two", *EXACT, "--batch-size", "4", *where)
    processes = start_ranks(two)
    said = [process.communicate(timeout=600) for process in processes]

    assert [process.returncode for process in processes] == [0, 0], said
    assert "2 processes" in said[0][0]
    assert said[1][0] == ""
    assert_nearly_the_same_run(tmp_path / "two", tmp_path / "one")
    figures = [
        json.loads((tmp_path / name / "result.json").read_text())["test"] for name in ("one", "two")
    ]
    assert figures[1]["average3"] == figures[0]["average3"]
    # A run goes on with another number of processes, as long as the global batch is the same.
    for name in ("one", "two"):
        resume = ("--resume", "--runs", str(tmp_path), "--name", name, "--batch-size", "8")
        assert main([*resume, "--epochs", "3"]) == 0
    assert_nearly_the_same_run(tmp_path / "two", tmp_path / "one")
    # 13 validation images over two ranks and a global batch of 8: parts of unequal size.
    assert rows(tmp_path / "two")[1]["images"] == "13"


def test_a_run_may_be_resumed_with_other_threads_and_another_back_end(shards, tmp_path):
    main(arguments(shards, tmp_path, "a", *EXACT, "--save-every", "1"))

    more = ("--epochs", "3", "--threads", "2", "--loader", "libjpeg")
    assert main(["--resume", "--runs", str(tmp_path), *more]) == 0

    assert len(rows(tmp_path / "a")) == 6


@pytest.mark.parametrize(
    "more",
    [
        ("--amp", "bf16"),
        ("--amp", "fp16"),
        ("--loss", "balanced", "--schedule", "plateau"),
        ("--loss", "focal", "--class-weights", "effective:0.9", "--clip", "1"),
        ("--tune", "layerwise", "--optimizer", "adamw", "--label-smoothing", "0.1"),
        ("--start-size", "24", "--ramp-from", "0", "--ramp-to", "0.9", "--eval-size", "40"),
        ("--cutmix", "1", "--erasing", "0.5", "--rotation", "20", "--crop", "random"),
        ("--schedule", "step", "--step-epochs", "1", "--best-by", "loss"),
    ],
    ids=lambda more: more[1],
)
def test_every_way_to_train_runs(shards, tmp_path, more):
    assert main(arguments(shards, tmp_path, "a", "--epochs", "1", *more)) == 0


def test_early_stopping_ends_a_run_that_stands_still(shards, tmp_path):
    more = ("--epochs", "9", "--lr", "1e-12", "--early-stop", "2", "--tune", "head")

    assert main(arguments(shards, tmp_path, "a", *more)) == 0

    assert len(rows(tmp_path / "a")) == 6


def test_progressive_sizes_are_those_of_the_log(shards, tmp_path):
    more = ("--epochs", "3", "--start-size", "24", "--ramp-from", "0.1", "--ramp-to", "0.5")

    main(arguments(shards, tmp_path, "a", *more, "--tune", "head"))

    sizes = [row["size"] for row in rows(tmp_path / "a") if row["split"] == "train"]
    assert sizes == ["24", "32", "32"]


def test_the_best_weights_start_another_run(shards, tmp_path, capsys):
    main(arguments(shards, tmp_path, "a", "--epochs", "1"))

    best = str(tmp_path / "a" / "best.pt")
    assert main(arguments(shards, tmp_path, "b", "--epochs", "1", "--init", best)) == 0

    assert f"weights from {best}, model: kept 338 tensors;" in capsys.readouterr().out


def test_weights_trained_on_other_pixels_are_warned_of(shards, tmp_path, capsys):
    main(arguments(shards, tmp_path, "a", "--epochs", "1", "--tune", "head"))
    best = torch.load(tmp_path / "a" / "best.pt", weights_only=True)
    torch.save({**best, "normalise": [[0.5] * 3, [0.5] * 3]}, tmp_path / "other.pt")
    capsys.readouterr()

    init = (
        "--normalise",
        "imagenet",
        "--init",
        str(tmp_path / "other.pt"),
        "--tune",
        "head",
        "--epochs",
        "1",
    )
    assert main(arguments(shards, tmp_path, "b", *init)) == 0

    assert "but the weights were trained with mean (0.500" in capsys.readouterr().err


def test_a_head_for_classes_in_another_order_is_started_anew(shards, tmp_path, capsys):
    main(arguments(shards, tmp_path, "a", "--epochs", "1"))
    pictures = [striped_picture(number, number % 4) for number in range(16)]
    splits = {"train": pictures, "val": pictures[:4]}
    turned = write_shards(tmp_path / "turned", splits, classes=CLASSES[::-1])
    capsys.readouterr()

    best = str(tmp_path / "a" / "best.pt")
    assert main(arguments(turned, tmp_path, "b", "--epochs", "1", "--init", best)) == 0

    said = capsys.readouterr().out
    assert "kept 336 tensors; of other classes, started anew: fc.bias, fc.weight" in said


def test_a_profile_is_a_trace_and_a_table_of_stages(shards, tmp_path, capsys):
    main(arguments(shards, tmp_path, "a", "--epochs", "1", "--profile", "2", "--tune", "head"))

    trace = json.loads((tmp_path / "a" / "trace.json").read_text())
    steps = {event["name"] for event in trace["traceEvents"] if "ProfilerStep" in event["name"]}
    assert steps == {"ProfilerStep#2", "ProfilerStep#3"}
    said = capsys.readouterr().out
    assert "\ndecode  1 thread " in said
    assert "\nbottleneck  " in said


def test_tensorboard_has_the_rows_where_it_is_installed(shards, tmp_path):
    pytest.importorskip("tensorboard")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorBoard's own imports are deprecated
        main(arguments(shards, tmp_path, "a", "--epochs", "1", "--tensorboard"))

        module = "tensorboard.backend.event_processing.event_accumulator"
        events = import_module(module).EventAccumulator(str(tmp_path / "a" / "tensorboard"))
        events.Reload()
    (logged,) = events.Scalars("val/macro_top1")
    assert logged.value == pytest.approx(float(rows(tmp_path / "a")[1]["macro_top1"]))


def test_check_passes_where_one_batch_can_be_learned(shards, tmp_path, capsys):
    status = main(arguments(shards, tmp_path, "a", "--check"))

    assert status == 0
    assert "check passed" in capsys.readouterr().out
    assert not (tmp_path / "a").exists()


def test_check_fails_where_one_batch_cannot_be_learned(tmp_path, capsys):
    pictures = [striped_picture(0, 0) for _ in range(32)]
    labelled = [type(p)(p.jpeg, i % 4, p.height, p.width) for i, p in enumerate(pictures)]
    shards = write_shards(tmp_path / "s", {"train": labelled, "val": labelled}, classes=CLASSES)
    more = ("--crop", "centre", "--flip", "0", "--check")

    status = main(arguments(shards, tmp_path, "a", *more))

    assert status == 1
    assert "check failed: one batch is not learned by heart" in capsys.readouterr().out


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_images(shards, tmp_path, capsys):
    more = ("--epochs", "1", "--lr", "1e30", "--warmup-epochs", "0", "--save-every", "0")

    status = main(arguments(shards, tmp_path, "a", *more))

    said = capsys.readouterr().err
    assert status == 1
    assert "the loss became " in said
    assert "lower --lr, set --clip 1, or look at its images: 0000" in said
    assert not (tmp_path / "a" / "last.pt").exists()


@pytest.fixture
def small_disk():
    """No file may grow beyond 300 kB: the kernel refuses the write, as on a full disk."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, former[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, former)
    signal.signal(signal.SIGXFSZ, ignored)


def test_no_room_for_a_checkpoint_is_one_sentence(shards, tmp_path, capsys, small_disk):
    said = sentence(capsys, 1, arguments(shards, tmp_path, "a", "--epochs", "1"))

    assert "last.pt: the file grows beyond" in said
    assert not [item for item in (tmp_path / "a").iterdir() if "last.pt" in item.name]


def test_a_second_signal_ends_at_once():
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert InterruptedRunError(signal.SIGTERM).status == 143


@pytest.fixture
def hang_up() -> Iterator[Callable[[Any], object]]:
    """What SIGHUP shall do; the tests themselves may run under nohup, which ignores it."""
    former = signal.getsignal(signal.SIGHUP)
    yield lambda handler: signal.signal(signal.SIGHUP, handler)
    signal.signal(signal.SIGHUP, former)


def test_a_lost_terminal_sends_two_signals_and_is_one_request(hang_up):
    hang_up(signal.SIG_DFL)
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        assert interrupt.error().status == 129
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_what_nohup_ignores_stays_ignored(hang_up):
    hang_up(signal.SIG_IGN)
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not interrupt.came
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed: uninstall it")
def test_wandb_is_asked_for_in_one_sentence_where_it_is_missing(shards, tmp_path, capsys):
    said = sentence(capsys, 1, arguments(shards, tmp_path, "a", "--wandb", "flowers"))

    assert "--wandb needs wandb, which is not installed; pip install wandb" in said


def test_weights_that_are_no_numbers_are_not_saved(shards, tmp_path, capsys):
    # One step in all: the loss before it is sound, the weights after it are not.
    more = ("--epochs", "1", "--batch-size", "40", "--lr", "1e38", "--lr-rule", "none")
    warmup = ("--warmup-epochs", "0", "--weight-decay", "1e30")

    said = sentence(capsys, 1, arguments(shards, tmp_path, "a", *more, *warmup))

    assert "the weights became NaN or infinite at step 1; lower --lr" in said
    assert not (tmp_path / "a" / "last.pt").exists()


def test_both_ways_to_reweight_are_warned_of(shards, tmp_path, capsys):
    more = ("--epochs", "1", "--reweight", "sqrt", "--class-weights", "sqrt", "--tune", "head")

    main(arguments(shards, tmp_path, "a", *more))

    assert "warning: --reweight sqrt and --class-weights sqrt compound" in capsys.readouterr().err


def sentence(capsys, status: int, arguments: list[str]) -> str:
    assert main(arguments) == status
    said: str = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


def test_mistakes_are_one_sentence(shards, tmp_path, capsys):
    def said(*more: str) -> str:
        return sentence(capsys, 1, arguments(shards, tmp_path, "a", *more))

    assert "python -m fastload.shard" in said("--data", str(tmp_path / "nowhere"))
    assert "batch of 64" in said("--batch-size", "64")
    assert 'model "resnet1" is no torchvision' in said("--model", "resnet1")
    assert "w.pt: there is no such file" in said("--init", str(tmp_path / "w.pt"))
    assert "--best-by top5 says nothing about 4 classes" in said("--best-by", "top5")
    assert '--device must be auto, cpu, cuda or cuda:N, got "gpu"' in said("--device", "gpu")
    assert not (tmp_path / "a").exists()


def test_a_run_is_never_written_over(shards, tmp_path, capsys):
    main(arguments(shards, tmp_path, "a", "--epochs", "1", "--tune", "head"))
    capsys.readouterr()

    said = sentence(capsys, 1, arguments(shards, tmp_path, "a", "--epochs", "1"))

    assert "holds a run already; continue it with --resume, or give another --name" in said


def test_resuming_another_model_or_other_data_is_one_sentence(shards, tmp_path, capsys):
    main(arguments(shards, tmp_path, "a", "--epochs", "1", "--tune", "head"))
    other = striped_shards(tmp_path / "other", (9, 9), (2, 2))
    capsys.readouterr()
    resume = ["--resume", "--runs", str(tmp_path), "--name", "a", "--epochs", "2"]

    for flag, value, before in (
        ("--model", "resnet18", "shufflenet_v2_x0_5"),
        ("--optimizer", "adamw", "sgd"),
        ("--tune", "all", "head"),
        ("--init", "imagenet", "scratch"),
        ("--seed", "1", "0"),
        ("--flip", "0.1", "0.5"),
        ("--auto-augment", "trivial", "none"),
        ("--crop-area", "0.3", "0.08"),
        ("--reweight", "sqrt", "none"),
    ):
        said = sentence(capsys, 1, [*resume, flag, value])
        assert f"was trained with {flag} {before}; give the same" in said
    assert "has no moving average; give --ema as it was" in sentence(
        capsys, 1, [*resume, "--ema", "0.9"]
    )
    assert "judged on other validation images" in sentence(
        capsys, 1, [*resume, "--val-data", str(striped_shards(tmp_path / "v", val_counts=(2,) * 4))]
    )
    assert "was trained on" in sentence(capsys, 1, [*resume, "--data", str(other)])
    said = sentence(capsys, 1, [*resume, "--batch-size", "4"])
    assert "its steps are of 8 x 1 images" in said
    assert "now they would be of 4 x 1; give the same" in said
    said = sentence(capsys, 1, [*resume, "--best-by", "loss"])
    assert "has its best epoch by macro_top1, now it would be by loss" in said
    said = sentence(capsys, 1, [*resume, "--eval-size", "48"])
    assert "its epochs were judged at 32 pixels, now they would be at 48" in said


def test_a_resume_takes_weight_decay_and_momentum_from_the_command_line(shards, tmp_path):
    main(arguments(shards, tmp_path, "a", "--epochs", "1", "--tune", "head"))

    decay = ("--weight-decay", "0.5", "--momentum", "0.5")
    assert main(["--resume", "--runs", str(tmp_path), "--epochs", "2", *decay]) == 0

    (group, *_) = read_tensors(tmp_path / "a" / "last.pt")["optimizer"]["param_groups"]
    assert (group["weight_decay"], group["momentum"]) == (0.5, 0.5)


def test_a_run_goes_on_though_everything_was_moved_and_its_weights_are_gone(tmp_path):
    shards = striped_shards(tmp_path / "shards")
    main(arguments(shards, tmp_path / "old", "a", "--epochs", "1", "--tune", "head"))
    weights = (tmp_path / "old" / "a" / "best.pt").rename(tmp_path / "weights.pt")
    start = ("--init", str(weights), "--tune", "head")
    main(arguments(shards, tmp_path / "old", "b", "--epochs", "1", *start))
    weights.unlink()
    shards = shards.rename(tmp_path / "elsewhere")
    (tmp_path / "new").mkdir()
    (tmp_path / "old" / "b").rename(tmp_path / "new" / "c")

    more = ("--runs", str(tmp_path / "new"), "--data", str(shards), "--epochs", "2")
    assert main(["--resume", *more]) == 0

    assert len(rows(tmp_path / "new" / "c")) == 4


def test_what_a_resume_needs_is_missed_before_it_trains(shards, tmp_path, capsys):
    main(arguments(shards, tmp_path, "a", "--epochs", "1", "--tune", "head"))
    capsys.readouterr()
    folder = tmp_path / "a"
    resume = ["--resume", "--runs", str(tmp_path), "--name", "a", "--epochs", "2"]

    def said_without(name: str, damage: Callable[[Path], object]) -> str:
        sound = (folder / name).read_bytes()
        damage(folder / name)
        said = sentence(capsys, 1, resume)
        (folder / name).write_bytes(sound)
        return said

    def flip(path: Path) -> None:
        flip_bit(path, path.stat().st_size // 2)

    assert "best.pt: is missing; put back a copy of the best epoch" in said_without(
        "best.pt", Path.unlink
    )
    assert "best.pt: is damaged: the CRC-32 of its bytes" in said_without("best.pt", flip)
    other = striped_shards(tmp_path / "other", (9, 9), (2, 2))
    main(arguments(other, tmp_path, "b", "--epochs", "1", "--tune", "head"))
    capsys.readouterr()
    for foreign in (tmp_path / "b" / "best.pt", folder / "last.pt"):
        copied = said_without("best.pt", partial(shutil.copy, foreign))
        assert "best.pt: is no best.pt of this run; put back a copy" in copied
    assert "last.pt: is damaged: the CRC-32 of its bytes" in said_without("last.pt", flip)
    assert "has no last.pt, so there is nothing to resume" in said_without("last.pt", Path.unlink)
    assert "options.toml: cannot be read" in said_without("options.toml", Path.unlink)
    assert "log.csv: there is no such file" in said_without("log.csv", Path.unlink)
    assert "has no last.pt" in sentence(capsys, 1, [*resume, "--name", "z"])
    assert main(resume) == 0


@pytest.fixture
def damaged(tmp_path) -> Path:
    """Shards whose val split has one image with a flipped bit."""
    shards = striped_shards(tmp_path / "damaged")
    flip_bit(shards / "val-000000.tar", 700)  # within the first image
    return shards


def test_a_damaged_image_of_val_or_test_is_found_before_training(damaged, tmp_path, capsys):
    said = sentence(capsys, 1, arguments(damaged, tmp_path, "a", "--max-corrupt-fraction", "1"))
    assert "val-000000.tar, sample 000000, offset 512: its CRC-32 is" in said
    assert "1 of 13 val images are damaged, and figures over fewer images would not compare" in said
    assert "--max-corrupt-val SHARE leaves the images out" in said
    assert not (tmp_path / "a").exists()

    flip_bit(damaged / "val-000000.tar", 700)
    flip_bit(damaged / "test-000001.tar", 700)
    said = sentence(capsys, 1, arguments(damaged, tmp_path, "a"))
    assert "test-000001.tar, sample 000010, offset 512" in said


def test_damaged_images_of_val_may_be_left_out_and_the_figures_say_so(damaged, tmp_path, capsys):
    more = ("--epochs", "1", "--tune", "head", "--max-corrupt-val", "0.1")

    assert main(arguments(damaged, tmp_path, "a", *more)) == 0

    assert "1 of 13 val images cannot be read: the figures are of 12" in capsys.readouterr().err
    assert rows(tmp_path / "a")[1]["images"] == "12"
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert (result["val"]["images"], result["test"]["images"]) == (12, 13)


def test_an_image_that_is_damaged_later_costs_no_epoch(tmp_path, capsys, monkeypatch):
    shards = striped_shards(tmp_path / "shards")
    once = ("--epochs", "1", "--tune", "head")
    main(arguments(shards, tmp_path, "whole", *once))
    val = shards / "val-000000.tar"
    monkeypatch.setattr("train.run.check_held_out", lambda *_: flip_bit(val, 700))
    capsys.readouterr()

    assert main(arguments(shards, tmp_path, "a", *once)) == 1

    said = capsys.readouterr().err
    assert "--max-corrupt-val 0 allows 0" in said
    assert "the training so far is saved: write the shards again" in said
    assert "and continue with --resume" in said
    flip_bit(val, 700)
    assert main(["--resume", "--runs", str(tmp_path), "--name", "a"]) == 0
    assert rows(tmp_path / "a") == rows(tmp_path / "whole")


def test_validation_with_classes_in_another_order_is_refused(shards, tmp_path, capsys):
    pictures = [striped_picture(0, label) for label in range(4)]
    turned = write_shards(tmp_path / "v", {"val": pictures}, classes=CLASSES[::-1])

    said = sentence(capsys, 1, arguments(shards, tmp_path, "a", "--val-data", str(turned)))

    assert "the classes of val are those of train in another order" in said


def test_shards_without_validation_are_refused(tmp_path, capsys):
    pictures = [striped_picture(0, label) for label in range(4)] * 4
    bare = write_shards(tmp_path / "s", {"train": pictures}, classes=CLASSES)

    said = sentence(capsys, 1, arguments(bare, tmp_path, "a"))

    assert "has no images in its val split" in said
    assert "--val-fraction 0.1" in said


def test_data_in_place_without_validation_are_told_a_command_that_works(tmp_path, capsys):
    for number in range(12):
        path = tmp_path / "my data" / "train" / CLASSES[number % 4] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(striped_picture(number, number % 4).jpeg)
    data = arguments(tmp_path / "my data", tmp_path, "a", "--epochs", "1")

    assert main(data) == 1
    said = capsys.readouterr().err

    command = re.search(r"take val from train with `\S+ -m fastload.index (.*?)`", said)
    assert command
    assert index.main(shlex.split(command[1])) == 0
    assert main(data) == 0
    # Val of its own is a source like another, with an index or none.
    shutil.copytree(tmp_path / "my data" / "train", tmp_path / "val")
    more = ("--epochs", "1", "--val-data", str(tmp_path / "val"))
    assert main(arguments(tmp_path / "my data", tmp_path, "b", *more)) == 0


def test_classes_csv_agrees_with_the_macro_average(shards, tmp_path):
    main(arguments(shards, tmp_path, "a", "--epochs", "1"))

    with (tmp_path / "a" / "classes.csv").open(encoding="utf-8-sig", newline="") as file:
        classes = list(csv.DictReader(file))
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert [row["class"] for row in classes] == list(CLASSES)
    assert [row["train_images"] for row in classes] == ["24", "12", "8", "4"]
    mean = np.mean([float(row["test_top1"]) for row in classes])
    assert result["test"]["macro_top1"] == pytest.approx(mean)


@pytest.mark.gpu
@pytest.mark.parametrize("amp", ["bf16", "fp16", "off"])
def test_a_run_on_a_gpu(shards, tmp_path, amp):
    more = ("--device", "cuda", "--epochs", "2", "--amp", amp, "--ema", "0.9", "--loader", "auto")

    assert main(arguments(shards, tmp_path, "a", *more)) == 0
    assert main(["--resume", "--runs", str(tmp_path), "--epochs", "3"]) == 0

    assert float(rows(tmp_path / "a")[0]["peak_gpu_megabytes"]) > 0


@pytest.mark.gpu
@pytest.mark.parametrize("more", [(), ("--cuda-graphs",)], ids=["compiled", "cuda graphs"])
def test_a_compiled_run_on_a_gpu(shards, tmp_path, capsys, more):
    sizes = ("--start-size", "32", "--size", "64", "--ramp-from", "0", "--ramp-to", "0.9")
    more = ("--epochs", "2", "--compile", "--ema", "0.9", *sizes, *more)

    assert main(arguments(shards, tmp_path, "a", "--device", "cuda", *more)) == 0
    assert "--compile cannot be done here" not in capsys.readouterr().err


def test_a_run_trains_from_a_plain_folder_and_goes_on(tmp_path, capsys):
    for number, split in enumerate(("train", "val")):
        for label, name in enumerate(CLASSES):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(6 if split == "train" else 3):
                seed = 1000 * number + 100 * label + i
                (folder / f"{i}.jpg").write_bytes(striped_picture(seed, label).jpeg)
    command = arguments(tmp_path / "data", tmp_path, "a")
    assert main([*command, "--epochs", "1"]) == 0
    assert "has no index yet" in capsys.readouterr().err
    assert json.loads((tmp_path / "a/result.json").read_text())["epochs"] == 1
    assert main([*command, "--epochs", "2", "--resume"]) == 0
    (tmp_path / "data/val" / CLASSES[0] / "0.jpg").write_bytes(b"other bytes")
    assert main(arguments(tmp_path / "data", tmp_path, "b", "--epochs", "1")) == 1
    assert f"val/{CLASSES[0]}/0.jpg: has 11 bytes, when it was indexed" in capsys.readouterr().err
