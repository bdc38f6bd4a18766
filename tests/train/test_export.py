"""Exported models answer as the model, in programs that do not know fastload."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from fastload import TarDataset
from fastload.advise.models import build_model
from fastload.installation import install_command
from tests.train.pictures import CLASSES, striped_picture, striped_shards
from train import export, exported
from train.agreement import compare
from train.answering import Answering, facts_of, resize_for
from train.readings import DivergedError
from train.run import main as train
from train.tensorfile import read_tensors, write_tensors
from train.trained import Trained, open_run

pytest.importorskip("onnxruntime", reason="pip install -e '.[export]'")
pytestmark = [
    pytest.mark.filterwarnings("ignore:fastload's native core:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
]

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def run_of(folder: Path, model: str, size: int) -> Path:
    """A run of one epoch, and its photographs as files."""
    data = striped_shards(folder / "shards")
    words = ["--data", str(data), "--runs", str(folder), "--name", "a", "--model", model]
    more = ["--init", "scratch", "--size", str(size), "--batch-size", "8", "--threads", "1"]
    quiet = ["--no-tensorboard", "--no-report", "--audit", "0", "--quiet-seconds", "3600"]
    assert train([*words, *more, *quiet, "--device", "cpu", "--epochs", "1", "--lr", "0.01"]) == 0
    return folder / "a"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return run_of(tmp_path_factory.mktemp("resnet"), "resnet18", 64)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> list[Path]:
    """Files of several sizes, one of them turned by EXIF."""
    folder = tmp_path_factory.mktemp("photographs")
    found = []
    for number in range(6):
        image = prepare_image_of(number)
        path = folder / f"{number}.jpg"
        exif = image.getexif()
        exif[274] = 6 if number == 2 else 1
        image.save(path, quality=95, exif=exif)
        found.append(path)
    return found


def prepare_image_of(number: int):
    from fastload.pixels.decode import decode_image

    picture = striped_picture(900 + number, number % 4, side=90 + 10 * number)
    image = Image.fromarray(decode_image(picture.jpeg))
    return image.crop((0, 0, image.width - 7 * number, image.height))


def expected(trained: Trained, photographs: list[Path]) -> torch.Tensor:
    """The probabilities of the model, by torchvision's transforms."""
    from torchvision.transforms import v2

    mean, std = trained.normalise
    view = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize(resize_for(trained.size), antialias=True),
            v2.CenterCrop(trained.size),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
        ]
    )
    images = [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in photographs]
    with torch.no_grad():
        logits = trained.model(torch.stack([view(image) for image in images]))
    return torch.softmax(logits / trained.temperature, 1)


def documented_program() -> str:
    text = (ROOT / "docs" / "answers.md").read_text(encoding="utf-8")
    return str(re.findall(r"```python\n(import json.*?)```", text, re.DOTALL)[0])


@pytest.mark.parametrize(
    ("model", "size"),
    [("resnet18", 64), ("timm:vit_tiny_patch16_224", 32), ("mobilenet_v3_small", 40)],
)
def test_a_program_without_fastload_gets_the_answers_of_the_model(
    run, tmp_path, photographs, model, size, capsys
):
    folder = run if model == "resnet18" else run_of(tmp_path, model, size)
    assert export.main([str(folder), "--out", str(tmp_path / "model.onnx")]) == 0
    assert "takes `images`, uint8 [N, 3, " in (said := capsys.readouterr().out)
    assert "asked about 13 photographs it answers as the model" in said

    program = (
        documented_program()
        + "\nassert 'fastload' not in sys.modules and 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, photographs)],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )

    assert done.returncode == 0, done.stderr
    trained = open_run(folder, CPU)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == list(map(str, photographs))
    for line, row in zip(lines, expected(trained, photographs), strict=True):
        answer = CLASSES.index(line[1])
        assert float(line[2]) == pytest.approx(float(row[answer]), abs=0.01)
        assert float(row[answer]) >= float(row.max()) - 0.01


def test_timm_takes_a_safetensors_file_as_it_is(tmp_path):
    timm = pytest.importorskip("timm")
    folder = run_of(tmp_path, "timm:vit_tiny_patch16_224", 32)
    assert export.main([str(folder), "--format", "safetensors"]) == 0

    path = str(folder / "model.safetensors")
    model = timm.create_model(
        "vit_tiny_patch16_224", num_classes=4, img_size=32, checkpoint_path=path
    )
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images), open_run(folder, CPU).model(images))


