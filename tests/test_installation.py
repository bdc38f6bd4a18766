"""Every advice installs this checkout, and the checkout installs so that it is what is imported."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

import fastload
from fastload import installation
from fastload.installation import (
    DISTRIBUTION,
    Origin,
    find_origin,
    install_command,
    recorded_checkout,
    reinstall_command,
)

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()

# The index's `fastload`, and ours by name: ours is not on the index, and anybody may put it there.
FROM_THE_INDEX = re.compile(
    r"pip3? install[^\n`]*[\s'\"=]fastload"  # whatever stands between
    r"|pip3? install(?:[\s'\"\\]+-\S+)*[\s'\"\\]+fastload"  # over several lines
    r"|(?<![\w/-])fastload\["
)


def texts() -> list[Path]:
    """The text files that git tracks; without git those of the project's folders."""
    try:
        listing = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        paths = [ROOT / name for name in listing.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        folders = ("fastload", "docs", "examples", "train", "tests", "benchmarks", "scripts")
        paths = [path for folder in folders for path in (ROOT / folder).rglob("*")]
        paths += ROOT.glob("*.*")
    kinds = {"", ".cfg", ".cpp", ".hpp", ".html", ".md", ".py", ".toml", ".txt", ".yaml", ".yml"}
    return [path for path in paths if path.suffix in kinds and path.is_file()]


def test_no_text_installs_the_strangers_package_of_the_index():
    paths = texts()
    assert {"README.md", "doctor.py", "setup", "dali.md"} <= {path.name for path in paths}
    named = {
        str(path.relative_to(ROOT)): match.group()
        for path in paths
        if (match := FROM_THE_INDEX.search(path.read_text(encoding="utf-8", errors="replace")))
    }
    assert named == {}


@pytest.mark.parametrize(
    "words",
    [
        "install 'fastload@'",
        "install -U 'fastload@'",
        "install --force-reinstall --no-deps fastload",
        'install --no-deps "\n            "fastload',
        f"install {DISTRIBUTION}",
    ],
)
def test_the_guard_knows_such_a_text(words: str):
    assert FROM_THE_INDEX.search("to mend it: pip " + words.replace("@", "[dali]"))
    assert not FROM_THE_INDEX.search("pip install -e '.[dali]'  `fastload` is imported")


def test_the_distribution_has_the_name_that_pyproject_gives_it():
    assert re.findall(r'^name = "(.*?)"', PYPROJECT, re.MULTILINE) == [DISTRIBUTION]
    extras = "completion,dali,docs,examples,export,parquet,ray,release,remote,train"
    assert f'"{DISTRIBUTION}[{extras}]"' in PYPROJECT
    assert DISTRIBUTION != installation.PACKAGE.name == "fastload"


def test_the_pythons_that_pyproject_names_are_those_that_the_readme_says_were_tried():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"^The tests run with Python .*(?:\n.+)*", readme, re.MULTILINE)
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)
    assert sorted({*re.findall(r"\b3\.\d+", said)}) == named
    assert f'requires-python = ">={named[0]}"' in PYPROJECT


def test_the_tests_run_from_a_checkout_and_are_told_to_install_it():
    assert find_origin() == Origin(ROOT.resolve(), editable=True)
    assert install_command("dali").endswith(" -m pip install -e '.[dali]'")
    assert reinstall_command().endswith(" -m pip install --force-reinstall --no-deps -e .")


@pytest.mark.parametrize("editable", [False, True])
def test_a_command_goes_to_the_checkout_and_keeps_the_kind_of_installation(editable: bool):
    origin = Origin(Path("/a b/fast load ü"), editable=editable)
    place, _, command = install_command("dali", origin).partition(" && ")
    assert shlex.split(place) == ["cd", "/a b/fast load ü"]
    what = ["-e", ".[dali]"] if editable else [".[dali]"]
    assert shlex.split(command)[1:] == ["-m", "pip", "install", *what]


def test_without_a_checkout_the_command_names_what_an_extra_installs():
    assert install_command("dali", Origin(None)).endswith(
        " -m pip install 'nvidia-dali-cuda120>=2.2'"
    )
    assert install_command("train", Origin(None)).endswith(
        " -m pip install 'matplotlib>=3.8' 'tensorboard>=2.15' 'safetensors>=0.4'"
    )
    assert reinstall_command(Origin(None)).startswith("in a checkout of fastload, ")


def test_the_python_that_runs_is_called_as_the_reader_would(monkeypatch: pytest.MonkeyPatch):
    origin = Origin(Path("/a b"), editable=True)

    def called() -> str:
        return install_command("dali", origin).removeprefix("cd '/a b' && ").partition(" -m ")[0]

    monkeypatch.setattr(sys, "executable", "/a b/.venv/bin/python")
    assert called() == ".venv/bin/python"
    monkeypatch.setattr(sys, "executable", "/else where/python")
    assert called() == "'/else where/python'"
    monkeypatch.setattr(sys, "executable", shutil.which("sh"))  # some program that is on the path
    assert called() == "sh"
    monkeypatch.setattr(sys, "executable", None)
    assert called() == "python"


