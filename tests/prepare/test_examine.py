"""One file, read once: the JPEG that is stored and its facts, or the reason to set it aside."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

from fastload.errors import FastloadError, LayoutError
from fastload.pixels import native
from fastload.prepare.examine import (
    CHUNK,
    MOST_IN_A_ROW,
    chunks_of,
    examine_file,
    examine_files,
)
from fastload.prepare.reasons import Reason, Rules
from fastload.prepare.source import File
from fastload.prepare.transcode import MAX_FILE_BYTES
from fastload.prepare.verdict import Dropped, Kept, Verdict
from tests.pictures import encoded, jpeg, write_tree

SMALL = Rules(min_side=16)


def file(path: str, size: int = 1) -> File:
    return File(path, "train", 0, size, 0)


def examined(root: Path, path: str, rules: Rules = SMALL) -> Verdict:
    """What becomes of a file that is there."""
    size = (root / path).stat().st_size
    return examine_file(file(path, size), root=root, rules=rules, with_jpeg=False)[0]


def test_a_file_is_read_once_and_its_facts_are_those_of_its_stored_bytes(tmp_path: Path):
    data = jpeg(1)
    (tmp_path / "1.jpg").write_bytes(data)
    listed = file("1.jpg", len(data))
    kept, stored = examine_file(listed, root=tmp_path, rules=SMALL, with_jpeg=True)
    assert isinstance(kept, Kept)
    assert kept.size == len(stored)
    assert kept.crc32 == zlib.crc32(stored)
    assert kept.digest == hashlib.blake2b(stored, digest_size=16).hexdigest()
    without = examine_file(listed, root=tmp_path, rules=SMALL, with_jpeg=False)
    assert without == (kept, b"")


def test_the_same_picture_with_other_metadata_is_the_same(tmp_path: Path):
    write_tree(tmp_path, {"a.jpg": jpeg(1), "b.jpg": jpeg(1, comment=b"mine")})
    digests = set()
    for name in ("a.jpg", "b.jpg"):
        kept = examined(tmp_path, name)
        assert isinstance(kept, Kept)
        digests.add(kept.digest)
    assert len(digests) == 1


def test_a_pipe_put_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "x.jpg")
    verdict, _ = examine_file(file("x.jpg"), root=tmp_path, rules=SMALL, with_jpeg=False)
    assert verdict == Dropped(Reason.UNREADABLE, "cannot be read: is no regular file")


def test_a_file_that_vanishes_ends_the_run(tmp_path: Path):
    with pytest.raises(LayoutError, match=r"gone.jpg has vanished; run again"):
        examine_file(file("gone.jpg"), root=tmp_path, rules=SMALL, with_jpeg=False)


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path):
    big = file("big.jpg", size=MAX_FILE_BYTES + 1)  # it is not even there
    verdict, _ = examine_file(big, root=tmp_path, rules=SMALL, with_jpeg=False)
    assert isinstance(verdict, Dropped)
    assert verdict.reason is Reason.LARGE


def test_an_unreadable_file_is_set_aside(tmp_path: Path):
    """Root may read everything, so the file is examined as nobody."""
    write_tree(tmp_path, {"x.jpg": jpeg(1)})
    (tmp_path / "x.jpg").chmod(0)
    program = (
        "from fastload.prepare.examine import examine_file\n"
        "from fastload.prepare.source import File\n"
        "if os.geteuid() == 0:\n    os.setuid(65534)\n"
        "file = File('x.jpg', 'train', 0, 1, 0)\n"
        "verdict, _ = examine_file(file, root=root, rules=Rules(), with_jpeg=False)\n"
        "print(verdict.reason.slug, verdict.detail)\n"
    )
    assert in_a_child(program, tmp_path) == ["unreadable cannot be read: Permission denied"]


def test_a_file_that_changes_ends_the_run(tmp_path: Path):
    write_tree(tmp_path, {"x.jpg": jpeg(1)})
    with pytest.raises(LayoutError, match=r"x.jpg had 1 bytes and has [\d,]+; run again when"):
        examine_file(file("x.jpg"), root=tmp_path, rules=SMALL, with_jpeg=False)


EXAMINE = """
from fastload.prepare.examine import examine_files
from fastload.prepare.source import File
files = [File(name, "train", 0, {size} or (root / name).stat().st_size, 0) for name in {names}]
try:
    for file, verdict, _ in examine_files(
        files, root=root, rules=Rules(min_side=16), workers=2, with_jpeg=False
    ):
        print("kept" if isinstance(verdict, Kept) else verdict.reason.slug + ": " + verdict.detail)
except FastloadError as error:
    print(error)
