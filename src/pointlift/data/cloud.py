"""One point cloud in memory, and the one place that says which coordinates are acceptable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointlift.core.errors import DataError, FileFormatError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

# float32 keeps about 7 digits: beyond these, a cloud far from the origin would lose its shape.
# Beyond thousands of units from the origin 100 times its extent is far; nearer, where nobody expects coordinates to
# change, only what float32 would harm.
FAR_UNITS, FAR_RATIO, NEAR_RATIO = 1_000.0, 100.0, 1_000.0
LARGEST = 1e30  # squares of larger coordinates do not fit float32 arithmetic even after centring


@dataclass(frozen=True)
class PointCloud:
    """One cloud as read from a file.

    Args:
        xyz: Coordinates, float32 (N, 3), finite, N >= 1.
        feats: Per-point arrays with N rows, by name: `colors` uint8 (N, 3), `normals` float32 (N, 3), `intensity`
            (N,), `semantic`, `instance`, `part`, `label` int64 (N,), and whatever else the file holds.
        path: The file it came from.
        meta: What the file says besides: `faces` and `vertices` of a mesh, and `sampled` where points were drawn on
            it; `no_return`, how many rays without an echo were left out (PCD).
        offset: float64 (3,) to add to `xyz` for the coordinates of the file; zero unless these are so far
            from the origin that float32 would lose the shape (UTM, for example).
    """

    xyz: Float32
    feats: Mapping[str, np.ndarray] = field(default_factory=dict)
    path: Path | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    offset: Float64 = field(default_factory=lambda: np.zeros(3))

    @classmethod
    def from_array(
        cls,
        xyz: np.ndarray,
        where: str | Path,
        *,
        feats: Mapping[str, np.ndarray] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> PointCloud:
        """A cloud from coordinates (N, 3) of any real dtype: checked, centred when far from the origin."""
        checked = checked_xyz(xyz, where)
        offset = far_offset(checked)
        path = where if isinstance(where, Path) else None
        return cls(to_float32(checked, offset), dict(feats or {}), path, dict(meta or {}), offset)

    def __len__(self) -> int:
        return len(self.xyz)

    @property
    def world_xyz(self) -> Float64:
        """float64 (N, 3): the coordinates as the file has them."""
        return self.xyz.astype(np.float64) + self.offset


def checked_xyz(array: np.ndarray, where: str | Path) -> np.ndarray:
    """`array` when it is a usable set of coordinates, else a `FileFormatError` that names `where`.

    The rules: a real number type, shape (N, 3), at least one point, finite, no magnitude over 1e30.
    """
    if array.dtype.kind not in "fiu":
        raise FileFormatError(f"{where}: coordinates of type {array.dtype}", "integers or floating-point numbers")
    if array.ndim != 2 or array.shape[1] != 3:
        raise FileFormatError(f"{where}: coordinates of shape {array.shape}", "(N, 3): one row x y z per point")
    if len(array) == 0:
        raise FileFormatError(f"{where}: the cloud has no points", "at least one point")
    if array.dtype.kind == "f":
        _check_finite(array, where)
    return array


def _check_finite(array: np.ndarray, where: str | Path) -> None:
    largest = max(-float(array.min()), float(array.max()))
    if largest <= LARGEST:  # False for NaN: a NaN anywhere shows in the extremes
        return
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        first = int(np.argmax(bad))
        raise FileFormatError(
            f"{where}: {int(bad.sum())} of {len(array)} points have NaN or infinite coordinates, "
            f"the first is row {first} (counted from 0)",
            "finite numbers",
            "Remove these points (scanners write NaN for rays without an echo)",
        )
    raise FileFormatError(f"{where}: a coordinate of {largest:.3g}", f"magnitudes up to {LARGEST:.0e}")


def far_offset(xyz: np.ndarray) -> Float64:
    """float64 (3,): what to subtract so that float32 keeps the shape; zero for clouds near the origin."""
    low, high = xyz.min(axis=0).astype(np.float64), xyz.max(axis=0).astype(np.float64)
    middle = (low + high) / 2
    distance, extent = float(np.abs(middle).max()), float((high - low).max())
    if distance > FAR_RATIO * extent and (distance > FAR_UNITS or distance > NEAR_RATIO * extent > 0):
        return np.round(middle)
    return np.zeros(3)


def to_float32(xyz: np.ndarray, offset: Float64) -> Float32:
    """`xyz - offset` in float64, as contiguous float32 (N, 3)."""
    if offset.any():
        xyz = xyz.astype(np.float64) - offset
    return np.ascontiguousarray(xyz, dtype=np.float32)


def check_rows(feats: Mapping[str, np.ndarray], num_points: int, where: str | Path) -> None:
    """Every array of `feats` has one row per point, else `DataError`."""
    for name, values in feats.items():
        if len(values) != num_points:
            raise DataError(f"{where}: {name!r} has {len(values)} rows for {num_points} points", "one row per point")
