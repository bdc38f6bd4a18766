"""Both sides of every diff in docs/migrating.md run on the same data, and give the same labels."""

from __future__ import annotations

import importlib
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.pictures import write_tree
from tests.shards import flat_picture, numbered

PAGE = (Path(__file__).parents[1] / "docs" / "migrating.md").read_text(encoding="utf-8")
CLASSES = ["lily", "rose", "tulip"]
TRAIN, VAL, BATCH = 24, 13, 8
EPOCHS = 2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:fastload's native core"),
]


def diffs() -> dict[str, tuple[str, str]]:
    """For each heading with a diff the program before and the program after."""
    found = {}
    for heading, text in re.findall(r"^##+ (.*?)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL):
        for block in re.findall(r"```diff\n(.*?)```", text, re.DOTALL):
            lines = block.splitlines()
            sides = ["\n".join(line[1:] for line in lines if line[:1] != sign) for sign in "+-"]
            found[heading] = (sides[0], sides[1])
    return found


DIFFS = diffs()
NEEDED = {"webdataset": "webdataset", "timm": "timm", "DALI": "nvidia.dali", "FFCV": "ffcv"}
NAMES = {"nvidia.dali": "nvidia-dali-cuda120"}  # of distributions that are called otherwise


@dataclass
class Seen:
    """What a program gave to `train_step` and `evaluate`, batch after batch."""

    training: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    evaluation: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    classes: list[str] | None = None


def run(program: str) -> Seen:
    seen = Seen()
    names: dict[str, Any] = {
        "__name__": "migrated",
        "train_step": lambda images, labels: seen.training.append((images, labels)),
        "evaluate": lambda images, labels: seen.evaluation.append((images, labels)),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the libraries
        exec(program, names)
    for name in ("train", "val"):
        if hasattr(names.get(name), "close"):
            names[name].close()
    seen.classes = names.get("classes")
    return seen


def joined(batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Images and labels in the order of their brightness, which tells the pictures apart."""
    if not batches:
        return torch.zeros(0), torch.zeros(0)
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    order = images.float().mean((1, 2, 3)).argsort()
    return images[order], labels[order]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures in class folders and in tars."""
    root = tmp_path_factory.mktemp("migrating")
    files = {}
    # No picture is in both splits: it would be left out of training.
    for split, numbers in (("train", range(TRAIN)), ("val", range(TRAIN, TRAIN + VAL))):
        for number in numbers:
            picture = flat_picture(number, number % 3, height=80, width=100)
            name = f"data/{split}/{CLASSES[picture.label]}/{number:02d}.jpg"
            files[name] = picture.jpeg
    write_tree(root, files)
    shards = numbered(root / "shards", {"train": TRAIN})
    (root / "wds").mkdir()
    for tar in shards.glob("*.tar"):
        tar.rename(root / "wds" / tar.name)
    return root


def needs(library: str) -> None:
    """Skip where a library is not installed, or does not find the libraries that it needs."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(library)
    except ImportError as error:
        pytest.skip(f"needs {library} (pip install {NAMES.get(library, library)}): {error}")


@pytest.fixture
def programs(request, data, monkeypatch) -> tuple[str, str]:
    library = next((name for word, name in NEEDED.items() if word in request.param), None)
    if library:
        needs(library)
    monkeypatch.chdir(data)
    return DIFFS[request.param]


@pytest.mark.parametrize("programs", DIFFS, indirect=True)
def test_the_new_program_gives_the_labels_and_batches_of_the_old_one(programs):
    before, after = (run(program) for program in programs)
    assert after.classes == before.classes
    assert len(after.training) == len(before.training)
    assert len(after.evaluation) == len(before.evaluation)
    assert len(after.training) in (0, EPOCHS * TRAIN // BATCH)
    assert len(after.evaluation) in (0, EPOCHS * 2)
    assert after.training or after.evaluation
    assert torch.equal(joined(after.training)[1].sort()[0], joined(before.training)[1].sort()[0])
    for ours, theirs in zip(joined(after.evaluation), joined(before.evaluation), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=2.5 / 255 / 0.225)  # rounding of a decoder
    batches = zip(
        before.training + before.evaluation, after.training + after.evaluation, strict=True
    )
    for (images, labels), (ours, targets) in batches:
        assert (ours.shape, ours.dtype) == (images.shape, images.dtype)
        assert (targets.shape, targets.dtype) == (labels.shape, torch.int64)
        assert ours.is_contiguous(memory_format=torch.channels_last)


def test_every_library_of_the_page_has_its_diff():
    names = " ".join(DIFFS)
    for name in ("torchvision", "webdataset", "timm", "DALI", "FFCV", "transform of your own"):
        assert name in names
