"""Vector arithmetic that gives the same bits on every machine.

Sums, products, quotients and square roots are exactly rounded everywhere; sines, BLAS products and reductions over
long arrays are not (they change with the processor's vector unit). One flipped last bit could hide or show a point,
and the rest of the cloud would follow. So shapes are made of the former alone. Points are columns, (3, n), float32
for speed: what they are multiplied with is float32 or a Python float, or numpy would work in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pointlift.data.shapes.draw import Draw

_QUARTER = math.pi / 4


def circle(turns: np.ndarray) -> np.ndarray:
    """(cos, sin) at `turns` - 1/2 turns, for turns in [0, 1], (n,) → (2, n): on the unit circle, even to 1e-6."""
    a = (turns - 0.5) * (math.pi / 2)  # a quarter of the angle: doubled twice below
    a2 = a * a
    sin = a * (1 - a2 * (1 / 6 - a2 * (1 / 120 - a2 * (1 / 5040))))
    cos = np.sqrt(1 - sin * sin)
    for _ in range(2):
        sin, cos = 2 * (sin * cos), cos * cos - sin * sin
    return np.stack([cos, sin])


def linear(matrix: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """`matrix @ columns`, (3, 3) and (3, n), in the type of the columns."""
    a, b, c = matrix.T[:, :, None].astype(columns.dtype)
    x, y, z = columns
    out = a * x
    out += b * y
    out += c * z
    return out


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Inner products of columns, (3, n) → (n,); (3, 1) stands for one vector."""
    x, y, z = a * b
    x += y
    x += z
    return x


def length(columns: np.ndarray) -> np.ndarray:
    """Lengths of columns, (3, n) → (n,)."""
    return np.sqrt(dot(columns, columns))


def total(values: np.ndarray) -> float:
    """The sum, added up from the first to the last."""
    return float(np.cumsum(values, dtype=np.float64)[-1]) if len(values) else 0.0


def cofactor(m: np.ndarray) -> np.ndarray:
    """Cofactors of (3, 3): they carry area vectors where the matrix carries points."""
    (a, b, c), (d, e, f), (g, h, i) = m.tolist()
    return np.array(
        [
            [e * i - f * h, f * g - d * i, d * h - e * g],
            [c * h - b * i, a * i - c * g, b * g - a * h],
            [b * f - c * e, c * d - a * f, a * e - b * d],
        ]
    )


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`a @ b` of two (3, 3)."""
    return linear(a, b)


def rotation(draw: Draw) -> np.ndarray:
    """A uniform rotation (3, 3), from a unit quaternion."""
    w, x, y, z = _on_sphere(4, draw)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def direction(draw: Draw) -> np.ndarray:
    """A uniform unit vector (3,)."""
    return np.array(_on_sphere(3, draw))


def _on_sphere(dimensions: int, draw: Draw) -> list[float]:
    """A uniform point of the unit sphere: a point of the ball around it, found by trial, pushed outward."""
    while True:
        point = [2 * draw.unit() - 1 for _ in range(dimensions)]
        square = 0.0
        for x in point:
            square += x * x
        if 0.01 < square <= 1:
            norm = math.sqrt(square)
            return [x / norm for x in point]


def column(vector: np.ndarray | Sequence[float]) -> np.ndarray:
    """(3,) as a float32 column (3, 1)."""
    return np.array(vector, dtype=np.float32)[:, None]


def across(axis: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Two unit columns (3, 1) at right angles to each other and to `axis`, of length 1; the three are right-handed."""
    x, y, z = axis
    u = [0.0, -z, y] if abs(x) < 0.6 else [-y, x, 0.0]
    norm = math.sqrt(u[0] * u[0] + u[1] * u[1] + u[2] * u[2])
    a, b, c = u[0] / norm, u[1] / norm, u[2] / norm
    return column([a, b, c]), column([y * c - z * b, z * a - x * c, x * b - y * a])
