"""The proof of the GPU side: its parts' verdicts, and a dry run of it all on the CPU."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.environment import ROOT
from benchmarks.harness import read_rows
from benchmarks.proof.__main__ import prove, prove_all
from benchmarks.proof.part import Place
from benchmarks.proof.parts import PARTS, Part


def part(program: str, *, name: str = "a part", limit_seconds: float = 60.0) -> Part:
    return Part(name, lambda _: [sys.executable, "-c", program], limit_seconds)


@pytest.mark.parametrize(
    ("program", "verdict", "figure"),
    [
        ("print('some words'); print('7 greys')", "holds", "7 greys"),
        ("print('no card'); raise SystemExit(77)", "skipped", "no card"),
        ("print('9 greys'); raise SystemExit(1)", "FAILS", "9 greys"),
        ("raise RuntimeError('broken')", "FAILS", "RuntimeError: broken"),
        ("import os; os.abort()", "FAILS", ""),
    ],
    ids=["holds", "skipped", "fails", "raises", "crashes"],
)
def test_the_exit_status_is_the_verdict_and_the_last_line_the_figure(
    tmp_path: Path, program: str, verdict: str, figure: str
):
    outcome = prove(part(program), Place(out=tmp_path))
    assert (outcome.verdict, outcome.figure) == (verdict, figure)


def test_a_part_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path):
    child = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {!r}]); p.wait()"
    grandchild = "import time\nwhile True: open('alive', 'a').write('x'); time.sleep(0.05)"
    program = f"import os; os.chdir({str(tmp_path)!r})\n" + child.format(grandchild)
    outcome = prove(part(program, limit_seconds=8.0), Place(out=tmp_path))
    assert (outcome.verdict, outcome.figure) == ("FAILS", "no end within 8 s")
    size = (tmp_path / "alive").stat().st_size
    time.sleep(0.5)
    assert (tmp_path / "alive").stat().st_size == size > 0


def test_one_failing_part_does_not_end_the_rest(tmp_path: Path):
    parts = [part("raise SystemExit(1)", name="first"), part("print(1)", name="second")]
    assert [each.verdict for each in prove_all(parts, Place(out=tmp_path))] == ["FAILS", "holds"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_what_can_be_done(tmp_path: Path):
    run = proof(tmp_path)
    assert run.returncode == 2
    assert run.stderr == (
        "scripts/gpu: no GPU of NVIDIA or AMD was found; --dry-run does what a CPU can\n"
    )


def proof(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.proof", str(out / "proof"), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_dry_run_proves_on_the_cpu_what_a_cpu_can(tmp_path: Path):
    run = proof(tmp_path, "--dry-run")
    table = (tmp_path / "proof" / "table.txt").read_text(encoding="utf-8")
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    assert [line.split("  ")[0] for line in table.splitlines()[1:]] == [each.name for each in PARTS]
    lines = {line.split("  ")[0]: line for line in table.splitlines()}
    for each in PARTS:
        assert ("skipped" if each.needs_gpu else "holds") in lines[each.name]
    rows = read_rows(tmp_path / "proof" / "rows.jsonl")
    assert {row["benchmark"] for row in rows} >= {"gpu-parity", "gpu-first-steps"}
