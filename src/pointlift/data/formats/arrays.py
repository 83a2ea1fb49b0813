"""numpy's `.npy` and `.npz`, read with every size checked before memory is taken, and pickles refused."""

from __future__ import annotations

import io
import math
import struct
import sys
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from pointlift.core.errors import FileFormatError
from pointlift.data.cloud import PointCloud, check_rows
from pointlift.data.formats.columns import by_canonical_name, split_named, split_table, tidy
from pointlift.data.formats.limits import unpacked_limit
from pointlift.data.formats.options import ReadOptions

MOST_DIMENSIONS = 8
LONGEST_HEADER = 1 << 16
COORDINATES = ("points_i16", "points", "xyz", "pos", "pointcloud", "coords", "data")
SCALES = {"points_i16": 1 / 32767, "normals_i8": 1 / 127}
RENAMED = {"normals_i8": "normals", "rgb": "colors", "color": "colors", "normal": "normals"}


def read_array(stream: IO[bytes], available: int, where: str) -> np.ndarray:
    """One array in `.npy` encoding from a stream that holds `available` bytes.

    Raises:
        FileFormatError: Not `.npy`, Python objects inside, or a header that promises more than there is.
    """
    shape, fortran, dtype = _read_header(stream, where)
    if dtype.hasobject:
        raise FileFormatError(
            f"{where} holds Python objects (a pickle), which could execute code",
            "an array of numbers",
            "Convert it where it was made: np.save(path, np.asarray(points, dtype='float32'))",
        )
    plain = dtype.itemsize > 0 and not dtype.subdtype and len(shape) <= MOST_DIMENSIONS
    if not plain or not all(type(n) is int and n >= 0 for n in shape):
        raise FileFormatError(f"{where}: shape {str(shape)[:60]} of type {str(dtype)[:60]}", "an array of numbers")
    needed = math.prod(shape) * dtype.itemsize
    if needed > available:
        raise FileFormatError(
            f"{where}: the header promises {needed:,} bytes (shape {str(shape)[:60]}, {str(dtype)[:60]}), "
            f"there are at most {available:,}",
            "a complete file",
            "The file is cut short or damaged: copy it again",
        )
    data = bytearray(needed)
    filled = 0
    with memoryview(data) as view:
        while filled < needed and (got := stream.readinto(view[filled:])):  # type: ignore[attr-defined]
            filled += got
    if filled < needed:
        raise FileFormatError(f"{where}: {filled:,} of {needed:,} bytes are there", "a complete file")
    array = np.frombuffer(data, dtype=dtype)
    if dtype.kind == "U" and array.size and _code_points(array).max() > sys.maxunicode:
        raise FileFormatError(f"{where}: text with characters that do not exist", "text")
    return array.reshape(shape[::-1]).transpose() if fortran else array.reshape(shape)


def _code_points(array: np.ndarray) -> np.ndarray:
    return array.view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))


def _read_header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        head = stream.read(12)
        version = np.lib.format.read_magic(io.BytesIO(head))
        start = 10 if version == (1, 0) else 12
        length = int.from_bytes(head[8:start], "little")
        if length > LONGEST_HEADER:  # numpy would take memory for it before it looks
            raise ValueError(f"a header of {length:,} bytes")
        text = io.BytesIO(head[8:] + stream.read(max(length - (12 - start), 0)))
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hints on Python 2 and on old type names in the header
            return reader(text)
    except (ValueError, TypeError, SyntaxError, RecursionError, EOFError, tokenize.TokenError) as error:
        raise FileFormatError(
            f"{where} is not a numpy array file ({_reason(error)})", "a file written by np.save"
        ) from error


def _reason(error: Exception) -> str:
    """What a library says, on one line of bounded length."""
    return " ".join(str(error).split())[:120] or type(error).__name__


