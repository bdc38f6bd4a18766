"""`pytest benchmarks/`: the questions, on this machine, with what is installed.

Rows go to `benchmarks/rows/latest-pytest.jsonl` or where `--bench-rows` says, pytest-benchmark's
statistics to the same name with `.json`. Measurements that come from other processes are shown to
pytest-benchmark through a clock that replays them, so that its tables and its
`--benchmark-compare` hold them too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import images, peers
from benchmarks.compare import Comparison, prepare
from benchmarks.contenders.contract import Work
from benchmarks.harness import ROWS, Row, append_rows
from benchmarks.peers import CONTENDERS, Contender
from fastload.cores import usable_cores

LATEST = ROWS / "latest-pytest.jsonl"
MADE = 2000  # photographs made where there is no sample data

Keep = Callable[[Iterable[Row]], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `pytest benchmarks/`."""
    group = parser.getgroup("fastload's benchmarks")
    group.addoption("--images", type=Path, metavar="DIR", help="a folder of class folders")
    group.addoption(
        "--peers", action="store_true", help="also the peers of `scripts/bench --peers`"
    )
    group.addoption(
        "--bench-rows", type=Path, default=LATEST, metavar="FILE", help="append rows to this file"
    )
    group.addoption("--bench-rounds", type=int, default=2, metavar="N", help="default 2")
    group.addoption(
        "--bench-seconds", type=float, default=1.5, metavar="S", help="of a measurement"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Write pytest-benchmark's JSON beside the rows, unless it was told another place."""
    if config.option.collectonly:
        return
    if getattr(config.option, "benchmark_json", None) is None:
        config.option.benchmark_json = config.option.bench_rows.with_suffix(".json")
    if config.option.bench_rows == LATEST:
        LATEST.unlink(missing_ok=True)


def pytest_sessionstart() -> None:
    """Where everything is skipped, as bench_gpu.py without a GPU, there is nothing to write."""
    warnings.filterwarnings("ignore", "Not saving anything, no benchmarks")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Collect bench_*.py as other folders' test_*.py."""
    patterns = parent.config.getini("python_files")
    wanted = file_path.match("bench_*.py")
    if not wanted or any(file_path.match(pattern) for pattern in patterns):
        return None
    return pytest.Module.from_parent(parent, path=file_path)


@pytest.fixture(scope="session")
def keep(pytestconfig: pytest.Config) -> Keep:
    """Appends rows to the result file of this run."""
    return lambda rows: append_rows(pytestconfig.getoption("--bench-rows"), rows)


@pytest.fixture(scope="session")
def photographs(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images to measure on: --images, the sample data, or made ones."""
    given = pytestconfig.getoption("--images")
    if given is not None:
        if not given.is_dir():
            pytest.exit(f"--images {given}: there is no such folder", returncode=2)
        return Path(given).resolve()
    if images.SAMPLE_DATA.is_dir():
        return images.SAMPLE_DATA
    return images.made_photographs(tmp_path_factory.mktemp("images") / "made", count=MADE)


@pytest.fixture(scope="session")
def comparison(
    pytestconfig: pytest.Config, photographs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Comparison:
    """All contenders that are to be measured, with their data prepared."""
    with_peers = pytestconfig.getoption("--peers")
    made = Comparison(
        contenders=tuple(
            contender for contender in CONTENDERS if with_peers or not contender.environment
        ),
        images=photographs,
        data=tmp_path_factory.mktemp("prepared"),
        output=pytestconfig.getoption("--bench-rows"),
        rounds=pytestconfig.getoption("--bench-rounds"),
        work=Work(
            cores=min(2, usable_cores()),
            seconds=pytestconfig.getoption("--bench-seconds"),
            warm_up_seconds=1.0,
        ),
    )
    prepare(made)
    return made


@pytest.fixture(scope="session")
def shards(comparison: Comparison) -> Path:
    """The images as fastload's shards."""
    return comparison.data / peers.named("fastload native").data_name


class ReplayedClock:
    """A clock that stands still, and is moved by the seconds that another process measured."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time in seconds."""
        return self.now

    def replay(self, benchmark: Any, seconds: Iterable[float]) -> None:
        """Give pytest-benchmark one round for each of the measured seconds."""
        left = list(seconds)

        def advance() -> None:
            self.now += left[0] if len(left) == 1 else left.pop(0)

        benchmark.pedantic(advance, rounds=len(left), iterations=1, warmup_rounds=0)


CLOCK = ReplayedClock()


def require_result(contender: Contender, rows: list[Row]) -> list[Row]:
    """The rows that hold a result; a peer without one is skipped with its reason, ours fails."""
    reasons = [row["failed"] for row in rows if "failed" in row]
    if reasons and contender.kind == "peer":
        pytest.skip(f"{contender.name}: {reasons[0]}")
    assert not reasons, f"{contender.name}: {reasons[0]}"
    return rows
