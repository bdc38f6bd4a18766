"""What a notebook shows, in a real kernel: pictures, tables and bars, and no warning."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pictures import jpeg, write_tree

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook.ipynb"
# nbclient and its event loop live in a process of their own, as `jupyter execute` would have them.
RUN = """
import sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""

OWN = ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR")

pytestmark = pytest.mark.slow


def execute(notebook: Path, folder: Path) -> list[list[dict[str, Any]]]:
    """The outputs of each cell of code, executed in a folder."""
    for needed in ("nbclient", "ipykernel", "ipywidgets"):
        pytest.importorskip(needed, reason=f"needs {needed}: pip install -e '.[dev]'")
    out = folder / "executed.ipynb"
    root = str(NOTEBOOK.parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(notebook), str(out)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)} | dict.fromkeys(OWN, str(folder)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    cells = json.loads(out.read_text(encoding="utf-8"))["cells"]
    return [cell["outputs"] for cell in cells if cell["cell_type"] == "code"]


def html_of(outputs: list[dict[str, Any]]) -> str:
    """What the last output of a cell shows as HTML."""
    return "".join(outputs[-1]["data"]["text/html"])


def said(cells: list[list[dict[str, Any]]]) -> str:
    """All that was printed, on both streams."""
    return "".join("".join(each.get("text", "")) for outputs in cells for each in outputs)


def test_the_example_runs_and_shows_pictures_names_and_times(tmp_path):
    names = ("玫瑰", "<b>rose")
    files = {
        f"train/{name}/{i}.jpg": jpeg(i + 9 * n) for n, name in enumerate(names) for i in range(9)
    }
    write_tree(tmp_path / "data", files)
    cells = execute(NOTEBOOK, tmp_path)
    _, _, contents, dataset, drawing, stats, _ = cells
    assert "18 images of 2 classes" in html_of(contents)
    assert '<td><bdi lang="">玫瑰</bdi></td>' in html_of(dataset)
    assert html_of(drawing).count("data:image/png;base64,") == 8
    assert "玫瑰" in html_of(drawing)
    assert "&lt;b&gt;rose" in html_of(drawing)
    assert "bottleneck" in html_of(stats)
    assert "Warning" not in said(cells)


def test_the_committed_notebook_holds_no_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 4
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


BARS = """
from fastload.console.progress import Progress
with Progress(10, "images", quiet_seconds=0) as bar:
    bar.add(10, note="done")
"""


def notebook_of(path: Path, *cells: str) -> Path:
    plain: dict[str, Any] = {"cell_type": "code", "metadata": {}, "outputs": []}
    code = [{**plain, "execution_count": None, "source": cell} for cell in cells]
    facts = {"cells": code, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
    path.write_text(json.dumps(facts), encoding="utf-8")
    return path


def test_progress_is_a_bar_of_the_notebook(tmp_path):
    (outputs,) = execute(notebook_of(tmp_path / "n.ipynb", BARS), tmp_path)
    assert any(
        "application/vnd.jupyter.widget-view+json" in each.get("data", {}) for each in outputs
    )
    assert "Warning" not in said([outputs])


def test_without_ipywidgets_progress_is_lines_and_no_warning(tmp_path):
    hidden = "import sys; sys.modules['ipywidgets'] = None"
    cells = execute(notebook_of(tmp_path / "n.ipynb", hidden, BARS), tmp_path)
    assert said(cells).startswith("10 of 10 images, ")
    assert said(cells).count("\n") == 1
