"""Reads are checked: what comes back is what was stored, or an error that names the shard."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from fastload.errors import ShardError
from fastload.store.collection import Collection, open_collection
from fastload.store.holders import ShardFiles
from fastload.store.index import read_index, write_index
from fastload.store.places import PLACE
from fastload.store.reader import FileReader, Reader, Scratch, crc32s, merged_ranges
from tests.shards import (
    flat_picture,
    flip_bit,
    noisy_picture,
    numbered,
    write_shards,
    write_tar,
)


@pytest.fixture
def shards(tmp_path) -> Path:
    return numbered(tmp_path / "shards", {"train": 30})


def collection_of(path: Path, **places) -> Collection:
    """A collection of one file and one sample, made by hand."""
    index = np.zeros(1, PLACE)
    for name, value in {"size": 1, "height": 1, "width": 1, "orientation": 1, **places}.items():
        index[name] = value
    return Collection(
        index=index,
        files=ShardFiles((path,), (path.stat().st_size,)),
        points=(None,),
        sources=np.zeros(1, np.int64),
        classes=("a",),
        class_names=("a",),
        fingerprint="",
    )


def open_descriptors() -> int:
    """How many files this process has open; 0 where the system does not say."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def read(reader: Reader, rows: list[int]) -> tuple[list[bytes], dict[int, str]]:
    encoded, bad = reader.read(np.array(rows, np.int64), Scratch())
    return [bytes(encoded[i]) for i in range(len(encoded))], bad


def test_the_bytes_are_those_that_were_stored(shards):
    reader = FileReader(open_collection([shards], "train"))
    images, bad = read(reader, [29, 0, 13, 13])
    assert images == [flat_picture(number, 0).jpeg for number in (29, 0, 13, 13)]
    assert bad == {}
    reader.close()


def test_no_samples_are_no_error(shards):
    assert read(FileReader(open_collection([shards], "train")), []) == ([], {})


def test_more_shards_than_may_be_open_are_read_all_the_same(shards):
    reader = FileReader(open_collection([shards], "train"), max_open=1)
    before = open_descriptors()
    for row in list(range(30)) * 2:
        assert read(reader, [row])[0] == [flat_picture(row, 0).jpeg]
    assert open_descriptors() <= before + 1
    reader.close()
    assert open_descriptors() == before


def test_many_threads_share_a_reader_that_may_open_one_shard(shards):
    reader = FileReader(open_collection([shards], "train"), max_open=1)
    wrong = []

    def work(seed: int) -> None:
        random, scratch = np.random.default_rng(seed), Scratch()
        for _ in range(100):
            rows = random.integers(0, 30, 4)
            encoded, bad = reader.read(rows, scratch)
            images = [bytes(encoded[i]) for i in range(4)]
            if bad or images != [flat_picture(row, 0).jpeg for row in rows.tolist()]:
                wrong.append(rows)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


@pytest.mark.parametrize(("limit", "shards_open"), [(1024, 128), (256, 32), (64, 8), (7, 1)])
def test_most_descriptors_of_a_process_are_left_to_others(limit, shards_open):
    program = (
        "import resource; from fastload.store import reader;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}));"
        "print(reader._most_open())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert int(done.stdout) == shards_open


@pytest.fixture
def full_table(shards):
    """A limit of descriptors that this process has reached; the list lets one go for each `pop`."""
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_descriptors() + 40, former[1]))
    files = []
    with suppress(OSError):  # EMFILE
        while True:
            files.append((shards / "manifest.json").open())
    yield files
    for file in files:
        file.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, former)


def test_without_a_free_descriptor_a_shard_of_its_own_is_closed_for_the_next(shards, full_table):
    full_table.pop().close()
    full_table.pop().close()
    collection = open_collection([shards], "train")
    reader = FileReader(collection, max_open=128)
    for row in [0, 10, 20, 29, 1, 11]:
        assert read(reader, [row]) == ([flat_picture(row, 0).jpeg], {})
    assert reader._max_open == 2
    reader.close()


