"""A release is built, and its wheel brings the core to a machine that has no compiler."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

import fastload
from fastload.installation import DISTRIBUTION
from tests.documents import BLOCKS
from tests.pictures import flower_tree
from tests.shards import flat_picture

ROOT = Path(__file__).parents[1]
COMPILERS = ("cc", "gcc", "c++", "g++", "clang", "clang++")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the release of these tests is for Linux"),
    pytest.mark.skipif(
        not all(map(find_spec, ("auditwheel", "build", "twine"))),
        reason="needs build, auditwheel and twine: pip install -e '.[release]' in the checkout",
    ),
    pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler"),
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a release is of what git tracks"),
]


def run_release(
    *words: str | Path, python: str | Path = sys.executable
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / "release", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHON": str(python)},
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a release that was not uploaded."""
    out = tmp_path_factory.mktemp("release") / "dist ü"
    done = run_release("--dry-run", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing was uploaded" in done.stdout
    for path in out.iterdir():
        assert path.name in done.stdout
    again = run_release("--dry-run", "--out", out)
    assert again.returncode == 1
    assert "is not empty" in again.stderr
    return out


def wheel_of(built: Path) -> Path:
    (wheel,) = (path for path in built.glob("*.whl") if f"_{os.uname().machine}." in path.name)
    return wheel


def test_the_wheel_is_for_every_python_and_an_old_glibc(built: Path):
    said = re.fullmatch(
        rf"{DISTRIBUTION.replace('-', '_')}-(.+)-py3-none-manylinux_2_(\d+)_\w+\.whl",
        wheel_of(built).name,
    )
    assert said is not None
    assert said[1] == fastload.__version__
    assert int(said[2]) <= 28  # that of torch's own wheels
    with zipfile.ZipFile(wheel_of(built)) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"fastload", "train"}
    assert "train/recipes/quick-cpu.toml" in names
    assert "fastload/pixels/_core.so" in names


def test_the_sdist_holds_what_git_tracks_of_the_core_and_no_build(built: Path):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    headers = {str(path.relative_to(ROOT)) for path in (ROOT / "native").glob("*/*.hpp")}
    assert headers <= names
    assert not [name for name in names if name.endswith(".so") or name.startswith("tests")]


def test_nothing_in_a_release_says_when_where_or_by_whom_it_was_built(built: Path):
    """So the same commit gives the same bytes, on machines with the same tools."""
    asked = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    commit = int(subprocess.run(asked, capture_output=True, check=True).stdout)
    (sdist,) = built.glob("*.tar.gz")
    assert sdist.read_bytes()[3:8] == bytes(5)  # of gzip's header: no name, no time
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert [one.name for one in members] == sorted(one.name for one in members)
    assert {(one.mtime, one.uid, one.gid, one.uname) for one in members} == {(commit, 0, 0, "")}
    with zipfile.ZipFile(wheel_of(built)) as archive:
        times = {one.date_time for one in archive.infolist()}
        core = archive.read("fastload/pixels/_core.so")
    assert times == {time.gmtime(commit - commit % 2)[:6]}
    assert b"\3\0\0\0GNU\0" not in core  # a build ID
    assert b"/tmp" not in core


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the wheel, and sees the other packages of ours."""
    folder = tmp_path_factory.mktemp("wheel") / "venv"
    venv.create(folder, symlinks=True)
    (packages,) = (folder / "lib").glob("python3*/site-packages")
    ours = [path for path in sys.path if path and Path(path).resolve() != ROOT.resolve()]
    (packages / "shared.pth").write_text("\n".join(ours) + "\n")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install"),
            *("--quiet", "--no-deps", "--no-index", "--ignore-installed"),
            *("--disable-pip-version-check", wheel_of(built)),
        ],
        check=True,
    )
    return folder


def ask(installed: Path, folder: Path, *words: str, program: str = "python") -> str:
    """What a program of that environment says, where there is no compiler."""
    path = str(installed / "bin")
    assert not any(shutil.which(name, path=path) for name in COMPILERS)
    environment = {**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [installed / "bin" / program, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_without_a_compiler_the_wheel_decodes_with_the_core(installed: Path, tmp_path: Path):
    program = """
