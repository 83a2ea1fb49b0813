"""LAS and LAZ through laspy (extra `las`), with the header checked against the file before memory is taken."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pointlift.core.errors import FileFormatError, PointLiftError
from pointlift.data.cloud import PointCloud
from pointlift.data.formats.columns import canonical, flat_columns, header_names, plain_numbers, split_named, tidy
from pointlift.data.formats.isolated import Budget, isolated
from pointlift.data.formats.laz import check_laz
from pointlift.data.formats.limits import unpacked_limit
from pointlift.data.formats.options import ReadOptions

FIRST = struct.Struct("<4s20xBB68xHIIBHI")  # the fixed part of the header that we check ourselves
SHORTEST = {0: 20, 1: 28, 2: 26, 3: 34, 4: 57, 5: 63, 6: 30, 7: 36, 8: 38, 9: 59, 10: 67}  # bytes of a point format
VLR_HEADER = 54
LONGEST_NAME = 32  # bytes for the name of an extra dimension
CUT = "The file is cut short or damaged: copy it again"
LARGEST_STEP = 2**31 - 1  # coordinates are int32 multiples of a scale


def _laspy(path: Path) -> Any:
    try:
        import laspy
        import lazrs  # noqa: F401  laspy asks for it only in the middle of a .laz file
    except ImportError as error:
        raise FileFormatError(
            f"{path}: LAS and LAZ files need the package {error.name}",
            "laspy and lazrs",
            "pip install 'pointlift[las]'",
        ) from error
    return laspy


def read_las(path: Path, options: ReadOptions) -> PointCloud:
    """A cloud from `.las` or `.laz`: scaled coordinates, `intensity`, `semantic` (classification), `colors`, ...

    Every dimension comes under its own name, extra dimensions too. Standard dimensions that are zero for every
    point are left out: LAS has room for them whether they were measured or not.
    """
    laspy = _laspy(path)
    promised = _check_header(path)
    if promised.compressed:  # lazrs panics over damaged files, and says so on the screen
        room = 4 * promised.size  # packed bits become bytes, and int32 coordinates float64

        def read(budget: Budget) -> dict[str, np.ndarray]:
            budget(2 * promised.size)  # and again while they are taken apart
            return _columns(laspy, path)

        columns = isolated(read, path, room)
    else:
        columns = _columns(laspy, path)
    if len(columns["x"]) != promised.points:
        raise FileFormatError(f"{path}: {len(columns['x']):,} points", f"{promised.points:,}, as the header says")
    named = {canonical(name): values for name, values in columns.items()}
    matrices = {name: tidy(name, values, path) for name, values in named.items() if values.ndim > 1}
    xyz, feats = split_named({name: values for name, values in named.items() if values.ndim == 1}, path)
    return PointCloud.from_array(xyz, path, feats=feats | matrices)


def _columns(laspy: Any, path: Path) -> dict[str, np.ndarray]:
    """x, y and z in float64, and every dimension with values, by the file's names."""
    # One thread: the threads of the parallel reader do not survive the fork of a data-loader worker.
    with _readable(path), laspy.open(path, laz_backend=laspy.LazBackend.Lazrs, read_evlrs=False) as reader:
        # Not `reader.read()`: it reads the records after the points too, whatever size they claim.
        las = laspy.LasData(reader.header, reader.read_points(-1))
        columns = {axis: np.asarray(las[axis], dtype=np.float64) for axis in "xyz"}
        standard = [n for n in las.point_format.standard_dimension_names if n not in {"X", "Y", "Z"}]
        filled = {name: values for name in standard if (values := np.asarray(las[name])).any()}
        extra = {name: np.asarray(las[name]) for name in las.point_format.extra_dimension_names}
    if {"red", "green", "blue"} & set(filled):
        filled |= {name: np.asarray(las[name]) for name in ("red", "green", "blue")}
    return filled | extra | columns


class _Promise(NamedTuple):
    """What a header says: how many points, the bytes that they take unpacked, and whether they are compressed."""

    points: int
    size: int
    compressed: bool