def test_an_onnx_file_holds_its_facts_and_takes_any_number_of_images(run, tmp_path):
    import onnxruntime

    assert export.main([str(run / "best.pt"), "--out", str(tmp_path)]) == 0

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (images,) = session.get_inputs()
    assert (images.name, images.type) == ("images", "tensor(uint8)")
    assert images.shape[1:] == [3, 64, 64]
    assert [output.name for output in session.get_outputs()] == ["probabilities", "logits"]
    facts = session.get_modelmeta().custom_metadata_map
    content = read_tensors(run / "best.pt")
    assert json.loads(facts["classes"]) == list(CLASSES) == json.loads(facts["class_names"])
    assert "中文 植物" in facts["classes"]
    assert (facts["size"], facts["resize"], facts["model"]) == ("64", "73", "resnet18")
    assert float(facts["temperature"]) == content["temperature"]
    assert json.loads(facts["thresholds"]) == {str(k): v for k, v in content["thresholds"].items()}
    assert [json.loads(facts["mean"]), json.loads(facts["std"])] == content["normalise"]
    trained = open_run(run, CPU)
    for count in (1, 2, 5):
        pixels = torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8)
        probabilities, logits = session.run(None, {"images": pixels.numpy()})
        with torch.no_grad():
            mine = Answering(trained)(pixels)
        np.testing.assert_allclose(probabilities, mine[0], atol=1e-5)
        np.testing.assert_allclose(logits, mine[1], atol=1e-3)


def test_a_torchscript_file_is_asked_without_fastload(run, tmp_path, photographs):
    path = tmp_path / "flowers.pt"
    assert export.main([str(run), "--format", "torchscript", "--out", str(path)]) == 0

    program = (
        "import json, sys, warnings; warnings.simplefilter('ignore'); import torch\n"
        "facts = {'fastload.json': ''}\n"
        "model = torch.jit.load(sys.argv[1], _extra_files=facts)\n"
        "images = torch.arange(3 * 3 * 64 * 64).reshape(3, 3, 64, 64).remainder(251).byte()\n"
        "print(json.dumps([json.loads(facts['fastload.json'])['class_names'],"
        " model(images)[0].tolist()]))\n"
        "assert 'fastload' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], cwd=tmp_path, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    names, probabilities = json.loads(done.stdout)
    assert names == list(CLASSES)
    images = torch.arange(3 * 3 * 64 * 64).reshape(3, 3, 64, 64).remainder(251).byte()
    with torch.no_grad():
        mine = Answering(open_run(run, CPU))(images)[0]
    np.testing.assert_allclose(probabilities, mine, atol=1e-5)


def test_a_safetensors_file_starts_another_run_and_fits_torchvisions_model(run, tmp_path, capsys):
    from safetensors import safe_open
    from safetensors.torch import load_file

    path = tmp_path / "m.safetensors"
    assert export.main([str(run), "--format", "safetensors", "--out", str(path)]) == 0

    build_model("resnet18", 4).load_state_dict(load_file(path))
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["class_names"]) == list(CLASSES)
    data = run.parent / "shards"
    words = ["--data", str(data), "--runs", str(tmp_path), "--name", "b", "--model", "resnet18"]
    more = ["--init", str(path), "--size", "32", "--batch-size", "8", "--threads", "1"]
    quiet = ["--no-tensorboard", "--no-report", "--audit", "0", "--device", "cpu", "--epochs", "1"]
    capsys.readouterr()
    assert train([*words, *more, *quiet]) == 0
    assert "kept 122 tensors" in (said := capsys.readouterr().out)  # the last layer with them
    assert "started anew" not in said


