"""Each example runs as a user would run it, with the real library, and resumes where it says so."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fastload import Augment, Loader, Mix
from fastload.world import World
from tests.shards import numbered

EXAMPLES = Path(__file__).parents[1] / "examples"
TRAIN, VAL, BATCH = 24, 13, 8
SMALL = ["--epochs", "2", "--batch-size", str(BATCH), "--size", "32"]

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core")
timm_warns = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:timm",
    "ignore::FutureWarning:timm",
    "ignore:.*torch.jit:FutureWarning",  # of timm 1.0.3, where torch is newer
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("examples") / "shards"
    return numbered(directory, {"train": TRAIN, "val": VAL})


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # more only wait for each other with images of 32 pixels
    yield
    torch.set_num_threads(before)


def load_example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*command: str, cwd: Path) -> str:
    """Run a Python command; its standard output."""
    ours = os.pathsep.join([str(EXAMPLES), str(EXAMPLES.parent)])  # this checkout's fastload
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ours}
    done = subprocess.run(
        [sys.executable, *command], env=environment, cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def needs(library: str) -> None:
    """Skip where a library is not installed."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"needs {library}: pip install -e '.[examples]' in the checkout")


def epochs_of(shards: Path, count: int) -> list[list[int]]:
    """The rows of each batch of some epochs, as a Loader by itself gives them."""
    augment = Augment.train(32)
    with Loader(
        shards, batch_size=BATCH, augment=augment, reweight="sqrt", world=World()
    ) as loader:
        return [loader.last_indices().tolist() for _ in range(count) for _ in loader]


def test_the_plain_loop_trains(shards, capsys, one_thread):
    load_example("plain_loop").main([str(shards), *SMALL])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["epoch 0", "epoch 1"]
    # Of 13 samples an accuracy is a multiple of 1/13: none was padded, none dropped.
    shares = [float(re.findall(r"accuracy (.*)%", line)[0]) for line in lines]
    assert all(abs(share * VAL / 100 - round(share * VAL / 100)) < 0.01 for share in shares)


@timm_warns
def test_timm_trains_with_soft_targets_until_mixup_goes_off(shards, capsys, one_thread):
    needs("timm")
    example = load_example("timm_train")
    mixed = ["--mixup", "0.2", "--cutmix", "1", "--mixup-off-epoch", "1"]
    example.main([str(shards), *SMALL, "--model", "resnet10t", *mixed])
    assert re.findall(r"epoch (\d): loss \d+\.\d+, top-1", capsys.readouterr().out) == ["0", "1"]


@timm_warns
def test_a_timm_loader_keeps_soft_targets_when_mixup_goes_off(shards):
    needs("timm")
    TimmLoader = load_example("timm_train").TimmLoader  # noqa: N806  a class
    augment = Augment(size=32, mix=Mix(mixup=0.0, cutmix=1.0))
    with Loader(shards, batch_size=BATCH, augment=augment, dtype=torch.float32) as inner:
        loader = TimmLoader(inner)
        assert len(loader) == TRAIN // BATCH
        assert loader.mixup_enabled
        loader.sampler.set_epoch(3)
        soft = torch.cat([targets for _, targets in loader])
        loader.mixup_enabled = False
        assert not loader.mixup_enabled
        loader.sampler.set_epoch(3)
        hard = torch.cat([targets for _, targets in loader])
    assert soft.shape == hard.shape == (TRAIN, 3)
    assert (soft.amax(1) < 1).any()
    assert (hard.amax(1) == 1).all()
    assert inner.epoch == 4


# What a batch was made of is recorded where the example's model gets it.
RECORDED = """
import json, sys
import lightning_datamodule as example

seen, step = [], example.Classifier.training_step
def recording(self, batch, number):
    seen.append(self.trainer.train_dataloader.last_indices().tolist())
    return step(self, batch, number)
example.Classifier.training_step = recording
"""

LIGHTNING = """
shards, out, *small = sys.argv[1:]
example.main([shards, "--out", out, *small, "--max-steps", "2", "--save-every", "2"])
trainer = example.main([shards, "--out", out, *small, "--resume", out + "/last.ckpt"])
print(json.dumps({
    "seen": seen, "steps": trainer.global_step,
    "accuracy": trainer.callback_metrics["accuracy"].item(),
}))
"""


@pytest.mark.slow
def test_lightning_resumes_in_the_middle_of_an_epoch(shards, tmp_path):
    needs("lightning")
    out = run("-c", RECORDED + LIGHTNING, str(shards), str(tmp_path / "run"), *SMALL, cwd=tmp_path)
    facts = json.loads(out.splitlines()[-1])
    assert facts["seen"] == epochs_of(shards, 2)
    assert facts["steps"] == 2 * TRAIN // BATCH
    assert facts["accuracy"] * VAL == pytest.approx(round(facts["accuracy"] * VAL), abs=1e-4)