def _check_header(path: Path) -> _Promise:
    """The header's promise, which fits into the file or unpacks to a bounded amount of memory."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(375)
        if not head.startswith(b"LASF"):
            raise FileFormatError(f"{path} is not a LAS file ({size:,} bytes)", "a header that starts with LASF")
        whole = int.from_bytes(head[94:96], "little") if len(head) >= 96 else 0  # says the header of its length
        if size < max(whole, 227):
            raise FileFormatError(f"{path} ends inside its header, after {size:,} bytes", "a complete file", CUT)
        _, major, minor, header_size, start, vlrs, kind, length, points = FIRST.unpack_from(head)
        if (major, minor) >= (1, 4) and len(head) == 375:
            _, evlrs, points = struct.unpack_from("<QIQ", head, 235)
        else:
            evlrs = 0
        if points == 0:
            raise FileFormatError(f"{path}: the cloud has no points", "at least one")
        compressed, kind = bool(kind & 0x80), kind & 0x3F
        if start > size and kind in SHORTEST:
            raise FileFormatError(
                f"{path}: points from byte {start:,}, and the file ends at byte {size:,}", "a complete file", CUT
            )
        if kind not in SHORTEST or length < SHORTEST[kind] or not header_size <= start <= size:
            raise FileFormatError(
                f"{path}: point format {kind} of {length} bytes, points from byte {start:,} of {size:,}",
                "a LAS 1.0 to 1.4 file",
            )
        if header_size + vlrs * VLR_HEADER > start or evlrs * 60 > size:
            raise FileFormatError(f"{path}: {vlrs:,} records before the points", "as many as fit there")
        scales = struct.unpack_from("<6d", head, 131)
        if not all(map(math.isfinite, scales)) or 0 in scales[:3]:
            raise FileFormatError(f"{path}: scales and offsets {scales}", "finite numbers, scales other than 0")
        limit = unpacked_limit(path) if compressed else size - start
        if points * length > limit:
            raise FileFormatError(
                f"{path}: the header promises {points:,} points of {length} bytes; there is room for {limit:,} bytes",
                "a complete file",
                CUT,
            )
        if compressed:
            stream.seek(header_size)
            check_laz(stream, stream.read(start - header_size), vlrs, points, path)
    return _Promise(points, points * length, compressed)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever laspy or lazrs raise becomes a `FileFormatError`, panics of the Rust code (no `Exception`) too."""
    try:
        yield
    except (PointLiftError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":
            raise  # Ctrl-C and the like
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise FileFormatError(f"{path} cannot be read as LAS ({reason})", "a complete LAS or LAZ file", CUT) from error


def write_las(cloud: PointCloud, path: Path) -> None:
    """LAS 1.4, compressed when `path` ends in `.laz`.

    Coordinates are int32 multiples of the finest power of ten that reaches over the cloud. Features go into the
    standard dimensions that hold their values exactly, the others into extra dimensions.
    """
    laspy = _laspy(path)
    standard, extra = _dimensions(cloud.feats, laspy, path)
    header = laspy.LasHeader(point_format=7 if "red" in standard else 6, version="1.4")
    world = cloud.world_xyz
    low, high = world.min(axis=0), world.max(axis=0)
    header.offsets = np.round((low + high) / 2, 3)
    reach = max(float(np.abs(np.stack([low, high]) - header.offsets).max()), 1e-6)
    header.scales = np.full(3, 10.0 ** math.ceil(math.log10(reach / LARGEST_STEP)))
    for name, values in extra.items():
        header.add_extra_dim(laspy.ExtraBytesParams(name, values.dtype.str[1:]))
    las = laspy.LasData(header)
    las.x, las.y, las.z = world.T
    for name, values in (standard | extra).items():
        las[name] = values
    las.write(str(path), laz_backend=laspy.LazBackend.Lazrs if path.suffix.lower() == ".laz" else None)


def _dimensions(
    feats: Mapping[str, np.ndarray], laspy: Any, path: Path
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Features by LAS name: those that standard dimensions hold, and the others."""
    room = {d.name: d for d in laspy.PointFormat(6).dimensions if d.name not in {"X", "Y", "Z"}}
    standard: dict[str, np.ndarray] = {}
    extra: dict[str, np.ndarray] = {}
    for name, values in header_names(flat_columns(feats), path.name).items():
        known = {"semantic": "classification"}.get(name, name)
        if name in {"red", "green", "blue"} and values.dtype == np.uint8:
            standard[name] = values.astype(np.uint16) * 257  # 16 bits, as the standard asks: 255 becomes 65535
        elif known in room and _fits(values, room[known]):
            standard[known] = values
        elif len(name) > LONGEST_NAME:
            raise FileFormatError(f"{path.name}: no dimension can be called {name!r}", f"{LONGEST_NAME} letters")
        else:  # a capital keeps it apart from a standard dimension of the same name; reading is not case-sensitive
            extra[name.capitalize() if name in room else name] = plain_numbers(values)
    return standard, extra


def _fits(values: np.ndarray, dimension: Any) -> bool:
    if dimension.name == "gps_time":
        return values.dtype.kind == "f"
    if values.dtype.kind not in "biu":
        return False
    low, high = (-(2**15), 2**15 - 1) if dimension.name == "scan_angle" else (0, 2**dimension.num_bits - 1)
    return bool(values.min() >= low and values.max() <= high)
