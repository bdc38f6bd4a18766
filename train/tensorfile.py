"""Files of tensors that survive a crash, a kill and a full disk, and show a flipped bit.

At each moment the name of a file leads to complete content: the new content or the former.
Reading unpickles tensors and plain values only, so a file cannot run code.

torch.save writes a zip archive. Our files have a checksum of all their bytes as the comment of the
archive: `torch.load` reads them as any other file.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import stat
import struct
import warnings
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO

import torch

from fastload.errors import FastloadError, OutputError
from fastload.files import READ_BYTES, explain_os_error, replacing

FORMAT = "fastload 2"  # before it was 1, without a checksum

# The last field of a zip archive is its comment, behind the length of the comment in two bytes.
_END_BYTES = 22  # of the last structure, without a comment
_NO_COMMENT = struct.pack("<H", 0)
_COMMENT = "fastload crc32 {:08x}"
_ENDING = re.compile(rb"\x17\x00fastload crc32 ([0-9a-f]{8})")
_ENDING_BYTES = len(_NO_COMMENT) + len(_COMMENT.format(0))

# How torch's unpickler names a class that it does not take, and one that it does not fill.
_CLASS = re.compile(r"GLOBAL ([\w.]+)")
_FILLED = re.compile(r"Can only (SETITEM|append|extend).* but got <class '([\w.]+)'>")
_FILLED_2_5 = re.compile(r"'(\w+)' object does not support item assignment")  # torch 2.5, a dict

_DAMAGED = "put back a sound copy of the file, or begin anew without it"


class CheckpointError(FastloadError):
    """A checkpoint cannot be read, or belongs to another run or model."""


class _WatchedFile:
    """A binary file that sums up what is written to it.

    It keeps the reason of a failed write, which torch.save does not report.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.crc32 = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self.crc32 = zlib.crc32(data, self.crc32)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def write_tensors(path: Path, content: dict[str, Any]) -> None:
    """Write a file so that `path` always leads to complete content.

    Args:
        path: The final name; its folder exists.
        content: Tensors, and plain values in dicts and lists.

    Raises:
        OutputError: If the file cannot be written, for example because the disk is full. A former
            file of that name is as it was, and no temporary file is left.
    """
    try:
        with replacing(path) as file:
            _save(content, file)
    except OSError as error:
        error.filename = str(path)
        kept = "; the former checkpoint is intact" if path.exists() else ""
        raise OutputError(f"{explain_os_error(error)}{kept}") from error


def _save(content: dict[str, Any], file: IO[bytes]) -> None:
    watched = _WatchedFile(file)
    try:
        torch.save({"format": FORMAT, **content}, watched)  # type: ignore[arg-type]  # all it calls
    except RuntimeError:
        if watched.error is not None:
            raise watched.error from None
        raise
    comment = _COMMENT.format(watched.crc32).encode("ascii")
    file.seek(-len(_NO_COMMENT), os.SEEK_END)
    file.write(struct.pack("<H", len(comment)) + comment)


