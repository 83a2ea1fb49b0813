"""What a compressed LAS file promises, checked against its size before lazrs takes memory for it.

A `.laz` is a LAS header, a LASzip record among its records, chunks of compressed points, and a table of the chunks.
In the point formats from 6 on a chunk is: its first point as it is, the number of its points, the sizes of its
layers, the layers. lazrs takes memory for whatever size stands there, so they are added up here first.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pointlift.core.errors import FileFormatError

VLR = struct.Struct("<2x16sHH32x")  # owner, number, bytes that follow
LASZIP = struct.Struct("<12xI16xH")  # points per chunk, number of items, in 34 bytes
LAYERS = {10: 9, 11: 1, 12: 2, 13: 1}  # item of a point -> its layers; in item 14 every extra byte is one
EXTRA_BYTES = 14
ANY = 2**32 - 1  # chunks of different sizes


@dataclass(frozen=True)
class _Packing:
    """Points per chunk, bytes of a point, and its layers (0: not layered)."""

    each: int
    point: int
    layers: int


def check_laz(stream: IO[bytes], records: bytes, count: int, points: int, path: Path) -> None:
    """Raise `FileFormatError` when the file is too small for the chunks and layers that it promises.

    Args:
        stream: The file, at the byte where its points start.
        records: The bytes between header and points, which hold `count` records.
        count: How many records there are.
        points: How many points the header promises.
        path: The file, for messages.
    """
    packing = _packing(records, count, path)
    start = stream.tell()
    table = _table(stream, start, path)
    stream.seek(table + 4)
    chunks = int.from_bytes(stream.read(4), "little")
    if not chunks <= points <= chunks * packing.each:
        raise FileFormatError(
            f"{path}: the header promises {points:,} points, in {chunks:,} chunks of {packing.each:,}",
            "chunks that hold them",
        )
    if packing.layers:
        _check_layers(stream, start + 8, table, chunks, packing, path)


def _packing(records: bytes, count: int, path: Path) -> _Packing:
    at = 0
    for _ in range(count):
        if at + VLR.size > len(records):
            break
        owner, number, length = VLR.unpack_from(records, at)
        at += VLR.size
        if owner.startswith(b"laszip encoded") and number == 22204 and at + LASZIP.size <= len(records):
            each, items = LASZIP.unpack_from(records, at)
            kinds = records[at + LASZIP.size : at + LASZIP.size + 6 * items]
            parts = [struct.unpack_from("<HH", kinds, i) for i in range(0, len(kinds) - 5, 6)]
            layers = sum(size if kind == EXTRA_BYTES else LAYERS.get(kind, 0) for kind, size in parts)
            return _Packing(each, sum(size for _, size in parts), layers)
        at += length
    raise FileFormatError(f"{path}: compressed without a LASzip record", "a complete .laz file")


def _table(stream: IO[bytes], start: int, path: Path) -> int:
    """Where the table of chunks starts; a file that was written as a stream says so in its last 8 bytes."""
    size = path.stat().st_size
    raw = stream.read(8)
    at = int.from_bytes(raw, "little", signed=True)
    if at == -1:
        stream.seek(max(size - 8, 0))
        at = int.from_bytes(stream.read(8), "little", signed=True)
    if len(raw) < 8 or not start + 8 <= at <= size - 8:
        raise FileFormatError(f"{path}: no chunk table at byte {at:,} of {size:,}", "a complete .laz file")
    return at


def _check_layers(stream: IO[bytes], at: int, table: int, chunks: int, packing: _Packing, path: Path) -> None:
    sizes = struct.Struct(f"<4x{packing.layers}I")
    for chunk in range(chunks):
        stream.seek(at + packing.point)
        head = stream.read(sizes.size)
        at += packing.point + sizes.size + (sum(sizes.unpack(head)) if len(head) == sizes.size else table)
        if at > table:
            raise FileFormatError(
                f"{path}: compressed chunk {chunk} of {chunks} promises to end at byte {at:,}, its data ends at "
                f"{table:,}",
                "a complete .laz file",
                "The file is damaged: copy it again",
            )