class NpzFile(Mapping[str, np.ndarray]):
    """The arrays of an `.npz`, read when asked for; sizes are checked before memory is taken."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
            raise FileFormatError(
                f"{path} is not an .npz archive ({_reason(error)})", "a file written by np.savez"
            ) from error
        self._members = {
            i.filename.removesuffix(".npy"): i for i in self._zip.infolist() if i.filename.endswith(".npy")
        }
        # Of all members together: a thousand of them may be one and the same piece of the file.
        total, limit = sum(i.file_size for i in self._members.values()), unpacked_limit(path)
        if total > limit:
            self._zip.close()
            raise FileFormatError(f"{path} would unpack to {total:,} bytes", f"at most {limit:,} for this file")

    def __getitem__(self, key: str) -> np.ndarray:
        info = self._members[key]
        where = f"{self.path}, array {key[:60]!r}"
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # bzip2 and LZMA turn 100 bytes into 100 megabytes, and np.savez never uses them.
            raise FileFormatError(f"{where} is packed with method {info.compress_type}", "a file written by np.savez")
        try:
            with self._zip.open(info) as stream:
                return read_array(stream, info.file_size, where)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            NotImplementedError,
            RuntimeError,
            UnicodeDecodeError,
            struct.error,
        ) as error:
            raise FileFormatError(f"{where} cannot be unpacked ({_reason(error)})", "a complete .npz") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, key: object) -> bool:
        return key in self._members

    def __enter__(self) -> NpzFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self._zip.close()


def read_npy(path: Path, options: ReadOptions) -> PointCloud:
    """A cloud from `.npy`: (N, C >= 3), or a structured array with fields x, y, z."""
    with path.open("rb") as stream:
        array = read_array(stream, path.stat().st_size, str(path))
    if array.dtype.names:
        _check_fields(array, path)
        xyz, feats = split_named(by_canonical_name([(n, array[n]) for n in array.dtype.names], path), path)
    else:
        xyz, feats = split_table(array, options.columns, path)
    return PointCloud.from_array(xyz, path, feats=feats)


def _check_fields(array: np.ndarray, path: Path) -> None:
    for name in array.dtype.names or ():
        if array.dtype[name].kind not in "biuf" or array.ndim != 1:
            given = f"{path}: field {name[:60]!r} of type {str(array.dtype[name])[:60]}, shape {array.shape}"
            raise FileFormatError(given, "rows of plain numbers")


def read_npz(path: Path, options: ReadOptions) -> PointCloud:
    """A cloud from `.npz`: `points_i16` (divided by 32767), `points`, `xyz`, else its only array."""
    with NpzFile(path) as arrays:
        return cloud_of(arrays, options, path)


def cloud_of(arrays: Mapping[str, np.ndarray], options: ReadOptions, path: Path) -> PointCloud:
    """One cloud from arrays by name: coordinates under one of `COORDINATES`, and every array with as many rows."""
    key = _coordinate_key(arrays, path)
    xyz, feats = split_table(arrays[key], options.columns, path)
    if key in SCALES:
        xyz = xyz.astype(np.float32) * np.float32(SCALES[key])
    for name in arrays:
        if name in {key, "offset"}:
            continue
        values = arrays[name]
        if values.ndim >= 1 and len(values) == len(xyz) and values.dtype.kind in "biuf":
            values = values.astype(np.float32) * np.float32(SCALES[name]) if name in SCALES else values
            feats[RENAMED.get(name, name)] = tidy(RENAMED.get(name, name), values, path)
    offset = arrays.get("offset")
    check_rows(feats, len(xyz), path)
    cloud = PointCloud.from_array(xyz, path, feats=feats)
    if offset is not None and offset.shape == (3,) and offset.dtype.kind == "f" and np.isfinite(offset).all():
        return PointCloud(cloud.xyz, cloud.feats, path, cloud.meta, cloud.offset + offset)
    return cloud


def _coordinate_key(arrays: Mapping[str, np.ndarray], path: Path) -> str:
    for key in COORDINATES:
        if key in arrays:
            return key
    if len(arrays) == 1:
        return next(iter(arrays))
    raise FileFormatError(
        f"{path}: arrays {', '.join(list(arrays)[:8]) or 'none'}",
        f"coordinates under one of {', '.join(COORDINATES)}",
    )


def write_npy(cloud: PointCloud, path: Path) -> None:
    """Coordinates only, float32 (N, 3); float64 when the cloud has an offset."""
    with path.open("wb") as stream:
        np.save(stream, cloud.world_xyz if cloud.offset.any() else cloud.xyz, allow_pickle=False)


def write_npz(cloud: PointCloud, path: Path) -> None:
    """`points` float32 (N, 3), every feature under its name, and `offset` when the cloud has one."""
    arrays: dict[str, Any] = {"points": cloud.xyz, **cloud.feats}
    if cloud.offset.any():
        arrays["offset"] = cloud.offset
    with path.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
