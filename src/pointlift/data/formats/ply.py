"""PLY: ascii and binary in both byte orders, any order of properties; only the vertices are decoded.

The reader is our own: it checks the header against the size of the file before taking memory, and it does not
build Python lists for the faces of a mesh, which is where general readers spend their time.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pointlift.core.errors import FileFormatError
from pointlift.data.cloud import PointCloud
from pointlift.data.formats.columns import by_canonical_name, flat_columns, header_names, split_named, typed
from pointlift.data.formats.options import ReadOptions
from pointlift.data.formats.text import parse_table

MAX_HEADER = 1 << 20
ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2",
    "int": "i4", "uint": "u4", "float": "f4", "double": "f8",
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2",
    "int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8",
}  # fmt: skip
NAMES = {
    "i1": "char",
    "u1": "uchar",
    "i2": "short",
    "u2": "ushort",
    "i4": "int",
    "u4": "uint",
    "f4": "float",
    "f8": "double",
}


@dataclass
class _Element:
    """One element of the header: `properties` are (name, type), for lists (name, (count type, item type))."""

    name: str
    count: int
    properties: list[tuple[str, str | tuple[str, str]]] = field(default_factory=list)

    @property
    def has_lists(self) -> bool:
        return any(isinstance(kind, tuple) for _, kind in self.properties)

    def dtype(self, order: str) -> np.dtype:
        return np.dtype([(name, order + kind) for name, kind in self.properties if isinstance(kind, str)])


def read_ply(path: Path, options: ReadOptions) -> PointCloud:
    """A cloud from the vertices of a `.ply`; `red green blue` come as `colors`, `nx ny nz` as `normals`."""
    data = path.read_bytes()
    order, elements, start = _parse_header(data, path)
    position = next((i for i, e in enumerate(elements) if e.name == "vertex"), None)
    if position is None:
        raise FileFormatError(
            f"{path}: elements {', '.join(e.name[:40] for e in elements[:8]) or 'none'}", "an element 'vertex'"
        )
    vertex = elements[position]
    if vertex.count == 0:
        raise FileFormatError(f"{path}: the cloud has no points", "at least one vertex")
    if vertex.has_lists:
        raise FileFormatError(f"{path}: vertices with list properties", "one number per property")
    read = _read_ascii if order == "ascii" else _read_binary
    table = read(data, start, elements[: position + 1], ORDERS[order], path)
    xyz, feats = split_named(by_canonical_name([(n, table[n]) for n in table.dtype.names or ()], path), path)
    faces = sum(e.count for e in elements if e.name == "face")
    return PointCloud.from_array(xyz, path, feats=feats, meta={"faces": faces} if faces else {})


def _parse_header(data: bytes, path: Path) -> tuple[str, list[_Element], int]:
    """Byte order by name, elements, and where the body starts."""
    head = data[:MAX_HEADER]
    end = head.find(b"end_header")
    newline = head.find(b"\n", end) if end >= 0 else -1
    if not head.startswith(b"ply") or end < 0 or newline < 0:
        raise FileFormatError(f"{path} is not a PLY file (no header from 'ply' to 'end_header')", "a PLY header")
    order = ""
    elements: list[_Element] = []
    for line in head[:end].decode("ascii", errors="replace").splitlines()[1:]:
        words = line.split()
        match words:
            case ["format", kind, *_] if kind in ORDERS:
                order = kind
            case ["element", name, count] if count.isdecimal() and len(count) < 19:
                elements.append(_Element(name, int(count)))
            case ["property", "list", count, item, name] if elements and count in TYPES and item in TYPES:
                elements[-1].properties.append((name, (TYPES[count], TYPES[item])))
            case ["property", kind, name] if elements and kind in TYPES:
                elements[-1].properties.append((name, TYPES[kind]))
            case [] | ["comment" | "obj_info", *_]:
                pass
            case _:
                raise FileFormatError(
                    f"{path}: header line {line.strip()[:80]!r}", "format, element, property or comment"
                )
    if not order:
        raise FileFormatError(f"{path}: no line 'format ...' in the header", f"one of {', '.join(ORDERS)}")
    return order, elements, newline + 1


def _check_room(needed: int, available: int, vertex: _Element, path: Path) -> None:
    if needed > available:
        raise FileFormatError(
            f"{path}: the header promises {vertex.count:,} points, which take at least {needed:,} bytes; "
            f"{available:,} are there",
            "a complete file",
            "The file is cut short or damaged: copy it again",
        )


def _read_binary(data: bytes, start: int, elements: list[_Element], order: str, path: Path) -> np.ndarray:
    *before, vertex = elements
    for element in before:
        start = (
            _skip_lists(data, start, element, order, path)
            if element.has_lists
            else (start + element.count * element.dtype(order).itemsize)
        )
    dtype = vertex.dtype(order)
    _check_room(vertex.count * dtype.itemsize, max(len(data) - start, 0), vertex, path)
    table = np.frombuffer(data, dtype=dtype, count=vertex.count, offset=start)
    return table.astype(dtype.newbyteorder("="))


def _skip_lists(data: bytes, start: int, element: _Element, order: str, path: Path) -> int:
    """The position after an element with list properties: rows differ in length, so each one is walked."""
    try:
        for _ in range(element.count):
            for _, kind in element.properties:
                if isinstance(kind, str):
                    start += np.dtype(kind).itemsize
                else:
                    counter = np.dtype(order + kind[0])
                    length = int(np.frombuffer(data, counter, count=1, offset=start)[0])
                    start += counter.itemsize + max(length, 0) * np.dtype(kind[1]).itemsize
            if start > len(data):
                break
    except (ValueError, struct.error) as error:
        raise FileFormatError(f"{path}: ends inside its element {element.name!r}", "a complete file") from error
    return start


def _read_ascii(data: bytes, start: int, elements: list[_Element], order: str, path: Path) -> np.ndarray:
    *before, vertex = elements
    dtype = vertex.dtype("")
    # Two characters per number at least: a digit and what separates it from the next.
    _check_room(vertex.count * 2 * len(vertex.properties) - 1, len(data) - start, vertex, path)
    skip = sum(e.count for e in before)
    if skip > len(data):
        raise FileFormatError(f"{path}: the header promises {skip:,} rows before the points", "a complete file")
    text = io.StringIO(data[start:].decode("ascii", errors="replace"))
    values = parse_table(text, path, skip=skip, rows=vertex.count)
    if values.shape != (vertex.count, len(vertex.properties)):
        raise FileFormatError(
            f"{path}: {len(values)} rows of {values.shape[1]} numbers",
            f"{vertex.count} of {len(vertex.properties)}",
        )
    table = np.empty(vertex.count, dtype)
    for i, name in enumerate(dtype.names or ()):
        table[name] = typed(values[:, i], dtype[name], name, path)
    return table


def write_ply(cloud: PointCloud, path: Path) -> None:
    """Binary little-endian PLY; features become scalar properties; doubles when the cloud has an offset."""
    xyz = cloud.world_xyz if cloud.offset.any() else cloud.xyz
    columns = {axis: xyz[:, i] for i, axis in enumerate("xyz")} | flat_columns(cloud.feats)
    columns = {name: _storable(values) for name, values in header_names(columns, path.name).items()}
    table = np.empty(len(xyz), dtype=[(name, "<" + values.dtype.str[1:]) for name, values in columns.items()])
    for name, values in columns.items():
        table[name] = values
    properties = [f"property {NAMES[values.dtype.str[1:]]} {name}" for name, values in columns.items()]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment written by pointlift",
        f"element vertex {len(xyz)}",
    ]
    text = "\n".join([*header, *properties, "end_header\n"])
    with path.open("wb") as stream:
        stream.write(text.encode("ascii"))
        stream.write(table.tobytes())


def _storable(values: np.ndarray) -> np.ndarray:
    """The narrowest PLY type that holds a column: PLY has no 64-bit integers, booleans or halves."""
    if values.dtype.str[1:] in NAMES:
        return values
    if values.dtype.kind in "biu":
        whole = values.astype(np.int64)
        fits = not whole.size or (whole.min() >= -(2**31) and whole.max() < 2**31)
        return whole.astype(np.int32) if fits else whole.astype(np.float64)
    return values.astype(np.float32 if values.dtype.itemsize < 4 else np.float64)
