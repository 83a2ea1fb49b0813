"""One unlabelled cloud: compose, sample, centre, scale."""

from __future__ import annotations

import numpy as np

from pointlift.core.errors import DataError
from pointlift.core.seeds import generator
from pointlift.data.procedural.config import ProceduralConfig
from pointlift.data.procedural.exact import length, total
from pointlift.data.procedural.program import Program, draw_program
from pointlift.data.procedural.surface import sample_program
from pointlift.data.shapes.draw import Draw

ATTEMPTS = 50
_THINNEST = 0.08
_DEFAULT = ProceduralConfig()


def make_shape(index: int, config: ProceduralConfig = _DEFAULT, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Shape `index` of the endless series of a seed: the same bits in any process, order and machine.

    Args:
        index: 0, 1, 2, ….
        config: How shapes are made.
        seed: Another seed gives another series.

    Returns:
        xyz (N, 3) float32, its centroid at the origin and its farthest point at distance 1, and outward unit normals
        (N, 3) float32, both in random order: any first n points are even over the surface.

    Raises:
        DataError: The configuration gives hardly anything but degenerate shapes.
    """
    return make_with_program(index, config, seed)[1:]


def make_with_program(index: int, config: ProceduralConfig, seed: int) -> tuple[Program, np.ndarray, np.ndarray]:
    """The same, with what the shape is made of (in its coordinates before centring and scaling) in front."""
    for attempt in range(ATTEMPTS):
        rng = stream(seed, index, attempt)
        program = draw_program(config, Draw(rng))
        made = cloud_of(program, config.points, rng)
        if made is not None:
            return program, *made
    raise degenerate(index, seed)


def stream(seed: int, index: int, attempt: int) -> np.random.Generator:
    """What shape `index` of a seed is drawn from."""
    return generator(seed, "procedural", index, attempt)


def cloud_of(program: Program, points: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
    """Points (N, 3) of a program, centred and scaled, and their normals (N, 3); None where it is cut away or thin."""
    made = sample_program(program, points, rng)
    if made is None or _is_thin(made[0]):
        return None
    xyz, normals = made
    xyz = xyz.astype(np.float64) - np.array([[total(row) / len(row)] for row in xyz])
    xyz /= length(xyz).max()
    return np.ascontiguousarray(xyz.T, np.float32), np.ascontiguousarray(normals.T, np.float32)


def degenerate(index: int, seed: int) -> DataError:
    """The error of a shape that cannot be made."""
    return DataError(
        f"procedural shape {index} of seed {seed}: {ATTEMPTS} draws in a row were degenerate",
        "a configuration whose shapes are neither thin nor cut away",
        "Use more primitives, or smaller cutters",
    )


def _is_thin(xyz: np.ndarray) -> bool:
    """A sheet or a needle: the box around it is much shorter one way than another."""
    extent = xyz.max(axis=1) - xyz.min(axis=1)
    return bool(extent.min() < _THINNEST * extent.max())
