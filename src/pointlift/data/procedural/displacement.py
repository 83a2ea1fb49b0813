"""Smooth noise that moves a surface."""

from __future__ import annotations

import numpy as np

from pointlift.data.procedural.exact import direction
from pointlift.data.shapes.draw import Draw

_OCTAVES = ((2, 0.3, 0.8, 0.3), (2, 1.0, 2.0, 0.2))
"""Waves, fewest and most periods per unit of length, share of the height each; the shares add up to about 1."""


class Displacement:
    """A height h(p) for every point p of a surface: plane waves in random directions, of two scales.

    A wave is made of parabolas instead of a sine (why: see `exact`); its slope is continuous, so normals are too.

    Args:
        height: |h| never exceeds it.
        draw: Gives directions, frequencies and phases.
    """

    def __init__(self, height: float, draw: Draw) -> None:
        self.height = height
        waves = [
            (*(direction(draw) * draw.uniform(low, high)).tolist(), draw.unit(), share * height)
            for count, low, high, share in _OCTAVES
            for _ in range(count)
        ]
        *self._frequency, self._phase, self._amount = np.array(waves, dtype=np.float32).T[:, :, None]

    def _waves(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far each wave (W, n) is past the middle of its period, -1/2 to 1/2, and the absolute value of that."""
        fx, fy, fz = self._frequency
        t = fx * p[0]
        t += fy * p[1]
        t += fz * p[2]
        t += self._phase
        t -= np.floor(t)
        t -= 0.5
        return t, np.abs(t)

    def __call__(self, p: np.ndarray) -> np.ndarray:
        """h at points (3, n) → (n,)."""
        t, away = self._waves(p)
        return _sum(self._amount * (t * (8 - 16 * away)))

    def with_gradient(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """h (n,) and its gradient (3, n) at points (3, n)."""
        t, away = self._waves(p)
        slope = self._amount * (8 - 32 * away)
        gradient = np.stack([_sum(f * slope) for f in self._frequency])
        return _sum(self._amount * (t * (8 - 16 * away))), gradient


def _sum(waves: np.ndarray) -> np.ndarray:
    """(W, n) → (n,), from the first row to the last."""
    out = waves[0]
    for row in waves[1:]:
        out += row
    return out
