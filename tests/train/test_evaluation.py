"""The figure that chooses the best epoch, and how an evaluation comes to its figures."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastload.world import World
from train.calibration import calibration, fit_temperature
from train.evaluation import Examination, Verdict
from train.metrics import Evaluation, evaluate_logits
from train.ranks import Ranks
from train.readings import DivergedError

ROOT = Path(__file__).parents[2]


def verdict(plain: dict[str, float], corrected: dict[str, float] | None = None) -> Verdict:
    def evaluation(figures: dict[str, float]) -> Evaluation:
        nothing = torch.zeros(0)
        counts = torch.tensor([3, 4])
        return Evaluation(
            figures=figures,
            thresholds={},
            class_counts=counts,
            class_top1=nothing,
            class_top5=nothing,
        )

    return Verdict(plain=evaluation(plain), corrected=evaluation(corrected or {}), seconds=1.5)


def test_a_higher_figure_is_better_and_a_loss_is_turned_round():
    assert verdict({"top1": 0.25}).figure("top1") == 0.25
    assert verdict({"loss": 2.5}).figure("loss") == -2.5


def test_a_figure_that_is_missing_is_worse_than_all_others():
    assert verdict({"top1": math.nan}).figure("top1") == -math.inf
    assert verdict({"loss": math.nan}).figure("loss") == -math.inf


def test_a_row_has_both_kinds_of_figures_and_counts_the_images():
    row = verdict({"top1": 0.25}, {"top1": 0.5}).row()

    assert row == {"top1": 0.25, "corrected_top1": 0.5, "images": 7, "seconds": 1.5}


SAMPLES, CLASSES = 301, 40
PROGRAM = """
import json, sys
import numpy as np, torch
from tests.memory import peak_bytes
from train.evaluation import Examination, judge_scores
from train.ranks import joined

samples, classes, batch = map(int, sys.argv[1:])
def logits_of(rows):
    drawn = [np.random.default_rng(row).normal(size=classes).round(1) for row in rows.tolist()]
    return torch.tensor(np.array(drawn).reshape(-1, classes), dtype=torch.float32)
labels = torch.from_numpy(np.random.default_rng(0).integers(classes, size=samples))
counts = 5 * torch.arange(classes)
prior = torch.linspace(-3, 0, classes)
with joined("cpu") as ranks:
    own = torch.arange(samples)[ranks.world.rank :: ranks.world.size]
    before = peak_bytes()
    examination = Examination(samples, classes, prior, temperature=None, chooses=True)
    for rows in own.split(batch):
        examination.add(logits_of(rows), labels[rows], rows)
    scores = examination.finish(ranks, 0.0)
    verdict = judge_scores(scores, counts)
    grown = peak_bytes() - before
    print(json.dumps({
        "grown": grown,
        "figures": verdict.figures,
        "thresholds": [verdict.plain.thresholds, verdict.corrected.thresholds],
        "temperature": verdict.temperature,
        "answers": scores.answers.tolist(),
        "calibration": scores.calibration().error,
    }))
"""


def examined(samples: int, classes: int, batch: int, *, ranks: int = 1) -> list[dict[str, Any]]:
    """What each of several processes finds of the same logits."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(ranks):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        environment |= {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
        # What is freed goes back to the system at once: the peak is what is kept, and not how the
        # allocator's heap came to be scattered, which differs from run to run.
        environment |= {"MALLOC_MMAP_THRESHOLD_": str(2**17)}
        environment |= {"MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank)}
        environment |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
        words = [sys.executable, "-c", PROGRAM, str(samples), str(classes), str(batch)]
        processes.append(
            subprocess.Popen(words, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        )
    said = [process.communicate(timeout=300)[0] for process in processes]
    return [json.loads(text) for text in said]


def at_once() -> tuple[torch.Tensor, torch.Tensor]:
    drawn = [np.random.default_rng(row).normal(size=CLASSES).round(1) for row in range(SAMPLES)]
    labels = np.random.default_rng(0).integers(CLASSES, size=SAMPLES)
    return torch.tensor(np.array(drawn), dtype=torch.float32), torch.from_numpy(labels)


@pytest.mark.parametrize(("batch", "ranks"), [(301, 1), (7, 1), (16, 2), (64, 3)])
def test_the_figures_are_those_of_all_logits_at_once_on_any_number_of_ranks(batch, ranks):
    logits, labels = at_once()
    counts, prior = 5 * torch.arange(CLASSES), torch.linspace(-3, 0, CLASSES)
    plain = evaluate_logits(logits, labels, train_counts=counts)
    corrected = evaluate_logits(logits - prior, labels, train_counts=counts)

    for found in examined(SAMPLES, CLASSES, batch, ranks=ranks):
        expected = {f"corrected_{name}": value for name, value in corrected.figures.items()}
        assert found["figures"] == {**plain.figures, **expected}
        assert found["thresholds"] == [
            {str(k): value for k, value in each.thresholds.items()} for each in (plain, corrected)
        ]
        assert found["temperature"] == fit_temperature(logits, labels)
        assert found["answers"] == logits.argmax(1).tolist()
        raw = calibration(torch.softmax(logits, 1), labels).error
        assert found["calibration"] == pytest.approx(raw, abs=1e-7)


def test_an_evaluation_keeps_no_logits():
    few, many = (examined(samples, 4000, 100)[0]["grown"] for samples in (200, 12_000))

    logits = 12_000 * 4_000 * 4
    assert many - few < 0.25 * logits


def test_an_answer_that_is_no_number_is_refused_on_any_split():
    alone = Ranks(world=World(rank=0, size=1), device=torch.device("cpu"))
    examination = Examination(4, 3, torch.zeros(3), temperature=1.0, chooses=False)
    logits = torch.zeros(4, 3)
    logits[2, 1] = math.nan
    examination.add(logits, torch.zeros(4, dtype=torch.int64), torch.arange(4))

    with pytest.raises(DivergedError, match="the model answers with NaN or infinity"):
        examination.finish(alone, 0.0)


def test_confidences_are_those_of_the_temperature():
    alone = Ranks(world=World(rank=0, size=1), device=torch.device("cpu"))
    logits, labels = at_once()
    examination = Examination(SAMPLES, CLASSES, torch.zeros(1), temperature=2.5, chooses=False)
    examination.add(logits, labels, torch.arange(SAMPLES))

    scores = examination.finish(alone, 0.0)

    assert torch.equal(scores.confidences, torch.softmax(logits / 2.5, 1).amax(1))
    assert torch.equal(scores.raw_confidences, torch.softmax(logits, 1).amax(1))
    assert scores.temperature == 2.5
