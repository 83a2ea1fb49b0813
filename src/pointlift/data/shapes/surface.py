"""What a shape is made of: tables of flat patches, round patches and solids, ready to be sampled.

Two kinds of patch are enough for boxes, prisms, sheets, cylinders, cones, discs, ellipsoids, bodies of
revolution, torus arcs and swept tubes, so one vectorised step samples a whole shape, however many primitives
it has. Both kinds stay of their kind under a linear map: a stretched shape is the same tables, stretched.

* flat: `origin + u·e1 + v·e2`, a parallelogram, or a triangle where `fold` is set (u + v ≤ 1);
* round: a ring `c + cos θ·U + sin θ·V` that moves in a straight line from one ring to another while θ runs
  over an arc. Normals are ∂θ × ∂t: outward where a profile runs up the outside of a body.

A solid hides what lies inside it (a leg's top inside a seat), so that clouds look scanned, not assembled.
Tables keep x, y and z in separate rows: numpy is several times faster on long rows than on triples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BOX, BALL, CONE = 0, 1, 2


@dataclass(frozen=True)
class Surface:
    """Patches and solids of one shape (float64 tables).

    Attributes:
        flat: (3, 3, F): origin, e1, e2; each as x, y, z.
        fold: (F,) bool: the patch is a triangle.
        flat_part: (F,) int64.
        round: (6, 3, R): c0, U0, V0, c1, U1, V1; each as x, y, z.
        arc: (2, R): first and last θ.
        round_part: (R,) int64.
        solid: (S, 4, 3): centre and three axes. A box is |x|, |y|, |z| < 1 in these axes, a ball
            x² + y² + z² < 1, a cone 0 < z < 1 and x² + y² < (1 + (taper − 1) z)².
        kind: (S,) `BOX`, `BALL` or `CONE`.
        taper: (S,): radius at z = 1 over radius at z = 0, for cones.
    """

    flat: np.ndarray
    fold: np.ndarray
    flat_part: np.ndarray
    round: np.ndarray
    arc: np.ndarray
    round_part: np.ndarray
    solid: np.ndarray
    kind: np.ndarray
    taper: np.ndarray

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner (3,) of a box around all patches (round ones count as full rings)."""
        origin, e1, e2 = self.flat
        last = np.where(self.fold, origin, origin + e1 + e2)
        c0, u0, v0, c1, u1, v1 = self.round
        reach0, reach1 = np.sqrt(u0 * u0 + v0 * v0), np.sqrt(u1 * u1 + v1 * v1)
        rings = [c0 - reach0, c0 + reach0, c1 - reach1, c1 + reach1]
        points = np.concatenate([origin, origin + e1, origin + e2, last, *rings], axis=1)
        return points.min(axis=1), points.max(axis=1)

    def scaled(self, scale: np.ndarray) -> Surface:
        """The surface stretched by `scale` (3,) along x, y and z."""
        rows = scale[:, None]
        return Surface(
            self.flat * rows,
            self.fold,
            self.flat_part,
            self.round * rows,
            self.arc,
            self.round_part,
            self.solid * scale,
            self.kind,
            self.taper,
        )

    def inside(self, xyz: np.ndarray) -> np.ndarray:
        """Which points (3, N) lie inside a solid (N,) bool; a solid's own surface does not count."""
        hidden = np.zeros(xyz.shape[1], dtype=bool)
        if not len(self.solid):
            return hidden
        # Rows are axes, so local = inverseᵀ · (p − c): all solids in one product, x rows first, then y, then z.
        inverse = np.linalg.inv(self.solid[:, 1:])
        shift = np.matmul(self.solid[:, :1], inverse)[:, 0]
        local = inverse.transpose(2, 0, 1).reshape(-1, 3) @ xyz
        local -= shift.T.reshape(-1, 1)
        x, y, z = local.reshape(3, len(self.solid), -1)
        for k, (kind, taper) in enumerate(zip(self.kind.tolist(), self.taper.tolist(), strict=True)):
            hidden |= _TESTS[kind](x[k], y[k], z[k], taper)
        return hidden


# A solid's own points sit on its boundary: the margin keeps rounding from hiding them.
_IN = 1 - 1e-6


def _in_box(x: np.ndarray, y: np.ndarray, z: np.ndarray, taper: float) -> np.ndarray:
    return np.maximum(np.maximum(np.abs(x), np.abs(y)), np.abs(z)) < _IN


def _in_ball(x: np.ndarray, y: np.ndarray, z: np.ndarray, taper: float) -> np.ndarray:
    return x * x + y * y + z * z < 0.95  # balls are drawn as at least 8 zones, whose middles lie inside


def _in_cone(x: np.ndarray, y: np.ndarray, z: np.ndarray, taper: float) -> np.ndarray:
    radius = (taper - 1) * _IN * z + _IN
    return (np.abs(z - 0.5) < 0.5 * _IN) & (x * x + y * y < radius * radius)


_TESTS = {BOX: _in_box, BALL: _in_ball, CONE: _in_cone}