"""


def in_a_child(program: str, root: Path, *, before: str = "", site: str = "") -> list[str]:
    """Lines that a program prints in another process, whose limits `before` may lower.

    Args:
        program: May use `root`, `Rules`, `Kept` and `FastloadError`.
        root: The folder of images.
        before: Runs first.
        site: A `sitecustomize` of that process and of its workers.
    """
    (root / "site").mkdir()
    (root / "site" / "sitecustomize.py").write_text(site)
    begin = (
        "import os, resource\n"
        "from pathlib import Path\n"
        "from fastload.errors import FastloadError\n"
        "from fastload.prepare.reasons import Rules\n"
        "from fastload.prepare.verdict import Kept\n"
        "import fastload.prepare.examine\n"
        f"root = Path({str(root)!r})\n"
    )
    paths = [str(root / "site"), str(Path(__file__).parents[2])]
    for folder in (root, *root.parents[:2]):
        folder.chmod(0o755)  # pytest's are its user's alone
    done = subprocess.run(
        [sys.executable, "-c", f"{begin}{before}\n{program}"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# The error of an open that no file system here can be made to give: the one thing that is patched.
FAILING = """
import os
def failing(path, *arguments, real=os.open, **options):
    if str(path).endswith({names}):
        raise OSError({number}, os.strerror({number}), str(path))
    return real(path, *arguments, **options)
os.open = failing
"""


@pytest.mark.parametrize("number", [errno.EIO, errno.EUCLEAN])
def test_a_file_on_a_bad_block_is_set_aside_and_the_others_are_not(tmp_path: Path, number: int):
    names = ["0.jpg", "1.jpg", "2.jpg"]
    write_tree(tmp_path, {name: jpeg(1) for name in names})
    site = FAILING.format(names=("1.jpg",), number=number)
    verdicts = in_a_child(EXAMINE.format(names=names, size=0), tmp_path, site=site)
    assert verdicts == ["kept", f"unreadable: cannot be read: {os.strerror(number)}", "kept"]


def test_a_disk_that_fails_ends_the_run(tmp_path: Path):
    names = [f"{number}.jpg" for number in range(20)]
    write_tree(tmp_path, dict.fromkeys(names, jpeg(1)))
    site = FAILING.format(names=(".jpg",), number=errno.EIO)
    *verdicts, last = in_a_child(EXAMINE.format(names=names, size=0), tmp_path, site=site)
    assert len(verdicts) == MOST_IN_A_ROW - 1
    assert last.startswith("8 of 8 files failed, at last ")
    assert "7.jpg (cannot be read: Input/output error): this is no fault of the pictures" in last


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.ENODEV])
def test_a_storage_that_is_away_ends_the_run_at_once(tmp_path: Path, number: int):
    write_tree(tmp_path, {"0.jpg": jpeg(1), "1.jpg": jpeg(2)})
    site = FAILING.format(names=("1.jpg",), number=number)
    names = ["0.jpg", "1.jpg"]
    *_, last = in_a_child(EXAMINE.format(names=names, size=0), tmp_path, site=site)
    assert last == (
        f"{tmp_path}/1.jpg cannot be read: {os.strerror(number)}; the storage is away, so run the "
        "same command again when it is back"
    )


def test_an_error_that_passes_is_waited_for(tmp_path: Path):
    write_tree(tmp_path, {"0.jpg": jpeg(1)})
    marker = tmp_path / "marker"
    site = (
        FAILING.format(names=("0.jpg",), number=errno.EMFILE)
        .replace("    if ", f"    if not os.path.exists({str(marker)!r}) and ")
        .replace("        raise", f"        open({str(marker)!r}, 'x').close()\n        raise")
    )
    verdicts = in_a_child(EXAMINE.format(names=["0.jpg"], size=0), tmp_path, site=site)
    assert verdicts == ["kept"]
    assert marker.exists()


@pytest.mark.parametrize(("kind", "core"), [("JPEG", "0"), ("JPEG", "1"), ("PNG", "0")])
def test_a_picture_too_large_for_the_memory_is_not_called_corrupt(
    tmp_path: Path, kind: str, core: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FASTLOAD_NATIVE", core)
    large = Image.new("RGB", (12_000, 12_000), (90, 120, 60))  # 432 MB of pixels
    names = ["0.jpg", f"1.{'jpg' if kind == 'JPEG' else 'png'}", "2.jpg"]
    options = {"progressive": True} if kind == "JPEG" else {}  # the core needs all coefficients
    data = encoded(large, kind, **options)
    write_tree(tmp_path, {"0.jpg": jpeg(1), "2.jpg": jpeg(2), names[1]: data})
    limit = "resource.setrlimit(resource.RLIMIT_AS, (400 << 20,) * 2)"
    verdicts = in_a_child(EXAMINE.format(names=names, size=0), tmp_path, before=limit)
    assert verdicts == ["kept", "memory: needs more memory than there is", "kept"]


def test_chunks_are_bounded_in_files_and_bytes():
    files = [file(str(n), size=1000) for n in range(40)]
    assert [len(chunk) for chunk in chunks_of(files, CHUNK)] == [16, 16, 8]
    large = [file(str(n), size=CHUNK.bytes // 2 + 1) for n in range(3)]
    assert [len(chunk) for chunk in chunks_of(large, CHUNK)] == [1, 1, 1]


def test_a_worker_without_the_core_does_not_store_other_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if not native.is_available():
        pytest.skip(f"needs the native core: {native.why_unavailable()}; run scripts/setup")
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    monkeypatch.setenv("FASTLOAD_NATIVE", "0")  # the workers alone see it, as too little memory
    files = [file("a.jpg", len(jpeg(0)))]
    with pytest.raises(FastloadError, match=r"does not load in every process \(FASTLOAD_NATIVE=0"):
        list(examine_files(files, root=tmp_path, rules=SMALL, workers=1, with_jpeg=True))
