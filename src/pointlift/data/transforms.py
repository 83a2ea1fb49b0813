"""Geometry of single clouds, in numpy: pure functions of arrays and of a generator that is passed in.

Every function returns new arrays; coordinates are float32 (N, 3).
"""

from __future__ import annotations

import math

import numpy as np

from pointlift.core.errors import UsageError
from pointlift.data.cloud import Float32, Float64
from pointlift.data.config import Axis

AXES: dict[str, int] = {"x": 0, "y": 1, "z": 2}


def center(xyz: Float32) -> Float32:
    """Move the centroid to the origin."""
    return _centered_rows(xyz).T.astype(np.float32, order="C")


def normalize_unit_sphere(xyz: Float32) -> Float32:
    """Centroid to the origin, largest radius 1; identical points all become the origin."""
    rows = _centered_rows(xyz)
    radius = math.sqrt(np.einsum("ij,ij->j", rows, rows).max())
    if radius > 0:
        rows /= radius
    return rows.T.astype(np.float32, order="C")


def _centered_rows(xyz: Float32) -> Float64:
    """float64 (3, N) without the mean: one contiguous row per axis is four times faster than (N, 3)."""
    rows = np.ascontiguousarray(xyz.T, dtype=np.float64)
    rows -= np.add.reduce(rows, axis=1, keepdims=True) / rows.shape[1]
    return rows


def normalize(xyz: Float32, how: str) -> Float32:
    """`how` as in `DataConfig.normalize`: "unit_sphere", "center" or "none"."""
    if how == "unit_sphere":
        return normalize_unit_sphere(xyz)
    return center(xyz) if how == "center" else xyz


def rotation(angle: float, axis: Axis | None) -> Float32:
    """(3, 3) rotation by `angle` radians about `axis`; `xyz @ rotation(...)` turns right-handed.

    Raises:
        UsageError: The up axis of the data set is not known.
    """
    if axis is None:
        raise UsageError(
            "rotation about the up axis of a data set whose up axis is unknown", "x, y or z",
            "Pass --data.up_axis z (or whichever points up), or --data.augment.rotate 0",
        )  # fmt: skip
    i, j = (AXES[axis] + 1) % 3, (AXES[axis] + 2) % 3
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = np.eye(3, dtype=np.float32)
    matrix[i, i] = matrix[j, j] = cos
    matrix[i, j], matrix[j, i] = sin, -sin
    return matrix


def random_tilt(rng: np.random.Generator, degrees: float) -> Float32:
    """(3, 3) rotation about an axis of any direction by an angle within plus or minus `degrees`."""
    x, y, z = (axis := rng.standard_normal(3)) / max(float(np.linalg.norm(axis)), 1e-12)
    angle = random_angle(rng, degrees)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turned = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross  # Rodrigues
    return turned.astype(np.float32)


def random_angle(rng: np.random.Generator, degrees: float) -> float:
    """Radians, uniform within plus or minus `degrees`."""
    return math.radians(rng.uniform(-degrees, degrees))


def random_scale(rng: np.random.Generator, bounds: tuple[float, float], *, anisotropic: bool) -> Float32:
    """(3,) factors, uniform within `bounds`: one per axis, or the same three times."""
    if anisotropic:
        return rng.uniform(*bounds, size=3).astype(np.float32)
    return np.full(3, rng.uniform(*bounds), dtype=np.float32)


def scale_and_shift(xyz: Float32, factors: Float32, shift: Float32) -> Float32:
    """`xyz * factors + shift`, both (3,)."""
    moved = np.empty_like(xyz)
    for axis in range(3):  # three columns: numpy is slow where the last axis has 3 entries
        np.multiply(xyz[:, axis], factors[axis], out=moved[:, axis])
        moved[:, axis] += shift[axis]
    return moved


def random_shift(rng: np.random.Generator, largest: float) -> Float32:
    """(3,) uniform within plus or minus `largest`."""
    return rng.uniform(-largest, largest, size=3).astype(np.float32)


def scale_normals(normals: np.ndarray, factors: Float32) -> Float32:
    """Unit normals (N, 3) of a surface whose coordinates were multiplied by `factors`."""
    scaled = normals / factors
    length = np.linalg.norm(scaled, axis=1, keepdims=True)
    return np.divide(scaled, length, out=scaled, where=length > 0).astype(np.float32)


def jitter(xyz: Float32, rng: np.random.Generator, sigma: float, clip: float) -> Float32:
    """Add Gaussian noise to every coordinate, cut at plus or minus `clip`."""
    noise = rng.standard_normal(xyz.shape, dtype=np.float32) * np.float32(sigma)
    return xyz + np.clip(noise, -clip, clip)


def dropped_rows(rng: np.random.Generator, num_points: int, largest: float) -> np.ndarray:
    """Rows (N,) in which a random share of at most `largest` is replaced by row 0."""
    rows = np.arange(num_points)
    rows[rng.random(num_points) < rng.uniform(0, largest)] = 0
    return rows


def subset_rows(rng: np.random.Generator, available: int, num: int, *, shuffle: bool = True) -> np.ndarray:
    """`num` rows of `available`: without replacement while there are enough.

    With fewer, every point comes `num // available` times and a random few of them once more. `shuffle=False`
    keeps the stored order.
    """
    if num <= available:
        if num == available and not shuffle:
            return np.arange(num)
        rows = rng.permutation(available)[:num]
        return rows if shuffle else np.sort(rows)
    copies, rest = divmod(num, available)
    rows = np.concatenate([np.tile(np.arange(available), copies), rng.permutation(available)[:rest]])
    return rng.permutation(rows) if shuffle else np.sort(rows)
