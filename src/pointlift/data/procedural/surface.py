"""Points on the visible surface of a program: exactly as many as asked for, even over the area."""

from __future__ import annotations

import numpy as np

from pointlift.data.procedural.exact import circle, length, total
from pointlift.data.procedural.program import Program, inside_any

_PILOT = 0.4
"""Candidates per point in a first round that finds out what is visible."""
_LEAST = 4
"""Candidates of a patch in that round at least."""
_MARGIN = 1.1
_MOST = 12.0
"""Candidates per point in the second round: how many more than needed, and how many at most."""
_PEAK = 0.9
"""No candidate should stand for more area than a point does. This share of those of a patch really do not."""


def sample_program(program: Program, points: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
    """Draw points from the boundary of the solid that a program describes.

    Candidates fall on all patches of all pieces; those that the solid hides are dropped. A small first round tells
    how much area is visible, and so how many candidates each patch needs. Of the visible ones, points are chosen
    one by one with chances in proportion to the area that each stands for (sequential Poisson sampling: the
    smallest luck / weight come first). So any first n points are even over the area too.

    Args:
        program: What to sample.
        points: How many, N.
        rng: Stream; only `random` is called.

    Returns:
        xyz (3, N) and outward unit normals (3, N), or None when so much is hidden that an even draw would take
        more than `_MOST` candidates per point.
    """
    areas = np.array([area for piece in program.pieces for area in piece.areas])
    first = np.maximum((areas * (_PILOT * points / total(areas))).astype(np.int64), _LEAST * (areas > 0))
    pilot = _visible(program, first, rng)
    second = _needed(length(pilot[1]), pilot[2], first, points)
    if second.sum() > points * _MOST:
        return None
    rest = _visible(program, second, rng)
    xyz, area, patch = (np.concatenate(pair, axis=-1) for pair in zip(pilot, rest, strict=True))
    if len(patch) < points:
        return None
    # Both rounds told what their own candidates stand for: together each stands for less.
    own = np.repeat([0, 1], [len(pilot[2]), len(rest[2])])
    weight = length(area)
    share = np.stack([first, second])[own, patch] / (first + second)[patch]
    chosen = np.argsort(rng.random(len(weight)) / (weight * share))[:points]
    return xyz.take(chosen, axis=1), area.take(chosen, axis=1) / weight[chosen]


def _needed(weight: np.ndarray, patch: np.ndarray, counts: np.ndarray, points: int) -> np.ndarray:
    """How many more candidates each patch needs, (k,), given those of a first round: weight (m,), patch (m,)."""
    if not len(weight):
        return np.full(len(counts), np.iinfo(np.int32).max)
    of_point = total(weight) / points
    ends = np.searchsorted(patch, np.arange(len(counts)), side="right")
    needed = np.zeros(len(counts), dtype=np.int64)
    for k, (start, end) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)):
        if end > start:
            peak = np.sort(weight[start:end])[int((end - start - 1) * _PEAK)]
            needed[k] = max(int(counts[k] * (_MARGIN * peak / of_point - 1)), 0)
    return needed


def _visible(
    program: Program, counts: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates on the boundary: xyz (3, m), outward area vectors (3, m), and the patch of each (m,), rising."""
    count = int(counts.sum())
    u, v = rng.random((2, count), dtype=np.float32)
    turn = circle(v)
    xyz, area = np.empty((2, 3, count), dtype=np.float32)
    first = taken = 0
    ends = []
    for piece in program.pieces:
        mine = counts[taken : taken + len(piece.areas)].tolist()
        rows = slice(first, first + sum(mine))
        if rows.start < rows.stop:
            xyz[:, rows], area[:, rows] = piece.sample(mine, u[rows], v[rows], turn[:, rows])
        first, taken = rows.stop, taken + len(mine)
        ends.append(first)
    body, cutters = len(program.body), len(program.body) + len(program.cutters)
    of_cutters = slice(ends[body - 1], ends[cutters - 1])
    area[:, of_cutters] *= -1  # what a cutter leaves looks into the cutter
    seen = np.flatnonzero(_on_boundary(program, xyz, of_cutters))
    return xyz.take(seen, axis=1), area.take(seen, axis=1), np.repeat(np.arange(len(counts)), counts)[seen]


def _on_boundary(program: Program, xyz: np.ndarray, of_cutters: slice) -> np.ndarray:
    """Which points (3, n) of body, cutters and wires, in this order, lie on the surface of the solid, (n,) bool."""
    in_body = inside_any(program.body, xyz)
    if not program.cutters and not program.wires:
        return ~in_body
    on_cutter, on_wire = np.zeros((2, len(in_body)), dtype=bool)
    on_cutter[of_cutters] = True
    on_wire[of_cutters.stop :] = True
    keep = in_body == on_cutter
    if program.cutters:
        # Boundary of body - cutters: the body's own outside all cutters, and the cutters' inside the body.
        asked = np.flatnonzero(keep | on_wire)
        in_cutter = np.zeros(len(in_body), dtype=bool)
        in_cutter[asked] = inside_any(program.cutters, xyz.take(asked, axis=1))
        keep = np.where(on_wire, ~in_body | in_cutter, keep & ~in_cutter)
    if program.wires:
        asked = np.flatnonzero(keep)
        keep[asked] = ~inside_any(program.wires, xyz.take(asked, axis=1))
    return keep
