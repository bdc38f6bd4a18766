"""A tracker that fails ends its own use with one warning, never the run."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.train.test_record import ALONE, command
from train.charts import line_chart, scatter_chart
from train.options import RecordOptions
from train.record import open_folder
from train.trackers import TrackerError, Trackers

# Stands in for a package that needs a network and a login: it raises where it is told to.
WANDB = """
import pathlib
if "{where}" == "import":
    raise {error}
class Run:
    def log(self, numbers, step):
        if "{where}" == "log": raise {error}
        with pathlib.Path("logged").open("a") as file: print(step, sorted(numbers), file=file)
    def finish(self):
        if "{where}" == "finish": raise {error}
def init(**_):
    if "{where}" == "init": raise {error}
    return Run()
"""
ERRORS = ("RuntimeError('no network')", "ImportError('numpy has no core')", "OSError(28, 'full')")


@pytest.fixture(autouse=True)
def without_wandb() -> Iterator[None]:
    yield
    sys.modules.pop("wandb", None)


def install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: str = ERRORS[0]
) -> None:
    package = tmp_path / "packages" / "wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(WANDB.format(where=where, error=error))
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()


def follow(folder: Path, options: RecordOptions) -> None:
    trackers = Trackers(folder, options, step=0)
    for step in (1, 2, 3):
        trackers.add("train", {"loss": 0.5, "split": "train"}, step)
    trackers.close()


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("where", ["import", "init", "log", "finish"])
def test_what_wandb_raises_is_one_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: str,
    error: str,
):
    install(tmp_path, monkeypatch, where, error)
    follow(tmp_path, RecordOptions(tensorboard=False, wandb="flowers"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: Weights & Biases stops showing this run, which goes on; ")


def test_wandb_gets_each_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    install(tmp_path, monkeypatch, "nowhere")
    follow(tmp_path, RecordOptions(tensorboard=False, wandb="flowers"))
    rows = (tmp_path / "logged").read_text().splitlines()
    assert rows == [f"{step} ['train/loss']" for step in (1, 2, 3)]
    assert not capsys.readouterr().err


def test_wandb_that_is_not_installed_is_refused_before_the_run_has_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "wandb").mkdir()  # what wandb leaves where it ran, and no package
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    with pytest.raises(TrackerError, match="--wandb needs wandb, which is not installed"):
        open_folder(command(tmp_path / "runs", "--wandb", "flowers"), ALONE)
    assert not (tmp_path / "runs").exists()


def test_a_tensorboard_folder_that_cannot_be_made_is_one_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").touch()
    follow(tmp_path, RecordOptions(tensorboard=True))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: TensorBoard stops showing this run, which goes on; ")


CHILD = """
import resource, sys
from pathlib import Path
from train.options import RecordOptions
from train.trackers import Trackers
trackers = Trackers(Path(sys.argv[1]), RecordOptions(), step=0)
if sys.argv[2] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
for step in range(200):
    trackers.add("train", {"loss": 0.5}, step)
trackers.close()
print("went on")
"""


def run_child(folder: Path, disk: str, packages: Path | None = None) -> tuple[str, str]:
    """A process of its own, whose files may be no larger than 300 bytes where `disk` is full."""
    root = str(Path(__file__).parents[2])
    places = [str(packages), root] if packages else [root]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), disk],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return done.stdout, done.stderr


def test_events_that_cannot_be_written_are_one_warning(tmp_path: Path):
    pytest.importorskip("tensorboard")
    said, warned = run_child(tmp_path, "full")
    assert said == "went on\n"
    assert warned.count("warning: TensorBoard stops showing this run, which goes on") == 1
    assert "Traceback" not in warned


def test_a_broken_tensorboard_is_one_warning(tmp_path: Path):
    package = tmp_path / "packages" / "tensorboard"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise TypeError('protobuf is too new')\n")
    said, warned = run_child(tmp_path, "free", package.parent)
    assert said == "went on\n"
    assert warned.count("warning: TensorBoard stops showing this run, which goes on") == 1


def test_a_chart_that_cannot_be_drawn_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    figures = pytest.importorskip("matplotlib.figure")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("built for <another> NumPy")

    monkeypatch.setattr(figures, "Figure", fail)  # matplotlib as a broken installation has it
    for chart in (line_chart("Loss", {"a": [(1, 0.5)]}), scatter_chart("x", [(1.0, 0.5, "rose")])):
        assert chart == (
            "<p>This chart could not be drawn (RuntimeError: built for &lt;another&gt; NumPy).</p>"
        )