def read_tensors(path: Path) -> dict[str, Any]:
    """The content that `write_tensors` wrote, with tensors on the CPU.

    Raises:
        CheckpointError: If the file is missing, damaged, or of a format unknown to this version.
    """
    try:
        content = load_tensors(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such checkpoint") from error
    found = content.get("format") if isinstance(content, dict) else None
    found = found if isinstance(found, int | str) else None
    if found not in {1, FORMAT}:
        raise CheckpointError(
            f"{path}: not a checkpoint of this trainer (format {found}, not {FORMAT})"
        )
    return dict(content)


def load_tensors(path: Path) -> Any:  # noqa: ANN401  what others saved
    """The content of a file that torch.save wrote, in any trainer; tensors are on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is no regular file, cannot be read, is damaged, or holds more
            than tensors and plain values.
    """
    return _loaded(path, _load)


def load_around(path: Path, *, device: str = "cpu") -> tuple[Any, tuple[str, ...]]:
    """The content of a file of any trainer: its tensors and plain values, without its objects.

    Trainers save options, paths and numbers of NumPy beside the weights. No class is looked up by
    the name that the file gives, so a file cannot run code: in the place of each object stands one
    of our own that takes anything and does nothing.

    Args:
        path: A file of torch.save, or a safetensors file where safetensors is installed.
        device: "meta" reads no tensors.

    Returns:
        The content, and the names of the classes that were left out.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is no regular file, cannot be read or is damaged.
    """
    left_out: dict[str, type] = {}
    content = _loaded(path, lambda file: _load_around(file, left_out, device))
    return content, tuple(left_out)


def _loaded(path: Path, load: Callable[[BinaryIO], Any]) -> Any:  # noqa: ANN401
    try:
        with _opened(path) as file, warnings.catch_warnings():
            ends_well = _check(path, file)
            file.seek(0)
            warnings.simplefilter("ignore")  # what torch thinks of a file, our sentence says
            content = _load_safetensors(path) if _is_safetensors(file) else load(file)
    except (FastloadError, FileNotFoundError):
        raise
    except OSError as error:
        error.filename = str(path)
        raise CheckpointError(explain_os_error(error)) from error
    except Exception as error:  # torch and pickle name damage in a dozen ways
        raise CheckpointError(f"{path}: {_explained(path, error)}") from error
    if isinstance(content, dict) and content.get("format") == FORMAT and not ends_well:
        raise CheckpointError(f"{path}: is damaged: the checksum at its end is lost; {_DAMAGED}")
    return content


def _load(file: BinaryIO, device: str = "cpu") -> Any:  # noqa: ANN401
    file.seek(0)
    return torch.load(file, map_location=device, weights_only=True)


def _load_around(file: BinaryIO, left_out: dict[str, type], device: str) -> Any:  # noqa: ANN401
    """Load, with a class of ours for each class that torch does not take; they are noted."""
    while _meets_class(file, left_out):
        pass
    with torch.serialization.safe_globals(list(left_out.values())):
        return _load(file, device)


def _meets_class(file: BinaryIO, left_out: dict[str, type]) -> bool:
    """Whether the file names a class that is not noted yet, and is now; reads no tensors."""
    try:
        with torch.serialization.safe_globals(list(left_out.values())):
            _load(file, "meta")
    except (pickle.UnpicklingError, TypeError) as error:
        return _leave_out(str(error), left_out)
    except RuntimeError:  # tensors that cannot be without values, such as sparse ones
        return False
    return False


class _Nothing:
    """Stands in the place of an object of another class: it takes anything and does nothing.

    It stands for a class too where the file looks one up in an object, as for a nested class: torch
    finds it equal to a safe class, and what it makes is itself.
    """

    def __new__(cls, *_: object) -> Any:  # noqa: ANN401  some give what torch fills
        return object.__new__(cls) if isinstance(cls, type) else cls

    def __init__(self, *_: object) -> None:
        pass

    def __call__(self, *_: object) -> _Nothing:
        return self

    def __eq__(self, other: object) -> bool:
        return other is self or other is type(self)

    def __hash__(self) -> int:
        return id(self)

    def __setstate__(self, state: object) -> None:
        pass


class _NothingInDict(_Nothing):
    def __new__(cls, *_: object) -> Any:  # noqa: ANN401
        return OrderedDict()  # torch gives attributes to it, and none to a dict


class _NothingInList(_Nothing):
    def __new__(cls, *_: object) -> Any:  # noqa: ANN401
        return []


def _leave_out(reason: str, left_out: dict[str, type]) -> bool:
    """Note the class at which torch's unpickler stopped; False if it stopped for another reason."""
    base: type = _Nothing
    if found := _CLASS.search(reason):
        names = [found[1] if "." in found[1] else f"builtins.{found[1]}"]
        if names[0] in left_out:  # a module that torch blocks altogether
            return False
    elif found := _FILLED.search(reason):
        names, base = [found[2]], _NothingInDict if found[1] == "SETITEM" else _NothingInList
    elif found := _FILLED_2_5.search(reason):
        names = [name for name, kind in left_out.items() if kind.__name__ == found[1]]
        base = _NothingInDict
    else:
        return False
    changed = False
    for name in names:
        if left_out.get(name, object).__base__ is not base:
            module, _, short = name.rpartition(".")
            left_out[name] = type(short, (base,), {"__module__": module, "__qualname__": short})
            changed = True
    return changed


def _is_safetensors(file: BinaryIO) -> bool:
    """Whether a file begins as safetensors do: the length of a header of JSON, and that."""
    head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < 2**32


def _load_safetensors(path: Path) -> dict[str, Any]:
    """The tensors; with what train/export.py says of them, where it wrote the file."""
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise CheckpointError(
            f"{path}: is a safetensors file, and safetensors is not installed; pip install "
            "safetensors"
        ) from error
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        said = file.metadata() or {}
    if not {"fastload", "classes", "mean", "std"} <= said.keys():
        return tensors
    return {
        "model": tensors,
        "classes": json.loads(said["classes"]),
        "normalise": [json.loads(said["mean"]), json.loads(said["std"])],
    }


def _opened(path: Path) -> BinaryIO:
    if not stat.S_ISREG(path.stat().st_mode):  # a FIFO would block, a device never end
        raise CheckpointError(f"{path}: is not a regular file; a file of weights was expected")
    return path.open("rb")


def _explained(path: Path, error: Exception) -> str:
    """Why a file that may be sound in itself cannot be read."""
    with path.open("rb") as file:
        head = file.read(16)
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return f"asks for more memory than there is; it is damaged, or too large: {_DAMAGED}"
    if "TorchScript" in str(error):
        return "is a TorchScript program; save its state dict: torch.save(model.state_dict(), FILE)"
    if "afetensor" in type(error).__name__:
        return f"is a safetensors file that is damaged or incomplete; {_DAMAGED}"
    named = _CLASS.search(str(error))
    if named and isinstance(error, pickle.UnpicklingError):
        return (
            f"holds an object of {named[1]}, which could run code; only tensors and plain values "
            "are read: save the state dict alone: torch.save(model.state_dict(), FILE)"
        )
    if head[:2] == b"PK" and isinstance(error, pickle.UnpicklingError | TypeError):
        return (  # its CRCs are right
            "holds more than tensors and plain values, or is of another pickle protocol than 2; "
            "save the state dict alone: torch.save(model.state_dict(), FILE)"
        )
    if head[:2] in {b"PK", b"\x80\x02"}:
        return f"is damaged or incomplete; {_DAMAGED}"
    return f"is no file of torch.save: it begins with {head!r}"


def _check(path: Path, file: BinaryIO) -> bool:
    """Whether the file ends with a checksum of ours, or as torch.save ends a file.

    Somebody may have read a file of ours and saved it again, without a checksum.

    Raises:
        CheckpointError: If the checksum is of other bytes, or those of a zip archive's records are.
    """
    size = os.fstat(file.fileno()).st_size
    if not size:
        raise CheckpointError(f"{path}: is empty; {_DAMAGED}")
    file.seek(max(size - _ENDING_BYTES, 0))
    if ending := _ENDING.fullmatch(file.read()):
        found = zlib.crc32(_NO_COMMENT, _crc32(file, size - _ENDING_BYTES))
        if found != int(ending[1], 16):
            raise CheckpointError(
                f"{path}: is damaged: the CRC-32 of its bytes is {found:08x}, its end says "
                f"{ending[1].decode()}; {_DAMAGED}"
            )
        return True
    file.seek(0)
    if file.read(4) == b"PK\x03\x04":
        _check_records(path, file, size)
    file.seek(max(size - _END_BYTES, 0))
    end = file.read()
    return end.startswith(b"PK\x05\x06") and end.endswith(_NO_COMMENT)


def _crc32(file: BinaryIO, count: int) -> int:
    file.seek(0)
    value = 0
    while block := file.read(min(count, READ_BYTES)):
        value, count = zlib.crc32(block, value), count - len(block)
    return value


def _check_records(path: Path, file: BinaryIO, size: int) -> None:
    """Compare the records of torch's archive with their CRC-32, which torch.load does not read."""
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        if not any(record.filename.endswith("data.pkl") for record in records):
            raise CheckpointError(f"{path}: is a zip archive that torch.save did not write")
        claimed = sum(record.file_size for record in records)
        if claimed > size:  # torch.save does not compress
            raise CheckpointError(
                f"{path}: says it holds {claimed:,} bytes, and has {size:,}; {_DAMAGED}"
            )
        # torch.serialization.set_crc32_options(False) writes 0 for each.
        if any(record.CRC for record in records) and (name := archive.testzip()):
            raise CheckpointError(
                f"{path}: is damaged: its record {name} does not fit its CRC-32; {_DAMAGED}"
            )
