"""Where the points of a data set lie: arrays of one size, packed arrays, or files.

A store answers `points(i)` with one cloud, decoded on demand, so that 10,000 clouds stay int16 in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from pointlift.core.errors import DataError, FileFormatError
from pointlift.data.cloud import LARGEST, Float32, checked_xyz, far_offset, to_float32

HASH_BLOCK = 1 << 22


class PointStore(Protocol):
    """What a `CloudSplit` needs of the place that holds its points."""

    def __len__(self) -> int: ...

    def points(self, i: int) -> Float32:
        """Cloud `i`, float32 (N_i, 3)."""

    def field(self, name: str, i: int) -> np.ndarray:
        """The per-point array `name` of cloud `i`, N_i rows."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the per-point arrays besides the coordinates."""

    def counts(self) -> np.ndarray | None:
        """int64 (n,): points per cloud; None when that takes reading every file."""

    def digest(self, indices: np.ndarray) -> Iterator[bytes]:
        """Bytes that change when the clouds `indices` change, the same on every machine."""


def little_endian(array: np.ndarray) -> np.ndarray:
    """Contiguous, little-endian: bytes that are the same on every machine."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


class ArrayStore:
    """Clouds of one size in one array.

    Args:
        array: (n, N, 3), any real dtype; kept as it is.
        scale: Coordinates are `array * scale` (1/32767 for `points_i16`).
        fields: Per-point arrays (n, N, ...), with the scale of each.
        where: The file, for messages.
    """

    def __init__(
        self,
        array: np.ndarray,
        *,
        scale: float = 1.0,
        fields: Mapping[str, tuple[np.ndarray, float]] | None = None,
        where: str | Path = "array",
    ) -> None:
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype.kind not in "fiu":
            raise DataError(
                f"{where}: points of shape {array.shape} and type {array.dtype}", "numbers of shape (n, N, 3)"
            )
        if array.shape[1] == 0:
            raise DataError(f"{where}: its clouds have no points", "at least one point per cloud")
        self.array, self.scale, self.where = array, scale, where
        self._fields = dict(fields or {})
        for name, (values, _) in self._fields.items():
            if values.shape[:2] != array.shape[:2]:
                raise DataError(f"{where}: {name!r} has shape {values.shape}", f"{array.shape[:2]} like the points")
        _check_all_finite(array, where)

    def __len__(self) -> int:
        return len(self.array)

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(self._fields)

    def points(self, i: int) -> Float32:
        return decode(self.array[i], self.scale)

    def field(self, name: str, i: int) -> np.ndarray:
        values, scale = self._fields[name]
        return values[i] if scale == 1 else values[i] * np.float32(scale)

    def counts(self) -> np.ndarray:
        return np.full(len(self.array), self.array.shape[1], dtype=np.int64)

    def digest(self, indices: np.ndarray) -> Iterator[bytes]:
        yield f"{self.array.shape[1]} {self.array.dtype.newbyteorder('<').str} {self.scale!r}".encode()
        for block in np.array_split(indices, max(1, len(indices) // 256)):
            yield little_endian(self.array[block]).tobytes()


class RaggedStore:
    """Clouds of different sizes in one packed array.

    Args:
        array: (P, 3), any real dtype; cloud i is `array[offsets[i]:offsets[i + 1]]`.
        offsets: (n + 1,) rising from 0 to P; every cloud has at least one point.
        scale: Coordinates are `array * scale`.
        fields: Per-point arrays (P, ...), with the scale of each.
        where: The file, for messages.
    """

    def __init__(
        self,
        array: np.ndarray,
        offsets: np.ndarray,
        *,
        scale: float = 1.0,
        fields: Mapping[str, tuple[np.ndarray, float]] | None = None,
        where: str | Path = "array",
    ) -> None:
        if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu":
            raise DataError(
                f"{where}: packed points of shape {array.shape} and type {array.dtype}",
                "numbers of shape (P, 3)",
            )
        if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or len(offsets) < 1:
            raise DataError(
                f"{where}: offsets of shape {offsets.shape} and type {offsets.dtype}",
                "integers of shape (n + 1,)",
            )
        self.offsets = offsets.astype(np.int64)
        sizes = np.diff(self.offsets)
        if self.offsets[0] != 0 or self.offsets[-1] != len(array) or (sizes < 1).any():
            raise DataError(
                f"{where}: offsets run from {self.offsets[0]} to {self.offsets[-1]}, "
                f"smallest step {sizes.min(initial=1)}",
                f"rising from 0 to the number of points ({len(array)}), at least one point per cloud",
            )
        self.array, self.scale, self.where = array, scale, where
        self._fields = dict(fields or {})
        for name, (values, _) in self._fields.items():
            if len(values) != len(array):
                raise DataError(f"{where}: {name!r} has {len(values)} rows", f"{len(array)} like the points")
        _check_all_finite(array[None], where)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(self._fields)

    def points(self, i: int) -> Float32:
        return decode(self.array[self.offsets[i] : self.offsets[i + 1]], self.scale)

    def field(self, name: str, i: int) -> np.ndarray:
        values, scale = self._fields[name]
        part = values[self.offsets[i] : self.offsets[i + 1]]
        return part if scale == 1 else part * np.float32(scale)

    def counts(self) -> np.ndarray:
        return np.diff(self.offsets)

    def digest(self, indices: np.ndarray) -> Iterator[bytes]:
        yield f"ragged {self.array.dtype.newbyteorder('<').str} {self.scale!r}".encode()
        for i in indices:
            part = self.array[self.offsets[i] : self.offsets[i + 1]]
            yield len(part).to_bytes(8, "little")
            yield little_endian(part).tobytes()


class FileStore:
    """One file per cloud, read when asked for; the decoded clouds stay in memory up to `cache_bytes`."""

    fields: tuple[str, ...] = ()

    def __init__(self, paths: Sequence[Path], *, cache_bytes: int = 2 << 30) -> None:
        self.paths = tuple(paths)
        self._cache: dict[int, Float32] = {}
        self._room = cache_bytes

    def __len__(self) -> int:
        return len(self.paths)

    def points(self, i: int) -> Float32:
        from pointlift.data.files import read

        xyz = self._cache.get(i)
        if xyz is None:
            xyz = read(self.paths[i]).xyz
            if xyz.nbytes <= self._room:
                self._room -= xyz.nbytes
                self._cache[i] = xyz
        return xyz

    def field(self, name: str, i: int) -> np.ndarray:
        raise KeyError(name)

    def counts(self) -> np.ndarray | None:
        if len(self._cache) < len(self.paths):
            return None
        return np.array([len(self._cache[i]) for i in range(len(self.paths))], dtype=np.int64)

    def read_all(self) -> None:
        """Read every file now; all files that cannot be read come in one `FileFormatError`."""
        failures: list[str] = []
        for i in range(len(self.paths)):
            try:
                self.points(i)
            except FileFormatError as error:
                failures.append(error.given + (f" (expected {error.expected.rstrip('.')})" if error.expected else ""))
        if len(failures) == 1:
            raise FileFormatError(failures[0], fix="Repair or remove this file")
        if failures:
            shown = "\n  ".join(failures[:5] + ([f"and {len(failures) - 5} more"] if len(failures) > 5 else []))
            raise FileFormatError(
                f"{len(failures)} of {len(self.paths)} files cannot be read:\n  {shown}",
                fix="Repair or remove these files",
            )

    def digest(self, indices: np.ndarray) -> Iterator[bytes]:
        for i in indices:
            yield self.paths[i].suffix.lower().encode()
            yield file_digest(self.paths[i])


class ConcatStore:
    """Several stores one after the other (the two halves of a test split, for example)."""

    def __init__(self, stores: Sequence[PointStore]) -> None:
        self.stores = tuple(stores)
        self._ends = np.cumsum([len(s) for s in self.stores])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def fields(self) -> tuple[str, ...]:
        first, *rest = (s.fields for s in self.stores)
        return tuple(name for name in first if all(name in other for other in rest))

    def _find(self, i: int) -> tuple[PointStore, int]:
        which = int(np.searchsorted(self._ends, i, side="right"))
        return self.stores[which], int(i - (self._ends[which - 1] if which else 0))

    def points(self, i: int) -> Float32:
        store, inner = self._find(i)
        return store.points(inner)

    def field(self, name: str, i: int) -> np.ndarray:
        store, inner = self._find(i)
        return store.field(name, inner)

    def counts(self) -> np.ndarray | None:
        counts = [s.counts() for s in self.stores]
        known = [c for c in counts if c is not None]
        return np.concatenate(known) if len(known) == len(counts) else None

    def digest(self, indices: np.ndarray) -> Iterator[bytes]:
        which = np.searchsorted(self._ends, indices, side="right")
        for k, store in enumerate(self.stores):
            inner = indices[which == k] - (self._ends[k - 1] if k else 0)
            if len(inner):
                yield from store.digest(inner)


def decode(array: np.ndarray, scale: float) -> Float32:
    """One stored cloud as float32 (N, 3); float64 clouds far from the origin are centred first."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 4:
        array = to_float32(array, far_offset(array))
    xyz = np.array(array, dtype=np.float32)
    if scale != 1:
        xyz *= np.float32(scale)
    return xyz


def file_digest(path: Path) -> bytes:
    """sha256 of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(HASH_BLOCK):
            digest.update(block)
    return digest.digest()


def _check_all_finite(clouds: np.ndarray, where: str | Path) -> None:
    """Every cloud of (n, N, 3) is valid; the first that is not is named by its row."""
    if clouds.dtype.kind != "f" or clouds.size == 0:
        return
    if max(-float(clouds.min()), float(clouds.max())) <= LARGEST:  # False for NaN too
        return
    for i, cloud in enumerate(clouds):
        checked_xyz(cloud, where if len(clouds) == 1 else f"{where}, cloud {i}")
