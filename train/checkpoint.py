"""Checkpoints that survive a crash, a kill and a full disk.

A file is written under a temporary name, flushed to the disk and renamed over the old one, so at
each moment the final name holds a complete checkpoint: the new one or the former. Reading unpickles
tensors and plain values only.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import IO, Any

import torch

from fastload.errors import FastloadError, OutputError, first_line
from fastload.files import explain_os_error

FORMAT = 1


class CheckpointError(FastloadError):
    """A checkpoint cannot be read, or belongs to another run or model."""


class _WatchedFile:
    """A binary file that remembers why a write failed: torch.save reports it without the reason."""

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


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint so that `path` is never anything but complete.

    Args:
        path: The final name; its folder exists.
        content: Tensors, and plain values in dicts and lists.

    Raises:
        OutputError: If it cannot be written, for one because the disk is full; a former
            checkpoint of that name is as it was, and no temporary file is left.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            _save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        error.filename = str(path)
        kept = "; the former checkpoint is intact" if path.exists() else ""
        raise OutputError(f"{explain_os_error(error)}{kept}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _save(content: dict[str, Any], file: IO[bytes]) -> None:
    watched = _WatchedFile(file)
    try:
        torch.save({"format": FORMAT, **content}, watched)  # type: ignore[arg-type]  # all it calls
    except RuntimeError:
        if watched.error is not None:
            raise watched.error from None
        raise


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where folders can be opened."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote, with tensors on the CPU.

    Raises:
        CheckpointError: If it is not there, damaged, or of a format unknown to this version.
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
