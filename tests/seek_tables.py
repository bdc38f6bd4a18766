"""Seek tables as docs/format.md describes them, read and written bit by bit."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace
from typing import NamedTuple


class Point(NamedTuple):
    """Where an MCU begins, in bits of the scan; no predictors behind a restart marker."""

    mcu: int
    position: int
    predictors: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """What the frame of the file says."""

    mcus_per_row: int
    rows: int
    components: int
    restart_interval: int = 0


@dataclass(frozen=True)
class Table:
    """The fields, and each value of each point as it is coded: folded differences."""

    file_bytes: int
    crc32: int
    per_row: int
    orders: tuple[int, ...]
    points: tuple[Point, ...]

    def written(self, layout: Layout) -> bytes:
        """The bytes, under any order that the fields hold."""
        bits = ""
        for field, value in _differences(self, layout):
            order = self.orders[field]
            folded = 2 * value if value >= 0 else -2 * value - 1
            prefix = f"{(folded >> order) + 1:b}"
            bits += "0" * (len(prefix) - 1) + prefix
            bits += f"{folded & (1 << order) - 1:0{order}b}" if order else ""
        return sealed(self, bits)


def sealed(table: Table, bits: str) -> bytes:
    """A table of these bits, whatever they mean."""
    orders = sum(order << 4 * field for field, order in enumerate(table.orders))
    bits += "0" * (-len(bits) % 8)
    body = struct.pack("<BBIIHH", 1, 0, table.file_bytes, table.crc32, table.per_row, orders)
    body += int("1" + bits, 2).to_bytes(len(bits) // 8 + 1, "big")[1:]
    return body + struct.pack("<I", zlib.crc32(body))


def places(layout: Layout, per_row: int) -> list[tuple[int, int | None, bool]]:
    """MCU, number in its row (None: only a restart marker gave it) and whether one stands before.

    Without the first MCU of the scan.
    """
    total = layout.mcus_per_row * layout.rows
    regular = {
        row * layout.mcus_per_row + i * layout.mcus_per_row // per_row: i
        for row in range(layout.rows)
        for i in range(per_row)
    }
    marked = set(range(0, total, layout.restart_interval)) if layout.restart_interval else set()
    return [(mcu, regular.get(mcu), mcu in marked) for mcu in sorted({*regular, *marked} - {0})]


def _expected(
    values: dict[int | None, list[int]], layout: Layout, mcu: int, column: int | None
) -> list[int]:
    """The values that the next ones are told from, which the caller makes what they are."""
    if column is not None and column > 0 and mcu < layout.mcus_per_row:
        values[column] = [*values.get(column - 1, [0] * 4)]
    return values.setdefault(column, [0] * 4)


def _differences(table: Table, layout: Layout) -> list[tuple[int, int]]:
    found, values, before = [], dict[int | None, list[int]](), 0
    for point, (mcu, column, marked) in zip(
        table.points, places(layout, table.per_row), strict=True
    ):
        now = [point.position - before, *(() if marked else point.predictors)]
        expected = _expected(values, layout, mcu, column)
        for field, value in enumerate(now):
            found.append((field, value - expected[field]))
            expected[field] = value
        before = point.position
    return found


def read(table: bytes, layout: Layout) -> Table:
    """A sound table."""
    version, zero, file_bytes, crc32, per_row, packed = struct.unpack_from("<BBIIHH", table)
    assert (version, zero) == (1, 0)
    assert table[-4:] == struct.pack("<I", zlib.crc32(table[:-4]))
    orders = tuple(packed >> 4 * field & 15 for field in range(4))
    bits, at = "".join(f"{byte:08b}" for byte in table[14:-4]), 0
    points, values, position = [], dict[int | None, list[int]](), 0
    for mcu, column, marked in places(layout, per_row):
        expected = _expected(values, layout, mcu, column)
        for field in range(1 if marked else 1 + layout.components):
            length, order = bits.index("1", at) - at + 1, orders[field]
            prefix, at = int(bits[at : at + 2 * length - 1], 2), at + 2 * length - 1
            folded = prefix - 1 << order | int(bits[at : at + order] or "0", 2)
            at += order
            expected[field] += folded // 2 if folded % 2 == 0 else -(folded + 1) // 2
        position += expected[0]
        predictors = () if marked else tuple(expected[1 : 1 + layout.components])
        points.append(Point(mcu, position, predictors))
    assert set(bits[at:]) <= {"0"}
    assert len(bits) - at < 8
    return Table(file_bytes, crc32, per_row, orders, tuple(points))


def moved(table: Table, index: int, **changes: object) -> Table:
    """The table with one point changed."""
    points = [*table.points]
    points[index] = points[index]._replace(**changes)  # type: ignore[arg-type]  # its fields
    return replace(table, points=tuple(points))