def test_a_safetensors_file_of_other_classes_gives_all_but_the_last_layer(run, tmp_path, capsys):
    path = tmp_path / "m.safetensors"
    assert export.main([str(run), "--format", "safetensors", "--out", str(path)]) == 0
    other = striped_shards(tmp_path / "other", (8, 8, 8), (2, 2, 2))
    words = ["--data", str(other), "--runs", str(tmp_path), "--name", "b", "--model", "resnet18"]
    more = ["--init", str(path), "--size", "32", "--batch-size", "8", "--threads", "1"]
    quiet = ["--no-tensorboard", "--no-report", "--audit", "0", "--device", "cpu", "--epochs", "1"]
    assert train([*words, *more, *quiet]) == 0
    assert "kept 120 tensors" in capsys.readouterr().out


def test_several_formats_go_beside_the_run_and_replace_older_files(run, capsys):
    for extension in ("onnx", "torchscript", "safetensors"):
        (run / f"model.{extension}").write_bytes(b"old")

    assert export.main([str(run), "--format", "safetensors,onnx,torchscript"]) == 0

    said = capsys.readouterr().out
    for extension in ("onnx", "torchscript", "safetensors"):
        file = run / f"model.{extension}"
        assert f"{file}: resnet18, 4 classes" in said
        assert file.stat().st_size > 1000
        file.unlink()


def sentence(capsys, status: int, *words: str | Path) -> str:
    capsys.readouterr()
    try:
        found = export.main(list(map(str, words)))
    except SystemExit as stopped:
        found = int(stopped.code or 0)
    assert found == status
    said: str = capsys.readouterr().err
    assert said.startswith("train/export.py: ")
    assert said.count("\n") == 1, said
    return said


def test_a_file_that_answers_otherwise_is_not_written(run, tmp_path, capsys, monkeypatch):
    sound = exported.FORMATS["onnx"]

    def of_another_model(trained, facts):
        with torch.no_grad():
            trained.model.fc.bias[0] += 1.0
            data = sound.write(trained, facts)
            trained.model.fc.bias[0] -= 1.0
        return data

    monkeypatch.setitem(
        exported.FORMATS,
        "onnx",
        exported.Format(extension=".onnx", packages=(), write=of_another_model, open=sound.open),
    )
    said = sentence(capsys, 1, run, "--out", tmp_path / "m.onnx")
    assert "is not written, as the exported model answers otherwise than the model" in said
    assert not list(tmp_path.iterdir())


def test_a_file_that_its_runtime_does_not_take_is_one_sentence(run, tmp_path, capsys, monkeypatch):
    sound = exported.FORMATS["onnx"]
    broken = exported.Format(
        extension=".onnx", packages=(), write=lambda *_: b"no protobuf", open=sound.open
    )
    monkeypatch.setitem(exported.FORMATS, "onnx", broken)
    said = sentence(capsys, 1, run, "--out", tmp_path / "m.onnx")
    assert "resnet18 cannot be exported to onnx by torch" in said
    assert not list(tmp_path.iterdir())


def test_answers_are_compared_and_near_ties_are_none(run):
    trained = open_run(run, CPU)
    images = torch.randint(0, 256, (40, 3, 64, 64), dtype=torch.uint8)
    ask = Answering(trained)

    with torch.no_grad():
        assert compare(trained, images, ask).holds
        off = compare(trained, images, lambda batch: (ask(batch)[0] + 2e-3, ask(batch)[1]))
        assert (off.holds, off.different) == (False, 0)
        assert off.deviation == pytest.approx(2e-3, rel=0.01)
        turned = compare(trained, images, lambda batch: (ask(batch)[0].flip(1), ask(batch)[1]))
        assert turned.different > 0
        nothing = compare(
            trained, images, lambda batch: (ask(batch)[0] * float("nan"), ask(batch)[1])
        )
        assert not nothing.holds
    next(trained.model.parameters()).fill_(float("nan"))
    with pytest.raises(DivergedError, match="the model answers with NaN or infinity"):
        compare(trained, images, ask)


