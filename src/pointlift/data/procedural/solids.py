"""Primitives: what is inside, and points that are even over the surface.

A primitive is a unit body y with a *gauge*: a function that is 1 on the surface, below 1 inside, and grows in
proportion along every ray from the centre (a torus: from its ring). An affine map takes it into the shape. The gauge
makes displacement exact: the surface moves along the rays by 1 + h, and a point is inside where gauge < 1 + h.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from pointlift.data.procedural.displacement import Displacement
from pointlift.data.procedural.exact import circle, cofactor, column, dot, length, linear

INSIDE = 1 - 1e-5
"""A surface's own points lie on it up to rounding: the margin keeps their own body from hiding them."""

Place = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Patch:
    """A piece of a unit body's surface.

    Attributes:
        area: Its area.
        spread: Mean squares of the three components of its normals: with them the mapped area is estimated.
        place: u, v in [0, 1), (m,), and circle(v), (2, m) → points (3, m) and area vectors (3, m) or (3, 1): normals,
            as long as the area that u and v stand for (mean 1).
    """

    area: float
    spread: tuple[float, float, float]
    place: Place


def _gauge_box(y: np.ndarray, form: float) -> np.ndarray:
    return np.abs(y).max(axis=0)


def _gauge_ball(y: np.ndarray, form: float) -> np.ndarray:
    return length(y)


def _gauge_cone(y: np.ndarray, form: float) -> np.ndarray:
    radius = np.sqrt(y[0] * y[0] + y[1] * y[1])
    side = (radius + (0.5 - 0.5 * form) * y[2]) * (2 / (1 + form))
    return np.maximum(np.abs(y[2]), side)


def _gauge_torus(y: np.ndarray, form: float) -> np.ndarray:
    away = np.sqrt(y[0] * y[0] + y[1] * y[1]) - 1
    return np.sqrt(away * away + y[2] * y[2]) / form


_GAUGES = {
    "box": _gauge_box,
    "ball": _gauge_ball,
    "cylinder": _gauge_cone,
    "cone": _gauge_cone,
    "torus": _gauge_torus,
}


def _place_face(axis: int, side: float, u: np.ndarray, v: np.ndarray, turn: np.ndarray) -> tuple:
    p, n = np.empty((3, len(u)), u.dtype), np.zeros((3, 1), u.dtype)
    p[axis] = n[axis] = side
    p[axis - 2], p[axis - 1] = 2 * u - 1, 2 * v - 1
    return p, n


