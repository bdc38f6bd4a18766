"""The doctor tells sound from wrong, absent and crashing back-ends, and says what to do."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastload.advise import backends
from fastload.advise.backends import Finding, examine, examine_apart, report
from fastload.advise.examples import Examples, made_examples
from fastload.installation import reinstall_command
from fastload.pixels import dali, native

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core")


@pytest.fixture(scope="module")
def examples() -> Examples:
    return made_examples()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backends, "MEASURED_SECONDS", 0.05)


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
    monkeypatch.setattr(native, "LIBRARY", Path("/nowhere"))
    said = backends.why_absent("native", torch.device("cpu"))
    assert said.startswith("_core.so was not built: install a C++ compiler")
    assert said.endswith(reinstall_command())


@pytest.mark.parametrize(
    ("platform", "manager", "said"),
    [
        ("darwin", "apt-get", "install a C++ compiler (xcode-select --install), then "),
        ("linux", "apt-get", "install a C++ compiler (apt install g++), then "),
        ("linux", "dnf", "install a C++ compiler (dnf install gcc-c++), then "),
        ("linux", "", "install a C++ compiler (such as g++ or clang++), then "),
    ],
)
def test_a_compiler_is_installed_as_the_system_does_it(platform, manager, said, monkeypatch):
    monkeypatch.delenv("FASTLOAD_NATIVE", raising=False)
    monkeypatch.setattr(native, "LIBRARY", Path("/nowhere"))
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(shutil, "which", lambda name: name if name == manager else None)
    assert native.how_to_mend().startswith(said)


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
        "back-end  works  greys from Pillow  images/s, all cores",
        "native       no",
        "libjpeg     yes               0.25                1,234",
        "dali-cpu    yes               0.20                  900",
        "dali      WRONG",
        "",
        "native: not built: install a C++ compiler",
        "dali: it raised Error: of",
        "two lines",
        'fastest here: Loader(..., backend="libjpeg")',
    ]
