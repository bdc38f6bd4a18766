"""Damages a shard directory in every way we know, and sees what Loader and the commands make of it.

    python -m tests.store.mutations DIRECTORY SCRATCH

Each mutation is tried on a copy, in this one process, whose memory is limited. Prints one line for
each mutation with which something else happens than: the right samples, or a `FastloadError` in one
line. The last line says how many were tried.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import random
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastload import Augment, Loader, TarDataset, inspect, verify
from fastload.errors import FastloadError
from fastload.store.index import SAMPLE
from fastload.world import World

MEMORY = 768 << 20  # bytes above what the process has when it begins
MANIFEST, INDEX, TAR = "manifest.json", "train.index.npy", "train-000001.tar"

ODD_VALUES: list[Any] = [
    *(None, True, False, -1, 0, 1, 7, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30, 10**4000),
    *(
        1.5,
        1.0,
        float("inf"),
        float("nan"),
        "",
        "1",
        ".",
        "..",
        "../s/val-000000.tar",
        "/etc/passwd",
    ),
    *(
        "a\0b",
        "a/b",
        "a\nb",
        "\ud800",
        "x" * 5000,
        "val-000000.tar",
        MANIFEST,
        [],
        {},
        [1],
        {"a": 1},
    ),
]
ODD_NUMBERS = [0, 1, 2, 511, 512, 513, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 50]
ODD_FIELDS = [
    b"",
    b"\x80" + b"\0" * 11,
    b"\xff" * 12,
    b"-0000000001",
    b"99999999999",
    b"7777777777",
]
ODD_TYPES = b"LKxgSDMV1234567\0\xff"


def manifest_mutations(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Each value of the manifest is odd, missing, or there twice; the text is odd."""
    facts = json.loads(data)
    for path in _paths(facts):
        for value in ODD_VALUES:
            yield f"{path} = {str(value)[:30]!a}", json.dumps(_with(facts, path, value)).encode()
        yield f"{path} is missing", json.dumps(_with(facts, path, None, remove=True)).encode()
    text = data.decode()
    yield "a byte order mark", b"\xef\xbb\xbf" + data
    yield "UTF-16", text.encode("utf-16")
    yield "Latin-1", text.replace("class 0", "cläss 0").encode("latin-1")
    yield "a key twice", text.replace('"splits"', '"splits": {}, "splits"').encode()
    yield "deep", b'{"a":' * 100_000
    yield (
        "deep options",
        text.replace('"options": {}', '"options": ' + "[" * 5000 + "]" * 5000).encode(),
    )
    yield "5,000 digits", text.replace('"samples": 3', '"samples": ' + "1" * 5000).encode()
    yield "two values", data + b"{}"
    for version in (0, 2, 99, "1", 1.0, True, None, [1], 2**80):
        yield f"version {version}", json.dumps(facts | {"format_version": version}).encode()


