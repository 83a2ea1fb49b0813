"""Wireframes: the edges of a primitive as round bars and rings of one thickness."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pointlift.data.procedural.exact import across, circle, column, dot, linear
from pointlift.data.procedural.solids import place_ball
from pointlift.data.shapes.draw import Draw

_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)
_EDGES = [(i, i | bit) for i in range(8) for bit in (1, 2, 4) if not i & bit]
_INSIDE = 1 - 1e-3
"""As `solids.INSIDE`, for the squares of distances from bars that are thin beside their coordinates."""

Vector = Sequence[float]


class Wireframe:
    """Straight bars, rings, and knobs where bars meet, all of one thickness.

    The points of all bars are numbered through along their lengths, those of all rings as well: one uniform number
    tells the bar and the place on it, and all bars are sampled and tested at once.

    Args:
        kind: The primitive whose edges they are.
        center: (3,).
        turn: Rotation (3, 3) from the primitive's axes, in which bars, knobs and rings are given.
        radius: Of the bars.
        bars: Pairs of ends.
        knobs: Corners that no ring closes.
        rings: Centre, axis (a unit vector) and radius of each.

    Attributes:
        areas: Areas of all bars, all knobs and all rings.
    """

    def __init__(
        self,
        kind: str,
        center: np.ndarray,
        turn: np.ndarray,
        radius: float,
        bars: Sequence[tuple[Vector, Vector]],
        knobs: Sequence[Vector],
        rings: Sequence[tuple[Vector, Vector, float]],
    ) -> None:
        def put(points: Sequence[Vector]) -> np.ndarray:
            turned = linear(turn, np.array(points, dtype=np.float64).reshape(-1, 3).T)
            return (turned + center[:, None]).astype(np.float32)

        def turned(vectors: Sequence[Vector]) -> np.ndarray:
            return linear(turn, np.array(vectors, dtype=np.float64).reshape(-1, 3).T).astype(np.float32)

        self.kind, self.center, self.radius = kind, center, radius
        self._from, self._along = (
            put([a for a, _ in bars]),
            turned([[q - p for p, q in zip(a, b, strict=True)] for a, b in bars]),
        )
        self._bars = np.sqrt(dot(self._along, self._along))
        self._bar_frame = _frames(self._along / self._bars)
        self._knobs = put(knobs)
        self._centers, self._axes = put([c for c, _, _ in rings]), turned([a for _, a, _ in rings])
        self._rings = np.array([r for _, _, r in rings], dtype=np.float32)
        self._ring_frame = _frames(self._axes)
        around = 2 * math.pi * radius
        self.areas = [
            around * sum(self._bars.tolist()),
            2 * around * radius * len(knobs),
            around * 2 * math.pi * sum(self._rings.tolist()),
        ]
        ends = np.concatenate([self._from, self._from + self._along], axis=1) - column(center)
        reach = [0.0, *np.sqrt(dot(ends, ends)).tolist()]
        offset = self._centers - column(center)
        reach += (np.sqrt(dot(offset, offset)) + self._rings).tolist()
        self._reach = max(reach) + radius

    def inside(self, xyz: np.ndarray) -> np.ndarray:
        """Which points (3, n) lie inside some bar or ring, (n,) bool; knobs are covered by the bars that meet there."""
        hidden = np.zeros(xyz.shape[1], dtype=bool)
        away = xyz - column(self.center)
        near = np.flatnonzero(dot(away, away) < self._reach * self._reach)
        if not len(near):
            return hidden
        close = xyz.take(near, axis=1)[:, None]  # (3, 1, n) against (3, bars, 1)
        square = self.radius * self.radius * _INSIDE
        found = np.zeros(len(near), dtype=bool)
        if len(self._bars):
            along = self._along[:, :, None]
            away = close - self._from[:, :, None]
            t = dot(away, along / (self._bars * self._bars)[:, None])
            away -= np.minimum(np.maximum(t, 0), 1) * along
            found |= (dot(away, away) < square).any(axis=0)
        if len(self._rings):
            away = close - self._centers[:, :, None]
            up = dot(away, self._axes[:, :, None])
            up *= up
            out = np.sqrt(np.maximum(dot(away, away) - up, 0)) - self._rings[:, None]
            found |= (out * out + up < square).any(axis=0)
        hidden[near] = found
        return hidden

    def sample(
        self, counts: Sequence[int], u: np.ndarray, v: np.ndarray, turn: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Points (3, m) and area vectors (3, m) on bars, knobs and rings, as many as `counts`; see `Solid.sample`."""
        xyz, area = np.empty((2, 3, len(u)), u.dtype)
        first = 0
        for place, count, total in zip(
            (self._on_bars, self._on_knobs, self._on_rings), counts, self.areas, strict=True
        ):
            rows = slice(first, first + count)
            if count:
                at, area[:, rows] = place(u[rows], v[rows], turn[:, rows])
                xyz[:, rows] = at
                area[:, rows] *= total / count
            first += count
        return xyz, area

    def _on_bars(self, u: np.ndarray, v: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        k, t = _numbered(self._bars, u)
        normal = self._around(self._bar_frame, k, turn)
        return self._from[:, k] + t * self._along[:, k] + self.radius * normal, normal

    def _on_knobs(self, u: np.ndarray, v: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        k, t = _numbered(np.ones(self._knobs.shape[1], np.float32), u)
        normal, _ = place_ball(t, v, turn)
        return self._knobs[:, k] + self.radius * normal, normal

    def _on_rings(self, u: np.ndarray, v: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        k, t = _numbered(self._rings, u)
        out, up = circle(t)
        outward = self._around(self._ring_frame, k, turn)
        normal = out * outward + up * self._axes[:, k]
        ring = self._rings[k]
        return self._centers[:, k] + ring * outward + self.radius * normal, normal * (1 + self.radius / ring * out)

    @staticmethod
    def _around(frame: np.ndarray, k: np.ndarray, turn: np.ndarray) -> np.ndarray:
        return turn[0] * frame[0][:, k] + turn[1] * frame[1][:, k]


def _frames(axes: np.ndarray) -> np.ndarray:
    """Two unit vectors across each of the axes (3, k), (2, 3, k)."""
    pairs = [np.concatenate(across(axis), axis=1).T for axis in axes.T.tolist()]
    return np.array(pairs, dtype=np.float32).reshape(-1, 2, 3).transpose(1, 2, 0)


def _numbered(lengths: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """u in [0, 1) along all lengths (k,) laid end to end: which one, and how far along it, 0 to 1."""
    ends = np.cumsum(lengths)
    at = u * ends[-1]
    k = np.minimum(np.searchsorted(ends, at, side="right"), len(ends) - 1)
    return k, np.minimum(np.maximum((at - (ends - lengths)[k]) / lengths[k], 0), 1)


def wireframe(
    kind: str, center: np.ndarray, turn: np.ndarray, half: Sequence[float], radius: float, draw: Draw
) -> Wireframe:
    """The edges of a primitive; a smooth surface gets a grid of them, as a modelling program would show it.

    Args:
        kind: One of `KINDS`.
        center: (3,).
        turn: Rotation (3, 3).
        half: Half extents of a box; others are round and use the first (radius) and the third (half height).
        radius: Of the bars.
        draw: Chooses how many bars and rings a round one has.
    """
    width, height = float(half[0]), float(half[2])
    bars: list[tuple[Vector, Vector]] = []
    knobs: list[Vector] = []
    rings: list[tuple[Vector, Vector, float]] = []
    up = (0.0, 0.0, 1.0)
    if kind == "box":
        corners = (_CORNERS * np.array(half)).tolist()
        bars += [(corners[i], corners[j]) for i, j in _EDGES]
        knobs += corners
    elif kind == "ball":
        rings += [((0, 0, 0), (cos, sin, 0.0), width) for cos, sin in _around(draw.count(2, 4), half=True)]
        for z in ((0.0,), (-0.5, 0.5), (-0.6, 0.0, 0.6))[draw.count(0, 2)]:
            rings.append(((0, 0, z * width), up, width * math.sqrt(1 - z * z)))
    elif kind == "torus":
        tube = width * draw.uniform(0.25, 0.45)
        big = width - tube
        rings += [((big * cos, big * sin, 0), (-sin, cos, 0.0), tube) for cos, sin in _around(draw.count(4, 8))]
        rings += [((0, 0, tube * rise), up, big + tube * out) for out, rise in _around(draw.count(3, 4))]
    else:
        top = 0.0 if kind == "cone" else width
        rings.append(((0, 0, -height), up, width))
        for cos, sin in _around(draw.count(4, 8)):
            bars.append(((width * cos, width * sin, -height), (top * cos, top * sin, height)))
        if kind == "cone":
            knobs.append((0, 0, height))
        else:
            rings.append(((0, 0, height), up, width))
    return Wireframe(kind, center, turn, radius, bars, knobs, rings)


def _around(count: int, *, half: bool = False) -> list[tuple[float, float]]:
    """(cos, sin) of evenly spaced angles, all the way or half the way round."""
    cos, sin = circle(np.arange(count) / (2 * count if half else count))
    return list(zip(cos.tolist(), sin.tolist(), strict=True))
