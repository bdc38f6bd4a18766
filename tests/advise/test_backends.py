"""The doctor tells sound from wrong, absent and crashing back-ends, and says what to do."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastload import doctor
from fastload.advise import backends
from fastload.advise.backends import Finding, examine, examine_apart, report
from fastload.advise.examples import Examples, made_examples
from fastload.installation import reinstall_command
from fastload.pixels import dali, native
from fastload.pixels.jpeg import read_header
from tests.shards import flip_bit, noisy_picture, write_shards

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core")


@pytest.fixture(scope="module")
def examples() -> Examples:
    return made_examples()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backends, "MEASURED_SECONDS", 0.05)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = [noisy_picture(seed, 0, height=90, width=120 + seed) for seed in range(30)]
    return write_shards(tmp_path_factory.mktemp("doctor"), {"val": pictures}, classes=["a"])


def test_the_made_examples_are_sound_jpegs_of_two_samplings(examples: Examples):
    assert len(examples.jpegs) == len(examples.boxes) == len(examples.flips) == 10
    for jpeg, box in zip(examples.jpegs, examples.boxes.tolist(), strict=True):
        width, height = Image.open(io.BytesIO(jpeg)).size
        top, left, tall, wide = box
        assert 0 <= top < top + tall <= height
        assert 0 <= left < left + wide <= width
    assert len({read_header(jpeg).sampling for jpeg in examples.jpegs}) == 2
    assert set(examples.flips.tolist()) == {True, False}


BACKENDS = [
    "libjpeg",
    pytest.param("native", marks=pytest.mark.skipif(not native.is_available(), reason="not built")),
    pytest.param(
        "dali-cpu",
        marks=[
            pytest.mark.dali,
            pytest.mark.skipif(bool(dali.why_unavailable()), reason=dali.why_unavailable()),
        ],
    ),
    pytest.param(
        "dali",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(
                bool(dali.why_unavailable(device=0)),
                reason=f"{dali.why_unavailable(device=0)}; on a GPU: pytest -m gpu",
            ),
        ],
    ),
]


@pytest.mark.parametrize("name", BACKENDS)
def test_a_sound_back_end_is_near_pillow_and_has_a_speed(name: str, examples: Examples):
    finding = examine(name, examples, "cuda:0")
    assert finding.name == name
    assert not finding.fault
    assert not finding.absent
    assert 0 < finding.difference < 1
    assert finding.images_per_second > 0


def test_wrong_pixels_are_a_fault(examples: Examples):
    elsewhere = replace(examples, boxes=np.minimum(examples.boxes, 100))
    boxes = np.minimum(examples.boxes, 100)
    boxes[:, :2] = 0
    monkey = pytest.MonkeyPatch()
    wrong = backends.pillow_pixels(replace(examples, boxes=boxes))
    monkey.setattr(backends, "pillow_pixels", lambda _: wrong)
    finding = examine("libjpeg", elsewhere, "cuda:0")
    monkey.undo()
    assert "greys from Pillow's, 1 is allowed" in finding.fault


def test_a_file_that_cannot_be_decoded_is_a_fault(examples: Examples):
    jpegs = (*examples.jpegs[:4], examples.jpegs[4][:900], *examples.jpegs[5:])
    broken = replace(examples, jpegs=jpegs)
    assert examine("libjpeg", broken, "cuda:0").fault.startswith("image 4 of 10 failed: ")


@pytest.mark.skipif(not dali.why_unavailable(device=0), reason="this machine has a GPU")
def test_without_a_gpu_dali_is_absent_and_not_at_fault(examples: Examples):
    finding = examine("dali", examples, "cuda:0")
    assert finding.absent
    assert not finding.fault


def test_a_switched_off_core_says_how_to_switch_it_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FASTLOAD_NATIVE", "0")
    monkeypatch.setattr(native, "is_available", lambda: False)
    assert backends.why_absent("native", torch.device("cpu")).endswith("unset FASTLOAD_NATIVE")


def test_a_core_that_was_not_built_comes_with_the_command_that_builds_it(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("FASTLOAD_NATIVE", raising=False)
    monkeypatch.setattr(native, "_load", lambda: (None, "_core.so was not built"))
    said = backends.why_absent("native", torch.device("cpu"))
    assert said.startswith("_core.so was not built: install a C++ compiler")
    assert said.endswith(reinstall_command())


def misbehave(name: str, examples: Examples, device: str) -> Finding:
    if name == "crash":
        os._exit(9)
    if name == "hang":
        time.sleep(600)
    if name == "fail":
        raise KeyError(device)
    return Finding(name=name, images_per_second=len(examples.jpegs))


def test_a_crash_a_hang_and_an_error_are_findings_and_the_next_one_goes_on(examples: Examples):
    names = ["crash", "fail", "hang", "sound"]
    began = time.monotonic()
    findings = examine_apart(names, examples, "cuda:7", trial=misbehave, limit_seconds=2.5)
    assert time.monotonic() - began < 200
    assert findings == [
        Finding(name="crash", fault="it crashed its process"),
        Finding(name="fail", fault="it raised KeyError: 'cuda:7'"),
        Finding(name="hang", fault="it did not answer within 2.5 s"),
        Finding(name="sound", images_per_second=10),
    ]


def slow_to_import() -> Callable[[str, Examples, str], Finding]:
    time.sleep(2)
    return misbehave


class SlowToImport:
    """A trial that takes two seconds to reach another process, as a library from a far disk."""

    __call__ = staticmethod(misbehave)

    def __reduce__(self):
        return slow_to_import, ()


def test_the_start_of_python_is_not_part_of_the_time_limit(examples: Examples):
    trial = SlowToImport()
    (finding,) = examine_apart(["sound"], examples, "cuda:0", trial=trial, limit_seconds=1.5)
    assert not finding.fault


def test_the_report_names_faults_causes_and_the_fastest():
    lines = report(
        [
            Finding(name="native", absent="not built: install a C++ compiler"),
            Finding(name="libjpeg", difference=0.25, images_per_second=1234.4),
            Finding(name="dali-cpu", difference=0.2, images_per_second=900),
            Finding(name="dali", fault="it raised Error: of\ntwo lines"),
        ]
    )
    assert [line.rstrip() for line in lines] == [
        "back-end  works  from Pillow  images/s",
        "native       no",
        "libjpeg     yes         0.25     1,234",
        "dali-cpu    yes         0.20       900",
        "dali      WRONG",
        "",
        "native: not built: install a C++ compiler",
        "dali: it raised Error: of",
        "two lines",
        'fastest here: Loader(..., backend="libjpeg")',
    ]


@pytest.mark.parametrize("stored", [False, True], ids=["made", "from shards"])
def test_the_command_prints_versions_and_a_table(
    shards: Path,
    stored: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(doctor, "BACKENDS", ("libjpeg",))
    if not stored:  # one other process is enough, and slow to start
        monkeypatch.setattr(doctor, "examine_apart", lambda _, *rest: [examine("libjpeg", *rest)])
    assert doctor.main([str(shards)] if stored else []) == 0
    out = capsys.readouterr().out
    for name in ("fastload", "Python", "processor", "PyTorch", "DALI", "driver", "GPU", "images"):
        assert f"\n{name} " in f"\n{out}"
    assert ("split val" in out) == stored
    assert 'fastest here: Loader(..., backend="libjpeg")' in out


def test_a_fault_makes_the_exit_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    found = Finding(name="libjpeg", fault="its pixels are 9.0 greys from Pillow's, 1 is allowed")
    monkeypatch.setattr(doctor, "examine_apart", lambda *_: [found])
    assert doctor.main([]) == 1
    assert "libjpeg: its pixels are 9.0 greys" in capsys.readouterr().out


def test_a_folder_without_shards_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert doctor.main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("fastload.doctor: ")
    assert "python -m fastload.shard" in error
    assert error.count("\n") == 1


def test_damaged_shards_are_named(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for path in shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    flip_bit(tmp_path / "val-000000.tar", 700)
    assert doctor.main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "val-000000.tar, sample 000000, offset 512: its CRC-32 is" in error


def test_a_device_that_is_no_gpu_is_an_argument_error(capsys: pytest.CaptureFixture[str]):
    for device in ("cpu", "quantum"):
        with pytest.raises(SystemExit) as raised:
            doctor.main(["--device", device])
        assert raised.value.code == 2
        assert f"'{device}' is no GPU such as cuda:0" in capsys.readouterr().err
