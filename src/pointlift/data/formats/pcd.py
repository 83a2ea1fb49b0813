"""PCD of the Point Cloud Library: ascii, binary and binary_compressed; any fields in any order.

The reader is our own: the header is checked against the size of the file before memory is taken.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pointlift.core.errors import FileFormatError
from pointlift.data.cloud import PointCloud
from pointlift.data.formats import lzf
from pointlift.data.formats.columns import (
    by_canonical_name,
    canonical,
    flat_columns,
    header_names,
    plain_numbers,
    split_named,
    tidy,
    typed,
)
from pointlift.data.formats.options import ReadOptions
from pointlift.data.formats.text import parse_table

MAX_HEADER = 1 << 16
MAX_FIELDS = 1000
TYPES = {f"{letter}{size}" for letter, sizes in (("F", "48"), ("I", "1248"), ("U", "1248")) for size in sizes}
PACKED = ("rgb", "rgba")
KEYWORDS = ("VERSION", "FIELDS", "COLUMNS", "SIZE", "TYPE", "COUNT", "WIDTH", "HEIGHT", "VIEWPOINT", "POINTS", "DATA")


@dataclass(frozen=True)
class _Header:
    """`fields`: name, numpy type and count of each; `start`: where the points begin."""

    fields: tuple[tuple[str, str, int], ...]
    points: int
    shape: tuple[int, int]
    data: str
    start: int

    @property
    def dtype(self) -> np.dtype:
        """One point as it lies in the file. Padding (`_`) and repeated names are told apart by number."""
        names = [name if name != "_" else f"_{i}" for i, (name, _, _) in enumerate(self.fields)]
        return np.dtype([(n, kind, (count,)) for n, (_, kind, count) in zip(names, self.fields, strict=True)])


def read_pcd(path: Path, options: ReadOptions) -> PointCloud:
    """A cloud from `.pcd`; packed `rgb` comes as `colors`, `normal_x …` as `normals`, `_` is padding.

    PCD stores a NaN coordinate where a sensor had no return (organised clouds): these points are left out, and
    `meta["no_return"]` says how many.
    """
    data = path.read_bytes()
    header = _parse_header(data, path)
    if header.points == 0:
        raise FileFormatError(f"{path}: the cloud has no points", "at least one")
    read = {"ascii": _read_ascii, "binary": _read_binary, "binary_compressed": _read_compressed}[header.data]
    columns = read(data, header, path)
    kept, meta = _returns(columns, header)
    plain: list[tuple[str, np.ndarray]] = []
    matrices: list[tuple[str, np.ndarray]] = []
    for name, values in columns.items():
        values = values if kept is None else values[kept]
        if name in PACKED and values.shape[1] == 1 and values.dtype.itemsize == 4:
            plain += _unpack(values[:, 0], alpha=name == "rgba").items()
        elif values.shape[1] > 1:
            matrices.append((name, tidy(canonical(name), values, path)))
        else:
            plain.append((name, values[:, 0]))
    xyz, feats = split_named(by_canonical_name(plain, path), path)
    feats = by_canonical_name([*feats.items(), *matrices], path)
    return PointCloud.from_array(xyz, path, feats=feats, meta=meta)


def _parse_header(data: bytes, path: Path) -> _Header:
    """The lines up to DATA, with every count in order."""
    words: dict[str, list[str]] = {}
    at = 0
    while "DATA" not in words:
        end = data.find(b"\n", at, MAX_HEADER)
        if end < 0:
            raise FileFormatError(f"{path} is not a PCD file (no header line DATA)", "a header from VERSION to DATA")
        line = data[at:end].decode("ascii", errors="replace").split("#", 1)[0].split()
        at = end + 1
        if not line:
            continue
        keyword = line[0].upper()
        if keyword not in KEYWORDS:
            raise FileFormatError(f"{path}: header line {' '.join(line)[:80]!r}", f"one of {' '.join(KEYWORDS)}")
        words["FIELDS" if keyword == "COLUMNS" else keyword] = line[1:]
    fields = _fields(words, path)
    width, height = (_count(words, key, path, default) for key, default in (("WIDTH", None), ("HEIGHT", 1)))
    points = _count(words, "POINTS", path, width * height)
    if points != width * height:
        raise FileFormatError(f"{path}: POINTS {points:,} for WIDTH {width:,} and HEIGHT {height:,}", "their product")
    kind = " ".join(words["DATA"]).lower()
    if kind not in {"ascii", "binary", "binary_compressed"}:
        raise FileFormatError(f"{path}: DATA {kind[:40]!r}", "ascii, binary or binary_compressed")
    return _Header(fields, points, (height, width), kind, at)


def _fields(words: dict[str, list[str]], path: Path) -> tuple[tuple[str, str, int], ...]:
    names = words.get("FIELDS", [])
    sizes, types = words.get("SIZE", []), words.get("TYPE", [])
    counts = words.get("COUNT", ["1"] * len(names))
    if not names or len(names) > MAX_FIELDS or not len(names) == len(sizes) == len(types) == len(counts):
        raise FileFormatError(
            f"{path}: {len(names)} FIELDS, {len(sizes)} SIZE, {len(types)} TYPE, {len(counts)} COUNT",
            "one of each per field",
        )
    real = [name for name in names if name != "_"]
    if len(set(real)) < len(real):
        raise FileFormatError(f"{path}: a field is named twice: {' '.join(names)[:80]}", "each name once")
    fields = []
    for name, size, letter, count in zip(names, sizes, types, counts, strict=True):
        if letter.upper() + size not in TYPES or not count.isdecimal() or not 0 < int(count[:9]) < 10**6:
            raise FileFormatError(
                f"{path}: field {name!r} of SIZE {size} TYPE {letter} COUNT {count[:20]}",
                "F 4 or 8, I or U 1, 2, 4 or 8, and a count from 1",
            )
        fields.append((name, f"<{letter.lower()}{size}", int(count[:9])))
    return tuple(fields)


def _count(words: dict[str, list[str]], key: str, path: Path, default: int | None) -> int:
    given = words.get(key, [])
    if not given and default is not None:
        return default
    if len(given) != 1 or not given[0].isdecimal() or len(given[0]) > 18:
        raise FileFormatError(f"{path}: {key} {' '.join(given)[:40]!r}", "one whole number")
    return int(given[0])


def _check_room(needed: int, available: int, header: _Header, path: Path) -> None:
    if needed > available:
        raise FileFormatError(
            f"{path}: the header promises {header.points:,} points, which take at least {needed:,} bytes; "
            f"{max(available, 0):,} are there",
            "a complete file",
            "The file is cut short or damaged: copy it again",
        )


def _read_ascii(data: bytes, header: _Header, path: Path) -> dict[str, np.ndarray]:
    width = sum(count for _, _, count in header.fields)
    _check_room(header.points * 2 * width - 1, len(data) - header.start, header, path)
    text = io.StringIO(data[header.start :].decode("ascii", errors="replace"))
    values = parse_table(text, path)
    if values.shape != (header.points, width):
        raise FileFormatError(
            f"{path}: {len(values)} rows of {values.shape[1]} numbers",
            f"{header.points} of {width}, as the header says",
        )
    columns, at = {}, 0
    for name, kind, count in header.fields:
        if name != "_":
            columns[name] = typed(values[:, at : at + count], np.dtype(kind).newbyteorder("="), name, path)
        at += count
    return columns


def _read_binary(data: bytes, header: _Header, path: Path) -> dict[str, np.ndarray]:
    dtype = header.dtype
    _check_room(header.points * dtype.itemsize, len(data) - header.start, header, path)
    table = np.frombuffer(data, dtype, header.points, header.start)
    return {name: table[name] for name, _, _ in header.fields if name != "_"}


def _read_compressed(data: bytes, header: _Header, path: Path) -> dict[str, np.ndarray]:
    """Compressed files hold one field after the other, each for all points."""
    _check_room(8, len(data) - header.start, header, path)
    packed, size = (int(n) for n in np.frombuffer(data, "<u4", 2, header.start))
    _check_room(packed + 8, len(data) - header.start, header, path)
    needed = header.points * header.dtype.itemsize
    if size != needed or size > packed * lzf.LARGEST_RATIO:
        raise FileFormatError(
            f"{path}: {packed:,} compressed bytes for {size:,}", f"{needed:,} for {header.points:,} points"
        )
    start = header.start + 8
    plain = lzf.decompress(data[start : start + packed], size)
    if plain is None:
        raise FileFormatError(f"{path}: its compressed data is damaged", f"LZF data for {size:,} bytes")
    columns, at = {}, 0
    for name, kind, count in header.fields:
        if name != "_":
            values = np.frombuffer(plain, kind, header.points * count, at)
            columns[name] = values.reshape(header.points, count)
        at += header.points * count * np.dtype(kind).itemsize
    return columns


def _returns(columns: dict[str, np.ndarray], header: _Header) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Which points have coordinates (None: all), and what to say of the others."""
    meta: dict[str, Any] = {"organised": header.shape} if header.shape[0] > 1 else {}
    missing = np.zeros(header.points, bool)
    for axis in columns:
        if axis.lower() in {"x", "y", "z"} and columns[axis].dtype.kind == "f":
            missing |= np.isnan(columns[axis][:, 0])
    if not missing.any():
        return None, meta
    return ~missing, meta | {"no_return": int(missing.sum())}