def test_without_any_descriptor_the_limit_is_named(shards, full_table):
    full_table.pop().close()
    reader = FileReader(open_collection([shards], "train"))
    full_table.append((shards / "manifest.json").open())
    with pytest.raises(
        ShardError, match=r"cannot be opened: .*may open no more files; raise `ulimit -n`"
    ):
        read(reader, [0])


@pytest.mark.slow
def test_hundreds_of_shards_are_loaded_with_64_descriptors(tmp_path):
    numbered(tmp_path / "s", {"train": 300, "val": 100}, samples_per_shard=1)
    program = """
import resource, sys
from fastload import Augment, Loader
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
options = {"augment": Augment.eval(32), "batch_size": 20, "num_threads": 4}
with Loader(sys.argv[1], **options) as train, Loader(sys.argv[1], split="val", **options) as val:
    print(sum(len(images) for images, _ in train), sum(len(images) for images, _ in val))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "s"], capture_output=True, text=True
    )
    assert done.stdout.split() == ["300", "100"], done.stderr


def test_a_flipped_bit_is_found_and_only_there(shards):
    collection = open_collection([shards], "train")
    flip_bit(collection.files.path(1), int(collection.index["offset"][14]) + 300)
    images, bad = read(FileReader(collection), [13, 14, 15])
    assert list(bad) == [1]
    assert "its CRC-32 is" in bad[1]
    assert images[0] == flat_picture(13, 0).jpeg


def test_a_missing_shard_is_named_at_once(shards):
    (shards / "train-000001.tar").unlink()
    with pytest.raises(ShardError, match=r"train-000001\.tar: is missing"):
        FileReader(open_collection([shards], "train"))


def test_a_shard_of_another_size_is_named_at_once(shards):
    with (shards / "train-000002.tar").open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(ShardError, match=r"train-000002\.tar: has \d+ bytes, the manifest says"):
        FileReader(open_collection([shards], "train"))


@pytest.mark.parametrize("opened", [False, True])
def test_a_shard_truncated_while_in_use_is_named(shards, opened):
    reader = FileReader(open_collection([shards], "train"))
    if opened:
        read(reader, [0])
    os.truncate(shards / "train-000000.tar", 700)
    with pytest.raises(ShardError, match=r"train-000000\.tar: was truncated while it was in use"):
        read(reader, [9])


def test_a_shard_deleted_while_in_use_is_named(shards):
    reader = FileReader(open_collection([shards], "train"))
    (shards / "train-000000.tar").unlink()
    with pytest.raises(ShardError, match=r"train-000000\.tar: cannot be opened.*no such file"):
        read(reader, [0])


def test_a_shard_that_is_open_when_it_is_deleted_is_read_on(shards):
    reader = FileReader(open_collection([shards], "train"))
    read(reader, [0])
    (shards / "train-000000.tar").unlink()
    assert read(reader, [5])[0] == [flat_picture(5, 0).jpeg]


def touch(path: Path) -> None:
    os.utime(path)


def copy_over(path: Path) -> None:
    """As a backup that is played back: the same bytes, another inode, another time."""
    other = path.with_suffix(".copy")
    shutil.copyfile(path, other)
    other.replace(path)


def link_elsewhere(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved").name)


def make_read_only(path: Path) -> None:
    path.chmod(0o444)


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("change", [touch, copy_over, link_elsewhere, make_read_only])
def test_a_shard_that_is_merely_touched_or_copied_is_read_on(shards, change, opened):
    reader = FileReader(open_collection([shards], "train"), max_open=1)
    if opened:
        read(reader, [0])
    change(shards / "train-000000.tar")
    rows = [0, 29, 9, 4]  # the second closes the shard: it is opened again
    assert read(reader, rows) == ([flat_picture(row, 0).jpeg for row in rows], {})


def test_a_shard_replaced_by_others_samples_of_the_same_size_is_named(shards):
    reader = FileReader(open_collection([shards], "train"))
    path, other = shards / "train-000000.tar", shards / "other.tar"
    other.write_bytes((shards / "train-000001.tar").read_bytes())
    assert other.stat().st_size == path.stat().st_size
    other.replace(path)
    with pytest.raises(
        ShardError,
        match=r"train-000000\.tar, sample 000010, offset 512: its CRC-32 is .*"
        r"the file was replaced or changed while it was in use",
    ):
        read(reader, [0])


def test_a_shard_that_grew_or_shrank_before_it_is_opened_is_named_with_both_sizes(shards):
    reader = FileReader(open_collection([shards], "train"))
    path = shards / "train-000000.tar"
    size = path.stat().st_size
    for other, what in ((size + 512, "was replaced or changed"), (size - 512, "was truncated")):
        os.truncate(path, other)
        sizes = f"it has {other} bytes, at the start it had {size}"
        with pytest.raises(ShardError, match=rf"{what} while it was in use: {sizes}"):
            read(reader, [0])


def test_a_pipe_in_the_place_of_a_shard_is_not_waited_for(shards):
    reader = FileReader(open_collection([shards], "train"))
    (shards / "train-000000.tar").unlink()
    os.mkfifo(shards / "train-000000.tar")
    with pytest.raises(ShardError, match=r"cannot be opened: .*is a pipe, expected a regular file"):
        read(reader, [0])
    assert reader.locate(0).key == "?"
    with pytest.raises(ShardError, match=r"train-000000\.tar: cannot be used: .*is a pipe"):
        FileReader(open_collection([shards], "train"))


@pytest.mark.parametrize("field", ["height", "width"])
def test_an_index_that_lies_about_pixels_makes_a_bad_sample(shards, field):
    samples = read_index(shards, "train")
    samples[field][4] //= 2
    write_index(shards, "train", samples)
    _, bad = read(FileReader(open_collection([shards], "train")), [3, 4, 5])
    assert list(bad) == [1]
    assert bad[1].startswith("is 48 x 64 pixels, the index says ")


def test_a_shard_overwritten_in_place_is_named(shards):
    reader = FileReader(open_collection([shards], "train"))
    read(reader, [0])
    write_tar(shards / "train-000000.tar", [(n, flat_picture(n + 100, 0)) for n in range(10)])
    with pytest.raises(ShardError, match=r"was replaced or changed|was truncated"):
        read(reader, list(range(10)))


def test_a_shard_that_is_a_directory_is_named(tmp_path):
    path = tmp_path / "folder.tar"
    path.mkdir()
    with pytest.raises(ShardError, match=r"folder\.tar: is a folder, expected a regular file"):
        FileReader(collection_of(path))


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc/self/mem")
def test_a_read_that_the_device_refuses_is_an_error_that_names_the_sample(tmp_path):
    path = tmp_path / "mem.tar"
    path.symlink_to("/proc/self/mem")  # reading its first page is EIO, as from a bad sector
    with pytest.raises(
        ShardError,
        match=r"mem\.tar, sample \?, offset 512: cannot be read: Input/output error; the storage",
    ):
        read(FileReader(collection_of(path, offset=512)), [0])


def test_a_read_that_fails_once_is_tried_again_with_a_file_opened_anew(shards, tmp_path):
    reader = FileReader(open_collection([shards], "train"))
    read(reader, [0])
    folder = os.open(tmp_path, os.O_RDONLY)
    os.dup2(folder, reader._open_files[0].descriptor)  # which gives EISDIR, as a server ESTALE
    os.close(folder)
    assert read(reader, [5]) == ([flat_picture(5, 0).jpeg], {})


def test_a_shard_that_is_lost_as_its_damage_is_looked_into_is_named(shards, monkeypatch):
    """`fstat` is patched: no local file system loses the handle of a file as a server does."""
    collection = open_collection([shards], "train")
    collection.index["crc32"][5] ^= 1
    reader = FileReader(collection)
    read(reader, [0])
    stale, fstat = reader._open_files[0].descriptor, os.fstat

    def lost(descriptor: int) -> os.stat_result:
        if descriptor == stale:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return fstat(descriptor)

    monkeypatch.setattr(os, "fstat", lost)
    with pytest.raises(
        ShardError, match=r"sample 000005, .* its CRC-32 is .* cannot be used: the network"
    ):
        reader.read(np.array([5]), Scratch())


def test_the_key_and_place_of_a_sample_are_told(shards):
    collection = open_collection([shards], "train")
    shard, key, offset = FileReader(collection).locate(23)
    assert (shard, key) == ("train-000002.tar", "000023")
    assert offset == collection.index["offset"][23]


@pytest.fixture
def advised(monkeypatch) -> list[tuple[int, int, int]]:
    """Inode, begin and end of each range that the kernel is asked for; it is asked all the same."""
    asked: list[tuple[int, int, int]] = []
    advise = os.posix_fadvise

    def noted(descriptor: int, start: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        asked.append((os.fstat(descriptor).st_ino, start, start + length))
        advise(descriptor, start, length, advice)

    monkeypatch.setattr(os, "posix_fadvise", noted)
    return asked


def covered(asked: list[tuple[int, int, int]], directory: Path, rows: list[int]) -> bool:
    """Whether the ranges hold every byte of the samples."""
    collection = open_collection([directory], "train")
    bytes_of: dict[int, set[int]] = {}
    for inode, begin, end in asked:
        bytes_of.setdefault(inode, set()).update(range(begin, end))
    return all(
        set(range(int(record["offset"]), int(record["offset"]) + int(record["size"])))
        <= bytes_of.get(collection.files.path(record["file"]).stat().st_ino, set())
        for record in collection.index[rows]
    )


@pytest.mark.parametrize("rows", [list(range(30)), [3, 3, 29, 0], [17]])
def test_whatever_rows_are_read_ahead_the_kernel_is_asked_for_their_bytes(shards, advised, rows):
    reader = FileReader(open_collection([shards], "train"))
    reader.read_ahead(np.array(rows))
    assert covered(advised, shards, rows)
    if len(rows) < 30:
        assert not covered(advised, shards, list(range(30)))
    reader.close()


def test_no_rows_ask_the_kernel_for_nothing(shards, advised):
    FileReader(open_collection([shards], "train")).read_ahead(np.zeros(0, np.int64))
    assert advised == []


def test_a_shard_that_is_gone_does_not_keep_the_others_from_being_read_ahead(shards, advised):
    reader = FileReader(open_collection([shards], "train"))
    missing = shards / "train-000001.tar"
    inode = missing.stat().st_ino
    missing.rename(shards / "elsewhere")
    reader.read_ahead(np.arange(30))
    assert inode not in {asked for asked, _, _ in advised}
    (shards / "elsewhere").rename(missing)
    assert covered(advised, shards, [*range(10), *range(20, 30)])


def test_neighbours_are_read_ahead_in_one_run():
    shards = np.array([0, 0, 0, 1, 1, 0, 0])
    begins = np.array([0, 100, 90_000, 90_100, 95_000, 500, 100])
    ends = begins + 50
    assert merged_ranges(shards, begins, ends) == [
        (0, 0, 150),
        (0, 90_000, 90_050),
        (1, 90_100, 95_050),
        (0, 500, 550),
        (0, 100, 150),
    ]
    assert merged_ranges(shards[:0], begins[:0], ends[:0]) == []


@pytest.mark.skipif(shutil.which("fincore") is None, reason="needs fincore, of util-linux")
def test_what_is_read_ahead_is_in_the_page_cache(tmp_path):
    pictures = [noisy_picture(number, 0, height=600, width=900, quality=98) for number in range(4)]
    directory = write_shards(tmp_path / "s", {"train": pictures}, classes=["a"])
    path = directory / "train-000000.tar"

    def resident() -> int:
        command = ["fincore", "--bytes", "--noheadings", "--output", "RES", str(path)]
        return int(subprocess.run(command, capture_output=True, check=True).stdout)

    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if resident() > 0:
        pytest.skip("needs a file system that forgets pages when it is asked to")
    reader = FileReader(open_collection([directory], "train"))
    reader.read_ahead(np.arange(4))
    deadline = time.monotonic() + 120
    while resident() < 0.98 * path.stat().st_size:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    reader.close()


def test_crcs_are_zlibs(shards):
    collection = open_collection([shards], "train")
    encoded, _ = FileReader(collection).read(np.arange(30), Scratch())
    assert crc32s(encoded).tolist() == collection.index["crc32"].tolist()