def place_ball(u: np.ndarray, v: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Even points of the unit sphere (3, m), twice: they are their own normals."""
    p = np.empty((3, len(u)), u.dtype)
    p[2] = z = 2 * u - 1
    np.multiply(turn, np.sqrt(1 - z * z), out=p[:2])
    return p, p


def _place_cone_side(taper: float, u: np.ndarray, v: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Even over the side: how far up, t, comes from the quadratic that the area below t is."""
    t = u * (1 + taper) / (1 + np.sqrt(1 - u * (1 - taper * taper)))
    slope = 0.5 * (1 - taper)
    scale = 1 / math.sqrt(1 + slope * slope)
    p, n = np.empty((2, 3, len(u)), u.dtype)
    np.multiply(turn, 1 - (1 - taper) * t, out=p[:2])
    np.multiply(turn, scale, out=n[:2])
    p[2], n[2] = 2 * t - 1, slope * scale
    return p, n


def _place_disc(radius: float, side: float, u: np.ndarray, v: np.ndarray, turn: np.ndarray) -> tuple:
    p, n = np.empty((3, len(u)), u.dtype), np.zeros((3, 1), u.dtype)
    np.multiply(turn, radius * np.sqrt(u), out=p[:2])
    p[2] = n[2] = side
    return p, n


def _place_torus(tube: float, u: np.ndarray, v: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angles are even; the outside of the tube is longer than the inside, which the area vectors say."""
    out, up = circle(u)
    radius = 1 + tube * out
    p, n = np.empty((2, 3, len(u)), u.dtype)
    np.multiply(turn, radius, out=p[:2])
    np.multiply(turn, out * radius, out=n[:2])
    p[2], n[2] = tube * up, up * radius
    return p, n


_EVEN = (1 / 3, 1 / 3, 1 / 3)
_UP = (0.0, 0.0, 1.0)
_FACES = tuple(
    Patch(4.0, (float(k == 0), float(k == 1), float(k == 2)), partial(_place_face, k, side))
    for k in range(3)
    for side in (-1.0, 1.0)
)
_BALL = (Patch(4 * math.pi, _EVEN, place_ball),)
_BOTTOM = Patch(math.pi, _UP, partial(_place_disc, 1.0, -1.0))


def patches(kind: str, form: float) -> Sequence[Patch]:
    """The surface of a unit body; `form` is a cone's taper or a torus' tube radius."""
    if kind == "box":
        return _FACES
    if kind == "ball":
        return _BALL
    if kind == "torus":
        return (Patch(4 * math.pi * math.pi * form, _EVEN, partial(_place_torus, form)),)
    slope = 0.5 * (1 - form)
    square = 1 + slope * slope
    spread = (0.5 / square, 0.5 / square, slope * slope / square)
    side = Patch(2 * math.pi * (1 + form) * math.sqrt(square), spread, partial(_place_cone_side, form))
    if form == 0:
        return side, _BOTTOM
    return side, _BOTTOM, Patch(math.pi * form * form, _UP, partial(_place_disc, form, 1.0))


class Solid:
    """A primitive in its place.

    Args:
        kind: One of `KINDS`.
        form: A cone's radius at the top over that at the bottom (1 for cylinders), a torus' tube radius (its ring
            has radius 1), unused otherwise.
        matrix: (3, 3) with positive determinant: half extents, shear and rotation.
        center: (3,).
        displacement: Moves the surface along the rays from the centre; not for tori.

    Attributes:
        patches: The pieces of its surface.
        areas: Estimates of their mapped areas, without displacement.
    """

    def __init__(
        self, kind: str, form: float, matrix: np.ndarray, center: np.ndarray, displacement: Displacement | None = None
    ) -> None:
        self.kind, self.form, self.matrix, self.center, self.displacement = kind, form, matrix, center, displacement
        self._shift = column(center)
        self._cofactor = cofactor(matrix)
        (a, b, c), (d, e, f) = matrix[0].tolist(), self._cofactor[0].tolist()
        self._inverse = self._cofactor.T / (a * d + b * e + c * f)
        self.patches = patches(kind, form)
        stretch = dot(self._cofactor, self._cofactor).tolist()
        self.areas = [p.area * math.sqrt(p.spread[0] * stretch[0] + p.spread[1] * stretch[1] + p.spread[2] * stretch[2])
                      for p in self.patches]  # fmt: skip

    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner (3,) of a box around it, not always the smallest."""
        tall = self.form if self.kind == "torus" else 1.0
        wide = 1.0 + self.form if self.kind == "torus" else 1.0
        m = np.abs(self.matrix)
        reach = (m[:, 0] * wide + m[:, 1] * wide) + m[:, 2] * tall
        if self.displacement is not None:
            reach = reach * (1 + self.displacement.height)
        return self.center - reach, self.center + reach

    def inside(self, xyz: np.ndarray) -> np.ndarray:
        """Which points (3, n) lie inside, (n,) bool; the surface itself does not count."""
        y = linear(self._inverse, xyz - self._shift)
        gauge = _GAUGES[self.kind](y, self.form)
        if self.displacement is None:
            return gauge < INSIDE
        hidden = gauge < 1 - self.displacement.height
        near = np.flatnonzero(~hidden & (gauge < 1 + self.displacement.height))
        if len(near):
            on_ray = y.take(near, axis=1) / gauge[near]
            hidden[near] = gauge[near] < (1 + self.displacement(on_ray)) * INSIDE
        return hidden

    def toward(self, directions: np.ndarray) -> np.ndarray:
        """Points of the surface (3, n) on rays (3, n) from the centre, or for a torus from its ring."""
        if self.kind == "torus":
            flat = directions * column([1, 1, 0])
            p = flat / length(flat) + self.form * directions / length(directions)
        else:
            p = directions / _GAUGES[self.kind](directions, self.form)
            if self.displacement is not None:
                p = p * (1 + self.displacement(p))
        return linear(self.matrix, p) + self._shift

    def sample(
        self, counts: Sequence[int], u: np.ndarray, v: np.ndarray, turn: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Points of the surface.

        Args:
            counts: How many on each of `patches`.
            u: (m,) uniform numbers, m = sum of counts.
            v: (m,) as well.
            turn: (2, m), circle(v).

        Returns:
            xyz (3, m) and area vectors (3, m): outward normals, as long as the area that a point stands for.
        """
        p, area = np.empty((2, 3, len(u)), u.dtype)
        first = 0
        for patch, count in zip(self.patches, counts, strict=True):
            rows = slice(first, first + count)
            if count:
                p[:, rows], normal = patch.place(u[rows], v[rows], turn[:, rows])
                normal = normal * (patch.area / count)
                area[:, rows] = normal if self.displacement is not None else linear(self._cofactor, normal)
            first += count
        if self.displacement is not None:
            p, area = _displaced(p, area, self.displacement)
            area = linear(self._cofactor, area)
        p = linear(self.matrix, p)
        p += self._shift
        return p, area


def _displaced(p: np.ndarray, area: np.ndarray, displacement: Displacement) -> tuple[np.ndarray, np.ndarray]:
    """Points moved to (1 + h) p, area vectors carried along by the cofactors of that map's derivative."""
    h, gradient = displacement.with_gradient(p)
    s = 1 + h
    # The derivative is s·1 + p·∇hᵀ, and its cofactors applied to a are s·((s + p·∇h) a − (p·a) ∇h).
    carried = (s * (s + dot(p, gradient))) * area - (s * dot(p, area)) * gradient
    return p * s, carried