RELOADED = """
from lightning.pytorch import Trainer

data = example.ShardData(sys.argv[1], batch_size=8, size=32)
options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
trainer = Trainer(max_epochs=3, reload_dataloaders_every_n_epochs=1, **options)
trainer.fit(example.Classifier(data.num_classes), datamodule=data)
print(json.dumps(seen))
"""


@pytest.mark.slow
def test_lightning_may_reload_the_loader_each_epoch(shards, tmp_path):
    needs("lightning")
    out = run("-W", "error:this Loader gives", "-c", RECORDED + RELOADED, str(shards), cwd=tmp_path)
    assert json.loads(out.splitlines()[-1]) == epochs_of(shards, 3)


ACCELERATE = """
import json, sys
import accelerate_train as example

seen = []
class Recording(example.Loader):
    def __iter__(self):
        for batch in super().__iter__():
            if self.drop_last:
                seen.append(self.last_indices().tolist())
            yield batch
example.Loader = Recording

shards, out, *small = sys.argv[1:]
example.main([shards, "--out", out, *small, "--max-steps", "2", "--save-every", "2"])
example.main([shards, "--out", out, *small, "--resume", out])
print(json.dumps(seen))
"""


@pytest.mark.slow
def test_accelerate_resumes_in_the_middle_of_an_epoch(shards, tmp_path):
    needs("accelerate")
    out = run("-c", ACCELERATE, str(shards), str(tmp_path / "run"), *SMALL, cwd=tmp_path)
    assert json.loads(out.splitlines()[-1]) == epochs_of(shards, 2)
    assert re.findall(r"epoch (\d)", out) == ["0", "1"]


TRAINER = """
import json, sys
import hugging_face_trainer as example

seen = []
class Recording(example.Batches):
    def __iter__(self):
        for batch in super().__iter__():
            seen.append(self._loader.last_indices().tolist())
            yield batch
class RecordingTrainer(example.LoaderTrainer):
    def get_train_dataloader(self):
        return Recording(self._train)
example.LoaderTrainer = RecordingTrainer

shards, out, *small = sys.argv[1:]
example.main([shards, "--out", out, *small, "--epochs", "1"])
example.main([shards, "--out", out, *small, "--resume"])
print(json.dumps(seen))
"""


@pytest.mark.slow
def test_hugging_faces_trainer_goes_on_with_the_next_epoch(shards, tmp_path):
    needs("transformers")
    out = run("-c", TRAINER, str(shards), str(tmp_path / "run"), *SMALL, cwd=tmp_path)
    assert json.loads(out.splitlines()[-1]) == epochs_of(shards, 2)
    shares = [float(share) for share in re.findall(r"^accuracy (.*)%", out, re.MULTILINE)]
    assert len(shares) == 2
    assert all(abs(share * VAL / 100 - round(share * VAL / 100)) < 0.01 for share in shares)


KERAS = """
import json, sys
import keras_fit as example

seen = []
class Recording(example.Loader):
    def __iter__(self):
        for images, labels in super().__iter__():
            assert images.permute(0, 2, 3, 1).is_contiguous()
            if self.drop_last:
                seen.append(self.last_indices().tolist())
            yield images, labels
example.Loader = Recording
example.main(sys.argv[1:])
print(json.dumps(seen))
"""


@pytest.mark.slow
@pytest.mark.parametrize("channels", ["last", "first"])
def test_keras_fits_on_whole_epochs(shards, tmp_path, channels):
    needs("keras")
    out = run(
        "-W",
        "error:`shuffle",
        "-c",
        KERAS,
        str(shards),
        *SMALL,
        "--channels",
        channels,
        cwd=tmp_path,
    )
    assert json.loads(out.splitlines()[-1]) == epochs_of(shards, 2)
    shares = [float(share) for share in re.findall(r"accuracy (.*)%", out)]
    assert len(shares) == 2
    assert all(abs(share * VAL / 100 - round(share * VAL / 100)) < 0.01 for share in shares)


@pytest.mark.slow
def test_two_processes_train_and_evaluate_each_sample_once(shards, tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = str(EXAMPLES / "ddp_two_processes.py")
    out = run(*torchrun, script, str(shards), *SMALL, cwd=tmp_path)
    assert re.findall(r"epoch (\d): \d+ of (\d+) right", out) == [("0", "13"), ("1", "13")]


def test_the_two_processes_are_started_by_torchrun(shards, monkeypatch, capsys):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(SystemExit, match="2"):
        load_example("ddp_two_processes").main([str(shards)])
    assert "torchrun --standalone --nproc-per-node 2" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_says_how_it_is_run(path):
    assert re.search(rf"^    .*examples/{path.name} ", path.read_text(), re.MULTILINE)


def test_the_documentation_names_every_example_and_only_tests_that_exist():
    text = (EXAMPLES.parent / "docs" / "examples.md").read_text()
    linked = set(re.findall(r"\(\.\./examples/(\w+\.\w+)\)", text))
    assert linked == {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    tests = (EXAMPLES.parent / "tests" / "load" / "test_dataset.py").read_text()
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in tests
