"""Where the running fastload comes from, and the command that installs more of it.

The distribution is not called as the package is: the package index's `fastload` is another project,
a download tool. fastload is not on that index, so a command that this module makes installs a
folder, the checkout, or, where fastload came as a wheel, what an extra of it names; pip looks up
nothing there but what fastload needs.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

DISTRIBUTION = "fastload-images"
"""The name in pyproject.toml, under which pip and `importlib.metadata` know fastload."""

PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Origin:
    """What was installed.

    Attributes:
        checkout: The folder that it was installed from; None where no checkout is found, as with a
            wheel.
        editable: Whether Python runs the files of that folder, not a copy of them.
    """

    checkout: Path | None
    editable: bool = False


def version(package: Path = PACKAGE) -> str:
    """The version of the package in the folder `package`, "unknown" where nothing says it."""
    if _is_checkout(package.parent):  # which may not be what is installed
        text = (package.parent / "pyproject.toml").read_text(encoding="utf-8")
        said = re.search(r'^version = "(.+)"$', text, re.MULTILINE)
        return said[1] if said else "unknown"
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"


def find_origin(package: Path = PACKAGE) -> Origin:
    """Where the package in the folder `package` comes from."""
    if _is_checkout(package.parent):
        return Origin(package.parent, editable=True)
    try:
        recorded = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        recorded = None
    return Origin(recorded_checkout(recorded or "{}"))


def recorded_checkout(direct_url: str) -> Path | None:
    """The checkout that pip installed from, if it is still there.

    Args:
        direct_url: The text of direct_url.json, which pip writes beside the metadata (PEP 610).
    """
    record = json.loads(direct_url)
    url = urlsplit(record.get("url", ""))
    if "dir_info" not in record or url.scheme != "file":
        return None
    folder = Path(unquote(url.path))
    return folder if _is_checkout(folder) else None


def install_command(extra: str, origin: Origin | None = None) -> str:
    """The shell command that installs what the extra of pyproject.toml names.

    An editable installation stays editable, and it goes into the Python that runs.
    """
    origin = origin or find_origin()
    if origin.checkout is None and (packages := _packages_of(extra)):
        return f"{shlex.quote(python_name())} -m pip install {shlex.join(packages)}"
    return _command([], f".[{extra}]", origin)


def _packages_of(extra: str) -> list[str]:
    """What an extra of the distribution that is installed names, as pip takes it."""
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for line in required:
        package, _, marker = line.partition(";")
        if not re.search(rf"""extra == ['"]{re.escape(extra)}['"]""", marker):
            continue
        inner = re.fullmatch(rf"{DISTRIBUTION}\[(.+)\]", package.strip())
        found += (
            [one for part in inner[1].split(",") for one in _packages_of(part.strip())]
            if inner
            else [package.strip()]
        )
    return found


def reinstall_command(origin: Origin | None = None) -> str:
    """The shell command that builds the native core anew and leaves all other packages alone."""
    return _command(["--force-reinstall", "--no-deps"], ".", origin or find_origin())


def _command(options: list[str], what: str, origin: Origin) -> str:
    words = ["-m", "pip", "install", *options, *["-e"] * origin.editable, what]
    command = f"{shlex.quote(python_name(origin.checkout))} {shlex.join(words)}"
    if origin.checkout is None:
        return f"in a checkout of fastload, {command}"
    return f"cd {shlex.quote(str(origin.checkout))} && {command}"


def python_name(folder: Path | None = None) -> str:
    """The Python that runs, as a shell in that folder finds it; the current folder for None."""
    return name_in_shell(Path(sys.executable), folder) if sys.executable else "python"


def name_in_shell(program: Path, folder: Path | None = None) -> str:
    """What a shell in that folder calls the program; the current folder for None."""
    folder = Path.cwd() if folder is None else folder
    if shutil.which(program.name) == str(program):
        return program.name
    if program.is_relative_to(folder):
        return str(program.relative_to(folder))
    return str(program)


def _is_checkout(folder: Path) -> bool:
    facts = folder / "pyproject.toml"
    return facts.is_file() and f'name = "{DISTRIBUTION}"' in facts.read_text(encoding="utf-8")
