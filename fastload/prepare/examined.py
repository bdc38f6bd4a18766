"""What is known of each file of data in place: a run that is killed goes on, the next takes less.

    .fastload/examined-0      blocks, each of some files: what was found in them
    .fastload/points-0.seek   the seek tables of these files, end to end

Both only grow while files are examined: a block is complete or is not there, and what stands
behind the last complete block is cut off. A file is known while its path, its size, its time and
the rules are the same. Once most of what they hold is of files that are no more, both are written
anew under the next number, and the index says which number holds.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastload.files import open_own, sync_file
from fastload.pixels import native
from fastload.prepare.reasons import Reason, Rules
from fastload.prepare.source import File
from fastload.prepare.verdict import Doubtful, Dropped, Kept, Verdict
from fastload.store.places import KINDS, points_name

VERSION = 1  # of what is found in a file; another version looks at all files again
BLOCK_FILES = 512  # lost at most where a run is killed: a fifth of a second
_MAGIC = b"FLX1"
_HEAD = struct.Struct("<4sIIIQ")  # magic, files, bytes of text, CRC-32, end of the tables
_DROPPED = 255  # in place of a kind
_DOUBTFUL = 1  # in place of a height, where a file was dropped

FOUND = np.dtype(
    [
        ("key", "<u8"),  # half of the digest of path, place, size, time and rules
        ("other", "<u8"),  # the other half
        ("digest", "<u8"),  # half of the picture's digest: `Kept.digest`
        ("twin", "<u8"),  # the other half
        ("size", "<u4"),  # bytes
        ("height", "<u2"),  # pixels of the upright image
        ("width", "<u2"),
        ("crc32", "<u4"),
        ("orientation", "u1"),
        ("kind", "u1"),  # position in KINDS; _DROPPED where the file is left out
        ("seek", "<u8"),  # of the seek table's first byte
        ("seek_size", "<u4"),
        ("text", "<u8"),  # where the text about it begins: its change, or reason and detail
        ("text_size", "<u4"),
    ]
)


class Known(NamedTuple):
    """What is known of some files.

    Attributes:
        rows: FOUND [N], one for each file.
        texts: What `text` points into.
    """

    rows: NDArray[np.void]
    texts: bytes

    def text(self, row: int) -> str:
        """The text about one file."""
        begin, size = int(self.rows["text"][row]), int(self.rows["text_size"][row])
        return self.texts[begin : begin + size].decode("utf-8", "surrogateescape")

    def kept(self) -> NDArray[np.bool_]:
        """Which files stay."""
        stay: NDArray[np.bool_] = self.rows["kind"] != _DROPPED
        return stay

    def doubtful(self) -> NDArray[np.bool_]:
        """Which were left out for want of storage or memory, which may be there now."""
        dropped = self.rows["kind"] == _DROPPED
        return np.asarray(dropped & (self.rows["height"] == _DOUBTFUL))

    def verdict(self, row: int) -> Verdict:
        """What became of one file."""
        facts, text = self.rows[row], self.text(row)
        if facts["kind"] == _DROPPED:
            slug, _, detail = text.partition("\t")
            return Dropped(Reason(slug), detail)
        return Kept(
            size=int(facts["size"]),
            height=int(facts["height"]),
            width=int(facts["width"]),
            crc32=int(facts["crc32"]),
            digest=f"{int(facts['digest']):016x}{int(facts['twin']):016x}",
            how=KINDS[int(facts["kind"])],
            change=text,
            orientation=int(facts["orientation"]),
        )


class Examined:
    """The two files of a folder, open to add to. Used by one process at a time.

    Args:
        folder: The folder of the index.
        number: Of the two files.
        rules: What is taken.

    Attributes:
        number: Of the two files; `shrink` changes it.

    Raises:
        OSError: If the files cannot be read or written.
    """

    def __init__(self, folder: Path, number: int, rules: Rules) -> None:
        self._folder, self.number = folder, number
        self._salt = repr((VERSION, rules, native.is_available())).encode()
        self._blocks: list[NDArray[np.void]] = []
        self._texts = bytearray()
        self._points_end = 0
        with ExitStack() as stack:
            self._log = stack.enter_context(_opened(folder / _log_name(number)))
            self._points = stack.enter_context(_opened(folder / points_name(number)))
            self._read_blocks()
            stack.pop_all()
        self._fresh: list[tuple[File, Verdict, bytes]] = []

    @property
    def points_bytes(self) -> int:
        """Bytes of all seek tables."""
        return self._points_end

    def find(self, keys: NDArray[np.uint64]) -> tuple[Known, NDArray[np.bool_]]:
        """What is known of files.

        Args:
            keys: What `keys_of` made of the files.

        Returns:
            One row for each file, and which of the files are known.
        """
        known = np.concatenate([np.zeros(1, FOUND), *self._blocks])  # there is one at least
        order = np.argsort(known["key"], kind="stable")
        # The last of several is the newest.
        places = np.searchsorted(known["key"], keys[:, 0], side="right", sorter=order) - 1
        rows = known[order[np.maximum(places, 0)]]
        found = (rows["key"] == keys[:, 0]) & (rows["other"] == keys[:, 1])
        return Known(rows, bytes(self._texts)), found

    def add(self, file: File, verdict: Verdict, table: bytes) -> None:
        """Take what was found in a file."""
        self._fresh.append((file, verdict, table))
        if len(self._fresh) >= BLOCK_FILES:
            self._write_block()

    def _write_block(self) -> None:
        if not self._fresh:
            return
        keys = self.keys_of([file for file, _, _ in self._fresh])
        rows, texts, tables = np.zeros(len(self._fresh), FOUND), bytearray(), bytearray()
        rows["key"], rows["other"] = keys[:, 0], keys[:, 1]
        for number, (_, verdict, table) in enumerate(self._fresh):
            row = rows[number : number + 1]
            text = _text_of(verdict).encode("utf-8", "surrogateescape")
            row["text"], row["text_size"] = len(texts), len(text)
            row["seek"], row["seek_size"] = self._points_end + len(tables), len(table)
            texts += text
            tables += table
            _fill(row, verdict)
        self._points.seek(self._points_end)
        self._points.write(tables)
        self._points.flush()
        self._log.write(_block(rows, bytes(texts), tables))
        self._log.flush()
        self._points_end += len(tables)
        self._take(rows, bytes(texts))
        self._fresh = []

    def _take(self, rows: NDArray[np.void], texts: bytes) -> None:
        rows["text"] += len(self._texts)
        self._texts += texts
        self._blocks.append(rows)

    def _read_blocks(self) -> None:
        """Read the complete blocks; what stands behind them, or behind damage, is cut off."""
        self._log.seek(0)
        self._points.seek(0)
        room = os.fstat(self._points.fileno()).st_size
        good = 0
        while len(head := self._log.read(_HEAD.size)) == _HEAD.size:
            magic, count, text_bytes, crc32, end = _HEAD.unpack(head)
            if magic != _MAGIC or count > BLOCK_FILES or not self._points_end <= end <= room:
                break
            body = self._log.read(count * FOUND.itemsize + text_bytes)
            tables = self._points.read(end - self._points_end)
            if zlib.crc32(tables, zlib.crc32(body)) != crc32:
                break
            if len(body) != count * FOUND.itemsize + text_bytes:
                break
            rows = np.frombuffer(body, FOUND, count).copy()
            self._take(rows, body[count * FOUND.itemsize :])
            good, self._points_end = self._log.tell(), end
        self._log.seek(good)
        self._log.truncate(good)
        self._points.truncate(self._points_end)

    def keys_of(self, files: Sequence[File]) -> NDArray[np.uint64]:
        """uint64 [N, 2]: by what each file is known."""
        digests = bytearray()
        for file in files:
            place = f"{file.container}\0{file.path}\0{file.offset}\0{file.bytes}\0"
            text = os.fsencode(place) + b"%d\0" % file.modified_ns + self._salt
            digests += hashlib.blake2b(text, digest_size=16).digest()
        return np.frombuffer(bytes(digests), "<u8").reshape(-1, 2)

    def shrink(self, rows: NDArray[np.void]) -> NDArray[np.void]:
        """Write both files anew where most of what they hold is not among `rows`.

        Args:
            rows: FOUND [N], of all files there are.

        Returns:
            The rows, with the places that their seek tables have now.
        """
        held = sum(len(block) for block in self._blocks)
        if held <= 2 * len(rows) + BLOCK_FILES:
            return rows
        known = Known(rows, bytes(self._texts))
        texts = [known.texts[int(r["text"]) : int(r["text"]) + int(r["text_size"])] for r in rows]
        new = rows.copy()
        new["seek"] = np.cumsum(rows["seek_size"], dtype=np.uint64) - rows["seek_size"]
        self.number += 1
        with (
            _opened(self._folder / points_name(self.number)) as points,
            _opened(self._folder / _log_name(self.number)) as log,
        ):
            for first in range(0, len(new), BLOCK_FILES):
                tables = bytearray()
                for row in rows[first : first + BLOCK_FILES]:
                    self._points.seek(int(row["seek"]))
                    tables += self._points.read(int(row["seek_size"]))
                points.write(tables)
                block = new[first : first + BLOCK_FILES].copy()
                some = texts[first : first + BLOCK_FILES]
                block["text"] = np.cumsum([0, *map(len, some)])[:-1]
                log.write(_block(block, b"".join(some), tables))
            for file in (points, log):
                file.truncate()
                sync_file(file)
        self._points_end = int(new["seek_size"].sum())
        return new

    def remove_others(self) -> None:
        """Remove files of other numbers; what cannot be removed does no harm."""
        names = {_log_name(self.number), points_name(self.number)}
        for path in (*self._folder.glob("examined-*"), *self._folder.glob("points-*.seek")):
            if path.name not in names:
                with suppress(OSError):
                    path.unlink()

    def sync(self) -> None:
        """Make what was added durable."""
        self._write_block()
        for file in (self._points, self._log):
            sync_file(file)

    def __enter__(self) -> Examined:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with ExitStack() as stack:
            stack.callback(self._log.close)
            stack.callback(self._points.close)
            if not isinstance(error, OSError):  # a full disk takes no more
                self._write_block()


def _block(rows: NDArray[np.void], texts: bytes, tables: bytes | bytearray) -> bytes:
    """Some rows as they lie in the file; the last one's seek table is the last there is.

    The CRC-32 is of the rows, their texts and their seek tables.
    """
    body = rows.tobytes() + texts
    end = int(rows["seek"][-1]) + int(rows["seek_size"][-1])
    crc32 = zlib.crc32(tables, zlib.crc32(body))
    return _HEAD.pack(_MAGIC, len(rows), len(texts), crc32, end) + body


def _log_name(number: int) -> str:
    return f"examined-{number}"


def _opened(path: Path) -> BinaryIO:
    """A file to read and write, made where there is none; what it holds stays."""
    return os.fdopen(open_own(path), "r+b")


def _text_of(verdict: Verdict) -> str:
    if isinstance(verdict, Kept):
        return verdict.change
    return f"{verdict.reason.slug}\t{verdict.detail}"


def _fill(row: NDArray[np.void], verdict: Verdict) -> None:
    if isinstance(verdict, Dropped):
        row["kind"] = _DROPPED
        row["height"] = _DOUBTFUL if isinstance(verdict, Doubtful) else 0
        return
    row["digest"], row["twin"] = int(verdict.digest[:16], 16), int(verdict.digest[16:], 16)
    row["kind"] = KINDS.index(verdict.how)
    for name in ("size", "height", "width", "crc32", "orientation"):
        row[name] = getattr(verdict, name)
