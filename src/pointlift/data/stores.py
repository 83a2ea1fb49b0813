"""Where the points of a data set lie: arrays of one size, packed arrays, or files.

A store answers `points(i)` with one cloud, decoded on demand, so that 10,000 clouds stay int16 in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from pointlift.core.errors import DataError, FileFormatError, unknown_name
from pointlift.data.cloud import LARGEST, Float32, PointCloud, checked_xyz, far_offset, to_float32

HASH_BLOCK = 1 << 22
# What a set notes of itself whose files are too many bytes to read at every start.
NAMES_AND_SIZES = "content hash covers names and sizes of files, not their bytes"


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
            if values.shape[:2] != array.shape[:2] or values.dtype.kind not in "biuf":
                raise DataError(
                    f"{where}: {name!r} of shape {values.shape} and type {values.dtype}",
                    f"numbers of shape {array.shape[:2]} like the points",
                )
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
            if values.shape[:1] != array.shape[:1] or values.dtype.kind not in "biuf":
                raise DataError(
                    f"{where}: {name!r} of shape {values.shape} and type {values.dtype}",
                    f"numbers with {len(array)} rows like the points",
                )
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


class ListStore:
    """Clouds held as one array each, with columns x y z and then, where there are six, the normals.

    Args:
        clouds: One array (N_i, 3 or 6) of any real dtype per cloud, kept as they are (views of a file, for example);
            checked when asked for.
        where: The file, for messages.
    """

    def __init__(self, clouds: Sequence[np.ndarray], *, where: str | Path = "arrays") -> None:
        self.clouds, self.where = clouds, where
        for i, cloud in enumerate(clouds):
            if cloud.ndim != 2 or cloud.shape[1] not in (3, 6) or len(cloud) == 0 or cloud.dtype.kind not in "fiu":
                raise DataError(
                    f"{where}: cloud {i} of shape {cloud.shape} and type {cloud.dtype}", "numbers of shape (N, 3 or 6)"
                )
        self.fields: tuple[str, ...] = ("normals",) if clouds and all(c.shape[1] == 6 for c in clouds) else ()

    def __len__(self) -> int:
        return len(self.clouds)

    def points(self, i: int) -> Float32:
        return decode(checked_xyz(self.clouds[i][:, :3], f"{self.where}, cloud {i}"), 1.0)

    def field(self, name: str, i: int) -> np.ndarray:
        if name not in self.fields:
            raise unknown_name("per-point array", name, self.fields)
        return np.array(self.clouds[i][:, 3:], dtype=np.float32)

    def counts(self) -> np.ndarray:
        return np.array([len(cloud) for cloud in self.clouds], dtype=np.int64)

    def digest(self, indices: np.ndarray) -> Iterator[bytes]:
        for i in indices:
            cloud = self.clouds[i]
            yield f"{cloud.shape} {cloud.dtype.newbyteorder('<').str}".encode()
            yield little_endian(cloud).tobytes()


class FileStore:
    """One file per cloud, read when asked for; the decoded clouds stay in memory up to `cache_bytes`.

    Args:
        paths: The files.
        fields: Per-point arrays that every file holds (`feats` of what is read).
        offered: Arrays that become fields once it is known that they are there: in every file (`read_all`), or in the
            first, which then speaks for all (`read_first`).
        reader: Reads one file; by default `read`, by the file's ending.
        cache_bytes: How much memory decoded clouds may take.
        hash_bytes: The content hash covers the bytes of the files; without, their names and sizes: for sets of
            many gigabytes, whose reading would delay every start (they note `NAMES_AND_SIZES`).
        sampling: What the content depends on besides the files (points and seed on meshes), for the hash.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        fields: Sequence[str] = (),
        offered: Sequence[str] = (),
        reader: Callable[[Path], PointCloud] | None = None,
        cache_bytes: int = 2 << 30,
        hash_bytes: bool = True,
        sampling: str = "",
    ) -> None:
        self.paths, self.fields, self._reader = tuple(paths), tuple(fields), reader
        self._required = self.fields
        self._offered, self._hash_bytes, self._sampling = tuple(offered), hash_bytes, sampling
        self._cache: dict[int, tuple[Float32, dict[str, np.ndarray]]] = {}
        self._sizes: dict[int, int] = {}
        self._room = cache_bytes

    def __len__(self) -> int:
        return len(self.paths)

    def points(self, i: int) -> Float32:
        return self._cloud(i)[0].copy()

    def field(self, name: str, i: int) -> np.ndarray:
        if name not in self.fields:
            raise unknown_name("per-point array", name, self.fields)
        arrays = self._cloud(i)[1]
        if name not in arrays:
            raise DataError(f"{self.paths[i]} has no {name!r}", f"{name} in every file, as {self.paths[0]} has it")
        return arrays[name].copy()

    def _cloud(self, i: int) -> tuple[Float32, dict[str, np.ndarray]]:
        if i in self._cache:
            return self._cache[i]
        cloud = self.read(i)
        missing = [name for name in self._required if name not in cloud.feats]
        if missing:
            raise DataError(f"{self.paths[i]} has no {missing[0]!r}", f"{', '.join(self._required)} in every file")
        wanted = (*self.fields, *self._offered)
        kept = cloud.xyz, {name: np.asarray(cloud.feats[name]) for name in wanted if name in cloud.feats}
        self._offered = tuple(name for name in self._offered if name in cloud.feats)
        size = kept[0].nbytes + sum(values.nbytes for values in kept[1].values())
        self._sizes[i] = len(cloud)
        if size <= self._room:
            self._room -= size
            self._cache[i] = kept
        return kept

    def read(self, i: int) -> PointCloud:
        """File `i` with everything in it, from disk."""
        if self._reader is not None:
            return self._reader(self.paths[i])
        from pointlift.data.files import read

        return read(self.paths[i])

    def counts(self) -> np.ndarray | None:
        """Known once every file has been read."""
        if len(self._sizes) < len(self.paths):
            return None
        return np.array([self._sizes[i] for i in range(len(self.paths))], dtype=np.int64)

    def read_all(self) -> None:
        """Read every file now; all files that cannot be read come in one `FileFormatError`."""
        failures: list[str] = []
        for i in range(len(self.paths)):
            try:
                self._cloud(i)
            except DataError as error:
                failures.append(error.given + (f" (expected {error.expected.rstrip('.')})" if error.expected else ""))
        if not failures and self.paths:
            self._accept_offered()
        if len(failures) == 1:
            raise FileFormatError(failures[0], fix="Repair or remove this file")
        if failures:
            shown = "\n  ".join(failures[:5] + ([f"and {len(failures) - 5} more"] if len(failures) > 5 else []))
            raise FileFormatError(
                f"{len(failures)} of {len(self.paths)} files cannot be read:\n  {shown}",
                fix="Repair or remove these files",
            )

    def read_first(self) -> None:
        """Read the first file now: what it offers, all are taken to hold; a file without it is an error when asked."""
        if self.paths:
            self._cloud(0)
            self._accept_offered()

    def _accept_offered(self) -> None:
        self.fields, self._offered = (*self.fields, *self._offered), ()

    def digest(self, indices: np.ndarray) -> Iterator[bytes]:
        if self._sampling:
            yield self._sampling.encode()
        for i in indices:
            path = self.paths[i]
            companion = _companion(path)
            files = (path,) if companion is None else (path, companion)
            if self._hash_bytes:
                yield path.suffix.lower().encode()
                yield from map(file_digest, files)
            else:
                yield "".join(f"{file.parent.name}/{file.name} {_size(file)}\n" for file in files).encode()


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
    xyz = np.array(array, dtype=np.float32, order="C")
    if scale != 1:
        xyz *= np.float32(scale)
    return xyz


def _companion(path: Path) -> Path | None:
    """The file that belongs to this one (the labels of a scan), where there is one."""
    from pointlift.data.files import FORMATS, ending_of

    find = FORMATS.get(ending_of(path)).companion if ending_of(path) in FORMATS else None
    return find(path) if find else None


def file_digest(path: Path) -> bytes:
    """sha256 of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(HASH_BLOCK):
                digest.update(block)
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.digest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be read ({error.strerror or error})", "a file of the data set", "Is it complete?")


def _check_all_finite(clouds: np.ndarray, where: str | Path) -> None:
    """Every cloud of (n, N, 3) is valid; the first that is not is named by its row."""
    if clouds.dtype.kind != "f" or clouds.size == 0:
        return
    if max(-float(clouds.min()), float(clouds.max())) <= LARGEST:  # False for NaN too
        return
    for i, cloud in enumerate(clouds):
        checked_xyz(cloud, where if len(clouds) == 1 else f"{where}, cloud {i}")