import io, sys
import numpy as np
from PIL import Image
import fastload, train
from fastload.pixels import native
assert native.is_available(), native.why_unavailable()
picture = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
file = io.BytesIO()
Image.fromarray(picture).save(file, "jpeg", quality=90)
file.seek(0)
assert np.array_equal(native.decode_full(file.getvalue()), np.asarray(Image.open(file)))
print(fastload.__version__, fastload.__file__, train.__file__)
"""
    version, *files = ask(installed, tmp_path, "-c", program).split()
    assert version == fastload.__version__
    assert all(Path(file).is_relative_to(installed) for file in files)


def test_what_a_command_of_the_wheel_says_to_do_next_can_be_done(installed: Path, tmp_path: Path):
    flower_tree(tmp_path / "data")
    said = ask(installed, tmp_path, "-m", "fastload.shard", "data")
    (line,) = re.findall(r"^next +(\S+) (-m fastload train .*)$", said, re.MULTILINE)
    assert line[0] == "python"  # that of the environment, which comes first on the path
    recipe = [
        "--model",
        "resnet18",
        "--size",
        "32",
        "--init",
        "scratch",
        "--batch-size",
        "4",
        "--check",
    ]
    checked = ask(installed, tmp_path, *line[1].split(), *recipe)
    assert "check passed" in checked


SMALLER = {"sample": ["--images", "100"], "train": ["--epochs", "1", "--name", "NAME"]}


def test_every_command_of_the_readme_runs_from_the_wheel(installed: Path, tmp_path: Path):
    pytest.importorskip("onnxruntime", reason="pip install -e '.[export]'")
    blocks = [block for block in BLOCKS if block.place.startswith("README.md")]
    lines = [shlex.split(line) for block in blocks for line in block.lines]
    commands = [words[1:] for words in lines if words[0] == "fastload"]
    assert len(commands) == 7
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(flat_picture(1, 0).jpeg)
    for command, *words in commands:
        if (command, *words[:2]) == ("train", "--data", "shards/"):
            shutil.rmtree(tmp_path / "runs")  # that name is taken
        said = ask(
            installed, tmp_path, command, *words, *SMALLER.get(command, []), program="fastload"
        )
        for line in re.findall(r"^next:? +(.*)", said, re.MULTILINE):
            assert line.startswith("fastload "), line
    for name in ("data-inspect.html", "answers.html", "shards/manifest.json", "runs/NAME/best.pt"):
        assert (tmp_path / name).is_file(), name


def test_an_extra_of_a_wheel_is_named_by_what_it_installs(installed: Path, tmp_path: Path):
    program = (
        "from fastload.installation import install_command as command;"
        "print(command('remote')); print(command('train'))"
    )
    remote, train = ask(installed, tmp_path, "-c", program).splitlines()
    assert remote.endswith(" -m pip install 'obstore>=0.11'")
    for package in ("matplotlib>=", "tensorboard>=", "safetensors>="):
        assert package in train


def test_the_release_says_which_packages_it_needs(tmp_path: Path):
    venv.create(tmp_path / "venv", symlinks=True)
    done = run_release("--dry-run", python=tmp_path / "venv" / "bin" / "python")
    assert done.returncode == 1
    assert re.fullmatch(
        r'scripts/release: needs some packages: \S+ -m pip install( "[a-z]+>=[\d.]+")+\n',
        done.stderr,
    )
    assert '"setuptools>=' in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["--nonsense"], "no such argument: --nonsense"), (["--out"], "--out needs a folder")],
)
def test_a_wrong_argument_of_the_release_is_one_sentence(words: list[str], sentence: str):
    done = run_release(*words)
    assert done.returncode == 1
    assert done.stderr.startswith(f"scripts/release: {sentence}")
    assert done.stderr.count("\n") == 1


def test_a_folder_that_is_no_checkout_is_one_sentence(tmp_path: Path):
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(ROOT / "scripts" / "release", tmp_path / "scripts")
    done = subprocess.run(
        [script, "--dry-run"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHON": sys.executable, "GIT_CEILING_DIRECTORIES": str(tmp_path)},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("scripts/release: a release is of what git tracks")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "dist").exists()