def _unpack(values: np.ndarray, *, alpha: bool) -> dict[str, np.ndarray]:
    """Red, green and blue (and alpha) from 0xAARRGGBB, whatever type the field pretends to have."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    parts = {"red": 16, "green": 8, "blue": 0} | ({"alpha": 24} if alpha else {})
    return {name: (bits >> shift & 255).astype(np.uint8) for name, shift in parts.items()}


def write_pcd(cloud: PointCloud, path: Path) -> None:
    """Binary PCD 0.7; `rgb` packed as PCL has it, matrices as one field; doubles when the cloud has an offset."""
    xyz = cloud.world_xyz if cloud.offset.any() else cloud.xyz
    columns: dict[str, np.ndarray] = {axis: xyz[:, i] for i, axis in enumerate("xyz")}
    for name, values in cloud.feats.items():
        if name == "colors" and values.dtype == np.uint8:
            red, green, blue = values.astype(np.uint32).T
            columns["rgb"] = (red << 16 | green << 8 | blue).view(np.float32)
        elif name == "normals":
            flat = flat_columns({name: values})
            columns |= {f"normal_{axis}": flat[f"n{axis}"] for axis in "xyz"}
        elif name == "colors" or values.ndim == 1:
            columns |= flat_columns({name: values})
        else:
            columns[name] = values.reshape(len(values), -1)
    columns = {name: plain_numbers(values) for name, values in header_names(columns, path.name).items()}
    fields = [(name, values.dtype.newbyteorder("<"), values.shape[1:]) for name, values in columns.items()]
    table = np.empty(len(xyz), dtype=np.dtype(fields))
    for name, values in columns.items():
        table[name] = values
    kinds = [values.dtype for values in columns.values()]
    header = [
        "# .PCD v0.7 - written by pointlift",
        "VERSION 0.7",
        "FIELDS " + " ".join(columns),
        "SIZE " + " ".join(str(kind.itemsize) for kind in kinds),
        "TYPE " + " ".join(kind.kind.upper() for kind in kinds),
        "COUNT " + " ".join(str(math.prod(shape)) for _, _, shape in fields),
        f"WIDTH {len(xyz)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(xyz)}",
        "DATA binary\n",
    ]
    with path.open("wb") as stream:
        stream.write("\n".join(header).encode("ascii"))
        stream.write(table.tobytes())
