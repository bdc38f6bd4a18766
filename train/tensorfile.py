"""Files of tensors that survive a crash, a kill and a full disk.

At each moment the name of a file leads to complete content: the new content or the former.
Reading unpickles tensors and plain values only, so a file cannot run code.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import IO, Any

import torch

from fastload.errors import FastloadError, OutputError, first_line
from fastload.files import explain_os_error, replacing

FORMAT = 1


class CheckpointError(FastloadError):
    """A checkpoint cannot be read, or belongs to another run or model."""


class _WatchedFile:
    """A binary file that keeps the reason of a failed write, which torch.save does not report."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
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


def read_tensors(path: Path) -> dict[str, Any]:
    """The content that `write_tensors` wrote, with tensors on the CPU.

    Raises:
        CheckpointError: If the file is missing, damaged, or of a format unknown to this version.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: no such checkpoint, so there is nothing to resume"
        ) from error
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        reason = first_line(error)
        raise CheckpointError(f"{path}: not a checkpoint that can be read ({reason})") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise CheckpointError(
            f"{path}: not a checkpoint of this trainer (format {found}, not {FORMAT})"
        )
    return dict(content)