def test_a_checkout_that_was_copied_by_pip_is_found_by_its_record(tmp_path: Path):
    checkout = tmp_path / "fast load ü"
    copied = {"dir_info": {}, "url": checkout.as_uri()}
    assert recorded_checkout(json.dumps(copied)) is None  # it was deleted since
    checkout.mkdir()
    shutil.copy(ROOT / "pyproject.toml", checkout)
    assert recorded_checkout(json.dumps(copied)) == checkout
    wheel = {"archive_info": {}, "url": (checkout / "fastload.whl").as_uri()}
    assert recorded_checkout(json.dumps(wheel)) is None
    remote = {"vcs_info": {}, "url": "https://example.org/fastload"}
    assert recorded_checkout(json.dumps(remote)) is None
    assert recorded_checkout("{}") is None


# The installation itself, without a compiler and offline, in a folder as unlike ours as can be.


def can_install() -> bool:
    """Whether this Python has pip, and setuptools as pyproject.toml asks for it."""
    if find_spec("pip") is None or find_spec("setuptools") is None:
        return False
    (least,) = re.findall(r'^requires = \["setuptools>=(\d+)"\]', PYPROJECT, re.MULTILINE)
    return int(metadata.version("setuptools").partition(".")[0]) >= int(least)


needs_pip = pytest.mark.skipif(
    not can_install(), reason="needs pip and setuptools>=77 in this Python; run scripts/setup"
)
OFFLINE = {
    "PIP_NO_INDEX": "1",
    "PIP_NO_DEPS": "1",
    "PIP_NO_BUILD_ISOLATION": "0",  # pip's spelling of "without isolation"
    "PIP_IGNORE_INSTALLED": "1",  # what lies in the shared folder is not to be removed
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "CUDA_VISIBLE_DEVICES": "",
}


class Clone:
    """A copy of the checkout, named fastload, with an environment that sees the packages of ours.

    It has no native core, which would take longer to build than all the rest.
    """

    def __init__(self, parent: Path) -> None:
        self.parent = parent
        self.folder = parent / "fastload"
        self.folder.mkdir(parents=True)
        for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, self.folder)
        left_out = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / "fastload", self.folder / "fastload", ignore=left_out)
        venv.create(self.folder / ".venv", symlinks=True)
        (self.packages,) = (self.folder / ".venv" / "lib").glob("python3*/site-packages")
        ours = [path for path in sys.path if Path(path).resolve() != ROOT.resolve()]
        (self.packages / "shared.pth").write_text("\n".join(filter(None, ours)) + "\n")

    def shell(self, command: str) -> str:
        """Run it beside the clone, as somebody does who has just cloned."""
        environment = {**os.environ, **OFFLINE}
        environment.pop("PYTHONPATH", None)  # it may name a checkout, before all that is installed
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.parent,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def installed(self) -> list[str]:
        """The distributions that its environment has for itself."""
        return sorted(path.name.partition("-")[0] for path in self.packages.glob("*.dist-info"))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    one = Clone(tmp_path_factory.mktemp("beside") / "some where ü")
    one.shell("fastload/.venv/bin/python -m pip install -e ./fastload")
    return one


@needs_pip
@pytest.mark.slow
def test_beside_a_clone_called_fastload_the_package_is_imported_and_not_the_clone(clone: Clone):
    program = "import fastload; print(fastload.__file__)"
    found = clone.shell(f"fastload/.venv/bin/python -c '{program}'")
    assert found == str(clone.folder / "fastload" / "__init__.py")
    usage = clone.shell("fastload/.venv/bin/python -m fastload.doctor --help")
    assert usage.startswith("usage: python -m fastload.doctor")


@needs_pip
@pytest.mark.slow
def test_the_installed_script_runs_and_names_itself(clone: Clone):
    assert (
        clone.shell("fastload/.venv/bin/fastload --version") == f"fastload {fastload.__version__}"
    )
    said = clone.shell("PATH=$PWD/fastload/.venv/bin:$PATH; fastload; fastload shard --help")
    assert re.search(r"^  fastload shard data/ ", said, re.MULTILINE)
    assert "usage: fastload shard [-h]" in said
    status = clone.shell("cd fastload; .venv/bin/fastload verify . 2>&1 || echo $?")
    assert status.startswith("fastload verify: .: ")
    assert status.endswith("\n1")


@needs_pip
@pytest.mark.slow
def test_who_follows_the_advice_has_this_package_and_no_other(clone: Clone):
    program = (
        "from fastload.installation import *; print(install_command('dali')); "
        "print(reinstall_command())"
    )
    folder = shlex.quote(str(clone.folder))
    for advice in clone.shell(f'fastload/.venv/bin/python -c "{program}"').splitlines():
        assert advice.startswith(f"cd {folder} && .venv/bin/python -m pip install ")
        clone.shell(advice)
        assert clone.installed() == [DISTRIBUTION.replace("-", "_")]
        record = next(clone.packages.glob("*.dist-info/direct_url.json")).read_text()
        assert json.loads(record) == {
            "dir_info": {"editable": True},
            "url": clone.folder.as_uri(),
        }


def test_the_package_says_its_version():
    pyproject = (Path(fastload.__file__).parents[1] / "pyproject.toml").read_text()
    assert f'\nversion = "{fastload.__version__}"\n' in pyproject
    assert "__version__" in dir(fastload)


def test_an_installed_copy_has_the_version_that_pip_knows(tmp_path):
    assert installation.version(tmp_path / "fastload") == metadata.version("fastload-images")