def index_mutations(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Each field of the first, middle and last row is odd; rows and headers are odd."""
    begin = 10 + int.from_bytes(data[8:10], "little")
    header, rows = data[:begin], np.frombuffer(data[begin:], SAMPLE)
    for name in SAMPLE.names or ():
        for row in (0, len(rows) // 2, len(rows) - 1):
            for number in ODD_NUMBERS:
                changed = rows.copy()
                kind = changed[name].dtype
                changed[name][row : row + 1] = np.array([number], np.uint64).astype(kind)
                yield f"{name}[{row}] = {number}", header + changed.tobytes()
    for name, changed in (
        ("rows in another order", rows[::-1]),
        ("a row twice", rows[[0, *range(len(rows) - 1)]]),
        ("a row too many", rows[[*range(len(rows)), 0]]),
        ("a row missing", rows[1:]),
        ("two rows exchanged", rows[[1, 0, *range(2, len(rows))]]),
    ):
        yield name, header + changed.tobytes()
        yield f"{name}, the header says so", _npy(changed)
    yield from _header_mutations(data, begin, rows)


def _header_mutations(data: bytes, begin: int, rows: np.ndarray) -> Iterator[tuple[str, bytes]]:
    text = data[10:begin]
    for what, old, new in (
        ("25 TB", b"(6,)", b"(1000000000000,)"),
        ("negative", b"(6,)", b"(-6,)"),
        ("no dimension", b"(6,)", b"()"),
        ("two dimensions", b"(6,)", b"(6, 1)"),
        ("overflow", b"(6,)", b"(18446744073709551617,)"),
        ("a bool", b"(6,)", b"(True,)"),
        ("columns first", b"False", b"True"),
        ("Python 2", b"(6,)", b"(6L,)"),
        ("code", b"False", b"__import__('os').abort()"),
        ("objects", b"'<u8'", b"'|O'"),
        ("huge items", b"'<u8'", b"'<U999999999'"),
        ("big-endian", b"'<u8'", b"'>u8'"),
        ("other columns", b"'label'", b"'lapel'"),
        ("deep", b"False", b"(" * 300 + b")" * 300),
    ):
        changed = text.replace(old, new)
        yield what, data[:8] + len(changed).to_bytes(2, "little") + changed + data[begin:]
    for version in (b"\x00\x00", b"\x02\x00", b"\x03\x00", b"\x09\x01"):
        yield f"version {version!r}", data[:6] + version + data[8:]
    for length in (0, 1, 0xFFFF):
        yield f"a header of {length}", data[:8] + length.to_bytes(2, "little") + data[10:]
    for name, array in (
        ("floats", np.zeros(6)),
        ("pickled", np.array([{"a": 1}] * 6, object)),
        ("columns", np.zeros((6, 7), np.int64)),
        ("columns of 4 kB", np.zeros(6, [("a", "V4096")])),
    ):
        yield name, _npy(array)
    zipped = io.BytesIO()
    np.savez(zipped, rows)
    yield "npz", zipped.getvalue()


def tar_mutations(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Each field of two headers is odd, with its checksum and without; members are odd."""
    fields = {"name": (0, 100), "mode": (100, 8), "size": (124, 12), "time": (136, 12)}
    fields |= {"checksum": (148, 8), "link": (157, 100), "magic": (257, 8), "prefix": (345, 155)}
    for member, at in (("jpg", 0), ("cls", data.index(b".cls\0") // 512 * 512)):
        for name, (begin, length) in fields.items():
            for value in (*ODD_FIELDS, b"../../etc/passwd", b"\xfe\xff", b"x" * 200):
                field = value[:length].ljust(length, b"\0")
                block = data[at : at + begin] + field + data[at + begin + length : at + 512]
                for checked in (block, _checked(block)):
                    yield f"{member} {name} {value[:12]!r}", data[:at] + checked + data[at + 512 :]
        for kind in ODD_TYPES:
            block = data[at : at + 156] + bytes([kind]) + data[at + 157 : at + 512]
            yield f"{member} type {kind}", data[:at] + _checked(block) + data[at + 512 :]
    yield "compressed", gzip.compress(data)
    yield (
        "compressed, of the same size",
        gzip.compress(data, 0)[: len(data)].ljust(len(data), b"\0"),
    )
    yield "zeros in the middle", data[:512] + bytes(1024) + data[1536:]
    yield "zeros put in between", data[:2048] + bytes(1024) + data[2048:-1024]
    yield "members moved", data[2048:4096] + data[:2048] + data[4096:]


def byte_mutations(data: bytes, *, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Random bytes are others; the file is cut, longer, empty, or zeros."""
    chance = random.Random(seed)
    for number in range(count):
        changed = bytearray(data)
        for _ in range(chance.choice((1, 1, 1, 2, 8))):
            changed[chance.randrange(len(data))] ^= chance.randrange(1, 256)
        yield f"random {number}", bytes(changed)
    for length in (0, 1, 9, 10, 100, len(data) // 2, len(data) - 1):
        yield f"cut to {length}", data[:length]
        yield f"zeros from {length}", data[:length].ljust(len(data), b"\0")
    yield "longer", data + b"\0" * 512
    yield "twice", data * 2


def _paths(facts: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    keys = facts.keys() if isinstance(facts, dict) else range(len(facts))
    for key in keys:
        yield (*path, key)
        if isinstance(facts[key], dict | list):
            yield from _paths(facts[key], (*path, key))


def _with(facts: Any, path: tuple[str | int, ...], value: Any, *, remove: bool = False) -> Any:
    changed = json.loads(json.dumps(facts))
    place = changed
    for key in path[:-1]:
        place = place[key]
    if remove:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return changed


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _checked(block: bytes) -> bytes:
    block = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def loaded(directory: Path) -> list[Any]:
    """Classes, images and labels as the loader gives them; raises where one sample is bad."""
    options: dict[str, Any] = {"order": "index", "num_threads": 1, "world": World()}
    with Loader(directory, batch_size=4, augment=Augment.eval(32), **options) as loader:
        batches = [(images.clone(), labels.clone()) for images, labels in loader]
        images, labels = (torch.cat(parts).tolist() for parts in zip(*batches, strict=True))
        return [loader.classes, images, labels]


def mapped(directory: Path) -> list[Any]:
    """The same of TarDataset."""
    dataset = TarDataset(directory, output="tensor")
    samples = [
        (pixels.tolist(), label) for pixels, label in (dataset[i] for i in range(len(dataset)))
    ]
    return [dataset.classes, samples]


def said(command: Callable[[list[str]], int], *arguments: str) -> tuple[int, str]:
    """Exit status and standard error of a command."""
    error = io.StringIO()
    with redirect_stderr(error), redirect_stdout(io.StringIO()):
        return command(list(arguments)), error.getvalue()


def attempt(work: Callable[..., Any], *arguments: Any) -> tuple[Any, BaseException | None]:
    """What comes of it, and the error if there is one."""
    try:
        return work(*arguments), None
    except BaseException as error:  # noqa: BLE001  whatever it is, it is what is looked for
        return None, error


class Judge:
    """Knows what is right, and what is wrong with a mutated directory."""

    def __init__(self, directory: Path, scratch: Path) -> None:
        self.page = scratch / "page.html"
        self.right = {reader: reader(directory) for reader in (loaded, mapped)}

    def fault(self, directory: Path, *, tar_changed: bool) -> str:
        """What is wrong; "" if nothing is."""
        refused = False
        for reader, right in self.right.items():
            found, error = attempt(reader, directory)
            if error is None and found != right:
                return f"{reader.__name__} gives other samples"
            if error and not isinstance(error, FastloadError):
                return f"{reader.__name__} raises {error!r:.300}"
            if error and not (0 < len(str(error)) < 600 and str(error).isprintable()):
                return f"{reader.__name__} says {str(error)!r:.900}"
            refused |= error is not None
        for command, arguments in (
            (verify.main, (str(directory),)),
            (inspect.main, (str(directory), "--size=16", f"--out={self.page}")),
        ):
            name = command.__module__
            ended, error = attempt(said, command, *arguments)
            if error:
                return f"{name} raises {error!r:.300}"
            status, words = ended
            if status not in (0, 1) or "Traceback" in words or (status == 1) != bool(words):
                return f"{name} ends with {status}, says {words[:300]!r}"
            if command is verify.main and status == 0 and (refused or tar_changed):
                return "verify passes it"
        return ""


def main(directory: Path, scratch: Path) -> int:
    """Try all; returns the exit status."""
    logging.disable()  # what a loader says of each bad sample
    judge = Judge(directory, scratch)
    facts = Path("/proc/self/statm")
    if facts.exists():
        limit = int(facts.read_text().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    tried = faults = 0
    for number, (name, mutations) in enumerate(
        ((MANIFEST, manifest_mutations), (INDEX, index_mutations), (TAR, tar_mutations))
    ):
        copy = scratch / f"copy-{number}"
        shutil.copytree(directory, copy)
        data = (copy / name).read_bytes()
        for mutate in (mutations(data), byte_mutations(data, count=150, seed=number)):
            for what, changed in mutate:
                (copy / name).write_bytes(changed)
                fault = judge.fault(copy, tar_changed=name == TAR and changed != data)
                tried += 1
                if fault:
                    faults += 1
                    print(f"{name}: {what}: {fault}", flush=True)
    print(f"{tried} tried, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