def test_photographs_can_be_named_and_other_files_are_passed_over(
    run, tmp_path, photographs, capsys
):
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "cut.jpg").write_bytes(photographs[0].read_bytes()[:300])
    more = ("--format", "safetensors", "--out", tmp_path / "m")
    words = [str(word) for word in (run, *more, "--check", tmp_path, *photographs)]
    assert export.main(words) == 0
    assert "asked about 6 photographs" in capsys.readouterr().out

    said = sentence(capsys, 1, run, *more, "--check", tmp_path / "notes.txt")
    assert "holds no photograph that can be read" in said
    said = sentence(capsys, 1, run, *more, "--check", tmp_path / "none")
    assert "there is no such file or folder" in said


def test_a_run_whose_data_are_gone_asks_for_photographs(run, tmp_path, capsys):
    content = read_tensors(run / "best.pt")
    content["options"] = content["options"].replace(str(run.parent), str(tmp_path / "gone"))
    content.pop("format")
    write_tensors(tmp_path / "best.pt", content)
    said = sentence(capsys, 1, tmp_path / "best.pt")
    assert "name others to check the file on: --check FOLDER" in said
    assert not (tmp_path / "model.onnx").exists()


def test_mistakes_are_one_sentence(run, tmp_path, capsys):
    assert "there is no such run" in sentence(capsys, 1, tmp_path / "nothing")
    assert "must be onnx, torchscript, safetensors" in sentence(
        capsys, 2, run, "--format", "tflite"
    )
    said = sentence(capsys, 1, run, "--out", tmp_path / "no" / "m.onnx")
    assert f"there is no folder {tmp_path / 'no'}; make it" in said
    said = sentence(capsys, 1, run, "--format", "onnx,safetensors", "--out", tmp_path / "m.onnx")
    assert "must be a folder that is there, for several formats" in said
    assert not list(tmp_path.iterdir())
    os.mkfifo(tmp_path / "m.onnx")  # a superuser could replace a device, too
    said = sentence(capsys, 1, run, "--out", tmp_path / "m.onnx")
    assert "is a pipe, expected a regular file" in said


def test_a_missing_package_is_asked_for(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    said = sentence(capsys, 1, run, "--out", tmp_path / "m.onnx")
    assert "--format onnx needs onnx, onnxscript, onnxruntime" in said
    assert install_command("export") in said


def test_no_room_leaves_the_older_file_and_no_other(run, tmp_path, capsys):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        said = sentence(capsys, 1, run, "--format", "safetensors", "--out", path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert f"{path}: the file grows beyond" in said
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_ctrl_c_leaves_nothing(run, tmp_path):
    done = subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "train/export.py"),
            str(run),
            "--out",
            str(tmp_path / "m.onnx"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    program = Path(f"/proc/{done.pid}/maps")
    while done.poll() is None and "onnxruntime" not in program.read_text():
        time.sleep(0.05)  # until the command is at work
    done.send_signal(signal.SIGINT)
    _, said = done.communicate()
    assert done.returncode == 130, said
    assert "stopped by Ctrl-C" in said
    assert not list(tmp_path.iterdir())


def prepare_image(image: Image.Image, size: int) -> Image.Image:
    """A photograph as a model sees it, by Pillow alone: what docs/answers.md tells others to do."""
    image = ImageOps.exif_transpose(image).convert("RGB")
    resize = resize_for(size)
    shorter = min(image.size)
    width, height = (resize * side // shorter for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def test_a_photograph_is_prepared_as_evaluation_sees_it(run):
    from fastload import Loader

    trained = open_run(run, CPU)
    images = TarDataset(run.parent / "shards", "val")
    with Loader(run.parent / "shards", split="val", augment=trained.view, batch_size=13) as loader:
        seen = next(iter(loader))[0].numpy().astype(int)
    for number in range(13):
        mine = np.asarray(prepare_image(images[number][0], 64)).transpose(2, 0, 1).astype(int)
        assert np.abs(mine - seen[number]).max() <= 2


def test_names_that_are_no_text_do_not_break_the_facts(run):
    from dataclasses import replace

    trained = replace(open_run(run, CPU), class_names=("a\udcff", "b", "c", "d"))
    facts = facts_of(trained)
    for text in (facts.json(), facts.strings()["class_names"]):
        assert text.encode("utf-8")
    assert json.loads(facts.strings()["class_names"])[0] == "a\udcff"
