"""numpy's `.npy` and `.npz`, read with every size checked before memory is taken, and pickles refused."""

from __future__ import annotations

import math
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from pointlift.core.errors import FileFormatError
from pointlift.data.cloud import PointCloud, check_rows
from pointlift.data.formats.columns import canonical, split_named, split_table

# A compressed archive may unpack to this many bytes, or to this many times its own size.
UNPACKED_FLOOR = 256 << 20
UNPACKED_RATIO = 100
COORDINATES = ("points_i16", "points", "xyz", "pos", "pointcloud", "coords")
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
    needed = math.prod(shape) * dtype.itemsize
    if needed > available:
        raise FileFormatError(
            f"{where}: the header promises {needed:,} bytes (shape {shape}, {dtype}), there are at most {available:,}",
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
    array = np.frombuffer(data, dtype=dtype) if dtype.itemsize else np.empty(math.prod(shape), dtype)
    return array.reshape(shape[::-1]).transpose() if fortran else array.reshape(shape)


def _read_header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hints on Python 2 and on old type names in the header
            return reader(stream)
    except (ValueError, TypeError, SyntaxError, RecursionError, EOFError, tokenize.TokenError) as error:
        reason = " ".join(str(error).split())[:120]
        raise FileFormatError(f"{where} is not a numpy array file ({reason})", "a file written by np.save") from error


class NpzFile(Mapping[str, np.ndarray]):
    """The arrays of an `.npz`, read when asked for; sizes are checked before memory is taken."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise FileFormatError(f"{path} is not an .npz archive ({error})", "a file written by np.savez") from error
        self._members = {
            i.filename.removesuffix(".npy"): i for i in self._zip.infolist() if i.filename.endswith(".npy")
        }
        self._limit = max(UNPACKED_FLOOR, UNPACKED_RATIO * path.stat().st_size)

    def __getitem__(self, key: str) -> np.ndarray:
        info = self._members[key]
        where = f"{self.path}, array {key!r}"
        if info.file_size > self._limit:
            raise FileFormatError(
                f"{where} would unpack to {info.file_size:,} bytes", f"at most {self._limit:,} for this file"
            )
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
        ) as error:
            raise FileFormatError(f"{where} cannot be unpacked ({error})", "a complete .npz") from error

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


def read_npy(path: Path, columns: Sequence[str] | None) -> PointCloud:
    """A cloud from `.npy`: (N, C >= 3), or a structured array with fields x, y, z."""
    with path.open("rb") as stream:
        array = read_array(stream, path.stat().st_size, str(path))
    if array.dtype.names:
        xyz, feats = split_named({canonical(n): array[n] for n in array.dtype.names}, path)
    else:
        xyz, feats = split_table(array, columns, path)
    return PointCloud.from_array(xyz, path, feats=feats)


def read_npz(path: Path, columns: Sequence[str] | None) -> PointCloud:
    """A cloud from `.npz`: `points_i16` (divided by 32767), `points`, `xyz`, else its only array."""
    with NpzFile(path) as arrays:
        key = _coordinate_key(arrays, path)
        table = arrays[key]
        xyz, feats = split_table(table, columns, path)
        if key in SCALES:
            xyz = xyz.astype(np.float32) * np.float32(SCALES[key])
        for name in arrays:
            if name in {key, "offset"}:
                continue
            values = arrays[name]
            if values.ndim >= 1 and len(values) == len(xyz) and values.dtype.kind in "biuf":
                values = values.astype(np.float32) * np.float32(SCALES[name]) if name in SCALES else values
                feats[RENAMED.get(name, name)] = values
        offset = arrays.get("offset")
    check_rows(feats, len(xyz), path)
    cloud = PointCloud.from_array(xyz, path, feats=feats)
    if offset is not None and offset.shape == (3,) and offset.dtype.kind == "f" and np.isfinite(offset).all():
        return PointCloud(cloud.xyz, cloud.feats, path, cloud.meta, cloud.offset + offset)
    return cloud


def _coordinate_key(arrays: NpzFile, path: Path) -> str:
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
