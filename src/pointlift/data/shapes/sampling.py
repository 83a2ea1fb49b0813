"""Points on a `Surface`: even over the visible area, with optional unevenness and missing sides."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pointlift.core.errors import DataError
from pointlift.data.shapes.surface import Surface

Warp = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Moves points (3, n) and carries area vectors (3, n) along: normals times area."""

_OVERSAMPLE = 2.0
_ROUNDS = 8


def sample_surface(
    surface: Surface,
    points: int,
    rng: np.random.Generator,
    *,
    warp: Warp | None = None,
    density: float = 0.0,
    occlusion: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw points from the visible area of a surface.

    Candidates fall on patches in proportion to an estimate of their area; those inside a solid are dropped;
    of the rest `points` are kept, each with a probability in proportion to the true area it stands for
    (weighted sampling without replacement by exponential keys), so the estimate hardly shows.

    Args:
        surface: What to sample.
        points: How many points, N.
        rng: Stream; only `random` is called.
        warp: Bends the surface; points stay even over the area after it.
        density: Unevenness: from one side of the shape's box to the opposite one the density changes by a
            factor of up to e^(2·density), along a random direction. 0 is even.
        occlusion: Up to this share of the surface, on one side at random, is missing. 0 hides nothing.

    Returns:
        xyz (3, N), normals (3, N), part (N,), in random order, float64 and int64.

    Raises:
        DataError: Hardly any of the surface is visible.
    """
    found: list[tuple[np.ndarray, ...]] = []
    total = 0
    while total * (1.0 - occlusion) < points:
        if len(found) == _ROUNDS:
            raise DataError(f"a shape with only {total} visible points", f"{points}", "Its primitives hide one another")
        found.append(_candidates(surface, int(points * _OVERSAMPLE), rng, warp))
        total += len(found[-1][2])
    if len(found) == 1:
        xyz, cross, area, part, key, order = found[0]
    else:
        xyz, cross, area, part, key, order = (np.concatenate(parts, axis=-1) for parts in zip(*found, strict=True))
    if density or occlusion:
        key = _uneven(xyz, key, rng, density, occlusion)
    chosen = np.argpartition(key, points - 1)[:points]
    chosen = chosen[np.lexsort((chosen, order[chosen]))]
    return xyz.take(chosen, axis=1), cross.take(chosen, axis=1) / area[chosen], part[chosen]


def _candidates(surface: Surface, count: int, rng: np.random.Generator, warp: Warp | None) -> tuple[np.ndarray, ...]:
    """Visible candidates: xyz, normal × area, area, part, key, order.

    The smallest keys are an even sample; flat patches come first here, and by `order` the points are shuffled again.
    """
    pick, u, v, luck = rng.random((4, count))
    flat_cross = _cross(surface.flat[1], surface.flat[2])
    flat_cross *= np.where(surface.fold, 0.5, 1.0)
    share = np.concatenate([_length(flat_cross), _round_areas(surface)])
    edges = np.cumsum(share)
    index = np.minimum(np.searchsorted(edges, pick * edges[-1], side="right"), len(share) - 1)
    is_flat = index < len(surface.fold)
    flats, rounds = np.flatnonzero(is_flat), np.flatnonzero(~is_flat)
    order = np.concatenate([flats, rounds])
    found = [(np.empty((3, 0)), np.empty((3, 0)))]
    if len(flats):
        found.append((_on_flat(surface, index[flats], u[flats], v[flats]), flat_cross.take(index[flats], axis=1)))
    if len(rounds):
        found.append(_on_round(surface, index[rounds] - len(surface.fold), u[rounds], v[rounds]))
    xyz, cross = (np.concatenate(arrays, axis=1) for arrays in zip(*found, strict=True))
    visible = np.flatnonzero(~surface.inside(xyz))
    order, xyz, cross = order[visible], xyz.take(visible, axis=1), cross.take(visible, axis=1)
    index = index[order]
    if warp is not None:
        xyz, cross = warp(xyz, cross)
    area = np.maximum(_length(cross), 1e-12)  # the tip of a cone has none, and so the largest of all keys
    part = np.concatenate([surface.flat_part, surface.round_part])[index]
    return xyz, cross, area, part, -np.log1p(-luck[order]) * share[index] / area, order


def _round_areas(surface: Surface) -> np.ndarray:
    """About the areas of the round patches: mean radius × arc × slant. Exact for cylinders and round cones."""
    c0, u0, v0, c1, u1, v1 = surface.round
    radius = np.sqrt((_square(u0 + u1) + _square(v0 + v1)) / 8)
    slant = np.sqrt(_square(c1 - c0) + (_square(u1 - u0) + _square(v1 - v0)) / 2)
    return radius * slant * (surface.arc[1] - surface.arc[0])


def _on_flat(surface: Surface, index: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    beyond = surface.fold[index] & (u + v > 1)
    u, v = np.where(beyond, 1 - u, u), np.where(beyond, 1 - v, v)
    xyz = np.empty((3, len(u)))
    for k in range(3):
        origin, e1, e2 = (column[index] for column in surface.flat[:, k])
        xyz[k] = origin + u * e1 + v * e2
    return xyz


def _on_round(surface: Surface, index: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points on round patches, and normals whose length is the area per unit of u and v.

    v becomes t so that rings are chosen by their mean radius, which makes round cones exactly even.
    """
    radius0, radius1 = (
        np.sqrt(_square(axes[0]) + _square(axes[1])) for axes in (surface.round[1:3], surface.round[4:])
    )
    start, end = radius0[index], radius1[index]
    root = np.sqrt(start * start + v * (end * end - start * start))
    v = v * (start + end) / np.maximum(start + root, 1e-12)
    first, last = surface.arc.take(index, axis=1)
    turn = (last - first) * (start + end) / np.maximum(2 * root, 1e-12)
    theta = first + (last - first) * u
    cos, sin = np.cos(theta), np.sin(theta)
    xyz, around, along = np.empty((3, 3, len(u)))
    for k in range(3):  # a coordinate at a time: temporaries stay small enough for the processor's cache
        c0, u0, v0, c1, u1, v1 = (column[index] for column in surface.round[:, k])
        u1 -= u0
        v1 -= v0
        c1 -= c0
        along[k] = c1 + cos * u1 + sin * v1
        xyz[k] = c0 + cos * u0 + sin * v0 + v * along[k]
        around[k] = (cos * (v0 + v * v1) - sin * (u0 + v * u1)) * turn
    return xyz, _cross(around, along)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross products of columns, (3, n) × (3, n) → (3, n)."""
    out = np.empty_like(a)
    out[0] = a[1] * b[2] - a[2] * b[1]
    out[1] = a[2] * b[0] - a[0] * b[2]
    out[2] = a[0] * b[1] - a[1] * b[0]
    return out


def _square(a: np.ndarray) -> np.ndarray:
    """Squared lengths of columns, (3, n) → (n,)."""
    return a[0] * a[0] + a[1] * a[1] + a[2] * a[2]


def _length(a: np.ndarray) -> np.ndarray:
    return np.sqrt(_square(a))


def _uneven(xyz: np.ndarray, key: np.ndarray, rng: np.random.Generator, density: float, occlusion: float) -> np.ndarray:
    """Keys after one side has been thinned out and another cut off; a hidden point's key is infinite."""
    draws = rng.random(6)
    low, high = (np.array([reach(row) for row in xyz])[:, None] for reach in (np.min, np.max))
    unit = (xyz - low) * (2 / np.maximum(high - low, 1e-9)) - 1
    if density:
        key = key * np.exp(density * draws[0] * (direction(draws[1], draws[2]) @ unit))
    hidden = int(len(key) * occlusion * draws[5])
    if hidden:
        depth = direction(draws[3], draws[4]) @ unit
        key = key.copy()
        key[np.argpartition(-depth, hidden - 1)[:hidden]] = np.inf
    return key


def direction(u: float, v: float) -> np.ndarray:
    """A unit vector (3,), uniform over the sphere when u and v are uniform over [0, 1)."""
    z = 2 * u - 1
    ring = np.sqrt(1 - z * z)
    return np.array([ring * np.cos(2 * np.pi * v), ring * np.sin(2 * np.pi * v), z])
