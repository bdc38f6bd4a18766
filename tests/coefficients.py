"""An independent reader of baseline JPEGs: ITU-T T.81 by the letter, slow and obvious.

It shares nothing with the native core and so can testify that the core changes no coefficient.
Paragraphs are those of T.81 (09/92).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class Component:
    """One component: its factors, its table and its blocks [rows, columns, 64] in zig-zag order."""

    horizontal: int
    vertical: int
    quantisation: NDArray[np.int64]
    blocks: NDArray[np.int64]


@dataclass
class Jpeg:
    """A file, read."""

    height: int = 0
    width: int = 0
    restart_interval: int = 0
    markers: list[int] = field(default_factory=list)
    components: list[Component] = field(default_factory=list)
    code_lengths: set[int] = field(default_factory=set)


class Bits:
    """The bits of one restart interval, stuffed zeros removed (F.2.2.5)."""

    def __init__(self, data: bytes) -> None:
        plain = data.replace(b"\xff\x00", b"\xff")
        self.text = "".join(f"{byte:08b}" for byte in plain)
        self.at = 0

    def take(self, count: int) -> str:
        assert self.at + count <= len(self.text), "the interval is too short"
        bits = self.text[self.at : self.at + count]
        self.at += count
        return bits

    def symbol(self, table: dict[str, int]) -> int:
        code = ""
        while code not in table:
            assert len(code) < 16, "no such code"
            code += self.take(1)
        return table[code]

    def value(self, size: int) -> int:
        """RECEIVE and EXTEND (F.2.2.1)."""
        if size == 0:
            return 0
        value = int(self.take(size), 2)
        return value if value >= 1 << (size - 1) else value - (1 << size) + 1

    def end(self) -> None:
        """Only ones, fewer than eight, fill the last byte (F.1.2.3)."""
        rest = self.text[self.at :]
        assert len(rest) < 8
        assert set(rest) <= {"1"}


def _huffman(counts: bytes, symbols: bytes) -> dict[str, int]:
    """Codes in order of length (Annex C)."""
    table, code, index = {}, 0, 0
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            table[f"{code:0{length}b}"] = symbols[index]
            code, index = code + 1, index + 1
        code *= 2
    assert all("0" in code for code in table), "a code of ones only"
    return table


def read_jpeg(jpeg: bytes) -> Jpeg:
    """Read a baseline file of one interleaved scan."""
    found = Jpeg()
    quantisation: dict[int, NDArray[np.int64]] = {}
    huffman: dict[int, dict[str, int]] = {}
    frame: list[tuple[int, int, int, int]] = []
    assert jpeg[:2] == b"\xff\xd8"
    at = 2
    while True:
        assert jpeg[at] == 0xFF
        marker, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        body = jpeg[at + 4 : at + 2 + length]
        found.markers.append(marker)
        at += 2 + length
        if marker == 0xDB:
            while body:
                assert body[0] < 4, "8-bit tables only"
                values = np.zeros(64, np.int64)
                values[:] = list(body[1:65])
                quantisation[body[0]] = values
                body = body[65:]
        elif marker == 0xC4:
            while body:
                total = sum(body[1:17])
                huffman[body[0]] = _huffman(body[1:17], body[17 : 17 + total])
                found.code_lengths |= {n for n, count in enumerate(body[1:17], 1) if count}
                body = body[17 + total :]
        elif marker == 0xC0:
            assert body[0] == 8
            found.height = int.from_bytes(body[1:3], "big")
            found.width = int.from_bytes(body[3:5], "big")
            frame = [
                (body[i], body[i + 1] >> 4, body[i + 1] & 15, body[i + 2])
                for i in range(6, 6 + 3 * body[5], 3)
            ]
        elif marker == 0xDD:
            found.restart_interval = int.from_bytes(body, "big")
        elif marker == 0xDA:
            assert body[0] == len(frame)
            assert [body[1 + 2 * i] for i in range(len(frame))] == [entry[0] for entry in frame]
            tables = [body[2 + 2 * i] for i in range(len(frame))]
            break
        else:
            assert marker >= 0xE0 or marker == 0xFE, f"marker {marker:02X}"
    if len(frame) == 1:  # A.2.2
        frame = [(frame[0][0], 1, 1, frame[0][3])]
    rows = -(-found.height // (8 * max(v for _, _, v, _ in frame)))
    columns = -(-found.width // (8 * max(h for _, h, _, _ in frame)))
    found.components = [
        Component(h, v, quantisation[q], np.zeros((rows * v, columns * h, 64), np.int64))
        for _, h, v, q in frame
    ]
    _read_scan(jpeg[at:], found, rows, columns, [_pair(huffman, pair) for pair in tables])
    return found


def _pair(huffman: dict[int, dict[str, int]], pair: int) -> tuple[dict[str, int], dict[str, int]]:
    return huffman[pair >> 4], huffman[16 + (pair & 15)]


def _intervals(scan: bytes) -> Iterator[bytes]:
    """Entropy-coded bytes between markers; RSTn must count up, EOI must end the scan (E.1.4)."""
    begin, restart = 0, 0
    for at in range(len(scan) - 1):
        if scan[at] != 0xFF or scan[at + 1] == 0:
            continue
        yield scan[begin:at]
        if scan[at + 1] == 0xD9:
            assert at + 2 == len(scan), "bytes behind EOI"
            return
        assert scan[at + 1] == 0xD0 + restart % 8
        begin, restart = at + 2, restart + 1
    raise AssertionError("no EOI")


def _read_scan(
    scan: bytes,
    jpeg: Jpeg,
    rows: int,
    columns: int,
    tables: list[tuple[dict[str, int], dict[str, int]]],
) -> None:
    intervals = _intervals(scan)
    bits = Bits(next(intervals))
    predicted = [0] * len(jpeg.components)
    for mcu in range(rows * columns):
        if jpeg.restart_interval and mcu and mcu % jpeg.restart_interval == 0:
            bits.end()
            bits = Bits(next(intervals))
            predicted = [0] * len(jpeg.components)
        row, column = divmod(mcu, columns)
        for index, component in enumerate(jpeg.components):
            for v in range(component.vertical):
                for h in range(component.horizontal):
                    at = row * component.vertical + v, column * component.horizontal + h
                    _read_block(bits, component.blocks[at], *tables[index])
                    predicted[index] += int(component.blocks[at][0])
                    component.blocks[at][0] = predicted[index]
    bits.end()
    assert next(intervals, None) is None, "more intervals than MCUs"


def _read_block(
    bits: Bits, block: NDArray[np.int64], dc: dict[str, int], ac: dict[str, int]
) -> None:
    """F.2.2.1 and F.2.2.2."""
    block[0] = bits.value(bits.symbol(dc))
    k = 1
    while k < 64:
        run, size = divmod(bits.symbol(ac), 16)
        if size == 0:
            if run != 15:
                assert run == 0
                return
            k += 16
            continue
        k += run
        block[k] = bits.value(size)
        k += 1
    assert k == 64
