"""The grammar that shape generators are written in: `b.box(…)`, `b.bar(…)`, `b.lathe(…)`, `b.tube(…)`, …

Lengths are free (a shape is normalised at the end), z is up, x runs left to right, y front to back. Every
primitive names its part. Boxes and whole ellipsoids hide what lies inside them; bars, cylinders and straight
tubes do so where `solid=True` says that they are thick enough to matter (every solid costs time).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pointlift.core.errors import UsageError, unknown_name
from pointlift.data.shapes.surface import BALL, BOX, CONE, Surface

Vec = Sequence[float] | np.ndarray
Line = Sequence[Sequence[float]] | np.ndarray
TURN = 2 * math.pi

# Corners of the six faces of a box in half-axes: origin sign, and which axes span it, so that e1 × e2 is outward.
_FACES = (
    (0, 1, 2, 1.0),
    (1, 2, 0, 1.0),
    (2, 0, 1, 1.0),
    (0, 2, 1, -1.0),
    (1, 0, 2, -1.0),
    (2, 1, 0, -1.0),
)
_FACE_ORIGIN = np.zeros((6, 3))
_FACE_E1 = np.zeros((6, 3))
_FACE_E2 = np.zeros((6, 3))
for _row, (_normal, _first, _second, _sign) in enumerate(_FACES):
    _FACE_ORIGIN[_row, _normal] = _sign
    _FACE_ORIGIN[_row, [_first, _second]] = -1.0
    _FACE_E1[_row, _first] = 2.0
    _FACE_E2[_row, _second] = 2.0

# Triangles of a plate whose top corners are 0…3 and bottom corners 4…7.
_PLATE = np.array(
    [(0, 1, 2), (2, 3, 0), (6, 5, 4), (4, 7, 6)]
    + [t for k in range(4) for t in ((k, k + 4, (k + 1) % 4), ((k + 1) % 4 + 4, (k + 1) % 4, k + 4))]
)

# Where the axes (a, b, normal) of a drawing plane point in space; right-handed.
_PLANES = {
    "xy": np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]),
    "xz": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "yz": np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]),
}


class Builder:
    """Collects the primitives of one shape and turns them into a `Surface`.

    Args:
        parts: Names of the parts that primitives may belong to.
        first_part: Id of `parts[0]`; the others follow.
    """

    def __init__(self, parts: Sequence[str], first_part: int = 0) -> None:
        self._part_id = {name: first_part + k for k, name in enumerate(parts)}
        self._boxes: list[tuple[float, ...]] = []
        self._box_parts: list[int] = []
        self._flat: list[np.ndarray] = []
        self._folds: list[np.ndarray] = []
        self._flat_parts: list[int] = []
        self._round: list[np.ndarray] = []
        self._arcs: list[tuple[float, float]] = []
        self._round_parts: list[int] = []
        self._solids: list[tuple[float, ...]] = []
        self._kinds: list[int] = []
        self._tapers: list[float] = []

    # ---------------------------------------------------------------------------------------- flat primitives

    def box(self, center: Vec, size: Vec, *, part: str) -> None:
        """A box with edges along x, y, z."""
        x, y, z = center
        w, d, h = size
        self._add_box((x, y, z, w / 2, 0, 0, 0, d / 2, 0, 0, 0, h / 2), part, True)

    def cover(self, center: Vec, size: Vec) -> None:
        """Hide what lies in a box without adding surface: the inside of a body made of prisms or sheets."""
        (x, y, z), (w, d, h) = center, size
        self._add_solid((x, y, z, w / 2, 0, 0, 0, d / 2, 0, 0, 0, h / 2), BOX, 1.0)

    def bar(
        self, start: Vec, end: Vec, width: float, depth: float | None = None, *, part: str, solid: bool = False
    ) -> None:
        """A straight bar of rectangular section from `start` to `end`; thin, so it hides nothing by default.

        `width` lies along x and `depth` (default: the same) along y for an upright bar; for a lying one
        `width` is the horizontal edge of the section and `depth` the upright one.
        """
        along, side, up = _frame(start, end)
        mid = [(a + b) / 2 for a, b in zip(start, end, strict=True)]
        half = [v / 2 for v in along]
        w, d = width / 2, (width if depth is None else depth) / 2
        self._add_box((*mid, *half, *(w * v for v in side), *(d * v for v in up)), part, solid)

    def prism(self, outline: Line, low: float, high: float, *, part: str, plane: str = "xy") -> None:
        """A polygon (n, 2), drawn counter-clockwise in a plane, thickened from `low` to `high` across it.

        Planes: `"xy"` grows along z; `"xz"` along −y (so `low` and `high` are −y); `"yz"` along x. The
        polygon must be star-shaped about the mean of its corners. Convex or not, it hides nothing.
        """
        axes = _plane(plane)
        corners = np.asarray(outline, dtype=np.float64)
        following = np.roll(corners, -1, axis=0)
        n, depth = len(corners), high - low
        middle = corners.mean(axis=0)
        local = np.zeros((3 * n, 3, 3))
        local[:n, 0, :2], local[:n, 0, 2] = corners, low
        local[:n, 1, :2] = following - corners
        local[:n, 2, 2] = depth
        local[n:, 0, :2] = middle
        local[n : 2 * n, 0, 2], local[2 * n :, 0, 2] = high, low
        local[n : 2 * n, 1, :2] = local[2 * n :, 2, :2] = corners - middle
        local[n : 2 * n, 2, :2] = local[2 * n :, 1, :2] = following - middle
        self._add_flat(local @ axes, np.arange(3 * n) >= n, part)

    def plate(self, corners: Line, thickness: Vec, *, part: str) -> None:
        """A flat plate: four corners (4, 3), counter-clockwise seen from above, thickened by a vector downwards."""
        top = np.asarray(corners, dtype=np.float64)
        a, b, c = np.concatenate([top, top + thickness])[_PLATE].transpose(1, 0, 2)
        self._add_flat(np.stack([a, b - a, c - a], axis=1), np.ones(len(a), dtype=bool), part)

    def sheet(self, first: Line, second: Line, *, part: str, thickness: Vec = (0.0, 0.0, 0.0)) -> None:
        """A curved sheet between two polylines (n, 3) of equal length; with `thickness` (a vector), closed.

        Looking at the front, `first` is below and both run left to right.
        """
        low, high = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
        offset = np.asarray(thickness, dtype=np.float64)
        rows = [_strip(low, high)]
        if offset.any():
            back_low, back_high = low + offset, high + offset
            rows.append(_strip(back_high, back_low))
            rows += [_strip(high, back_high), _strip(back_low, low)]
            rows.append(_strip(np.stack([back_low[0], low[0]]), np.stack([back_high[0], high[0]])))
            rows.append(_strip(np.stack([low[-1], back_low[-1]]), np.stack([high[-1], back_high[-1]])))
        patches = np.concatenate(rows)
        self._add_flat(patches, np.ones(len(patches), dtype=bool), part)

    # --------------------------------------------------------------------------------------- round primitives

    def cylinder(
        self, start: Vec, end: Vec, radius: float, end_radius: float | None = None, *, part: str, solid: bool = False
    ) -> None:
        """A closed cylinder, or a cone frustum when `end_radius` differs."""
        along, side, up = _frame(start, end)
        r0, r1 = radius, radius if end_radius is None else end_radius
        u0, v0 = [r0 * v for v in side], [r0 * v for v in up]
        u1, v1 = [r1 * v for v in side], [r1 * v for v in up]
        none = (0.0, 0.0, 0.0)
        caps = (start, none, none, start, u0, v0), (end, u1, v1, end, none, none)
        rings = [(start, u0, v0, end, u1, v1), *caps]
        if solid:
            self._add_cone(start, u0, v0, along, r0, r1)
        self._add_round(np.array(rings, dtype=np.float64), part)

    def lathe(
        self,
        profile: Line,
        *,
        part: str,
        center: Vec = (0.0, 0.0, 0.0),
        squash: float = 1.0,
        arc: tuple[float, float] = (0.0, TURN),
        solid: bool = False,
    ) -> None:
        """A profile (n, 2) of (radius, height) turned about the upright line through `center`.

        Run the profile up the outside and, for a hollow body, down the inside. `squash` is depth over width;
        `arc` turns it only part of the way. `solid=True` (full turn, heights rising) hides what is inside.
        """
        r, z = np.asarray(profile, dtype=np.float64).T
        rings = np.zeros((len(r), 3, 3))
        rings[:, 0, 0], rings[:, 0, 1], rings[:, 0, 2] = center[0], center[1], z + center[2]
        rings[:, 1, 0] = r
        rings[:, 2, 1] = r * squash
        self._add_rings(rings, part, arc, solid)

    def ellipsoid(
        self, center: Vec, size: Vec, *, part: str, low: float = -1.0, high: float = 1.0, steps: int = 14
    ) -> None:
        """An ellipsoid with diameters `size`, or the zone of it between two heights in −1…1 (open, not solid)."""
        a0, a1 = math.asin(low), math.asin(high)
        angle = np.linspace(a0, a1, steps + 1)
        rings = np.zeros((steps + 1, 3, 3))
        rings[:, 0] = center
        rings[:, 0, 2] += np.sin(angle) * (size[2] / 2)
        rings[:, 1, 0] = np.cos(angle) * (size[0] / 2)
        rings[:, 2, 1] = np.cos(angle) * (size[1] / 2)
        self._add_rings(rings, part, (0.0, TURN), False)
        if low <= -1 and high >= 1:
            w, d, h = (s / 2 for s in size)
            self._add_solid((*center, w, 0, 0, 0, d, 0, 0, 0, h), BALL, 1.0)

    def tube(
        self,
        path: Line,
        radius: float | Vec,
        *,
        part: str,
        flatten: float = 1.0,
        normal: Vec | None = None,
        caps: bool = True,
        closed: bool = False,
        solid: bool = False,
    ) -> None:
        """A round section swept along a polyline (n, 3).

        Args:
            path: Stations of the middle line.
            radius: One number, or one per station.
            part: Name of the part.
            flatten: Half-width of the section along `normal`, over its half-width across it.
            normal: A direction that stays across the path (default: one far from the path's direction).
            caps: Close both ends with discs.
            closed: The path returns to its start (a ring).
            solid: Hide what is inside; meant for straight or nearly straight paths.
        """
        rings = _sweep(np.asarray(path, dtype=np.float64), radius, flatten, normal, closed)
        if caps and not closed:
            ends = rings[[0, -1]].copy()
            ends[:, 1:] = 0.0
            rings = np.concatenate([ends[:1], rings, ends[1:]])
        self._add_rings(rings, part, (0.0, TURN), solid)

    # ------------------------------------------------------------------------------------------------- result

    def surface(self) -> Surface:
        """The tables of everything added so far; raises `UsageError` if nothing was added."""
        if not (self._boxes or self._flat or self._round):
            raise UsageError("a shape without primitives", "at least one", "Add one, e.g. `.box(…)`")
        flat, fold = list(self._flat), list(self._folds)
        flat_parts = list(self._flat_parts)
        if self._boxes:
            boxes = np.array(self._boxes, dtype=np.float64).reshape(-1, 4, 3)
            flat.append(_box_faces(boxes))
            fold.append(np.zeros(6 * len(boxes), dtype=bool))
            flat_parts += [p for p in self._box_parts for _ in range(6)]
        return Surface(
            flat=_columns(flat, (3, 3)),
            fold=np.concatenate(fold) if fold else np.zeros(0, dtype=bool),
            flat_part=np.array(flat_parts, dtype=np.int64),
            round=_columns(self._round, (6, 3)),
            arc=np.array(self._arcs, dtype=np.float64).reshape(-1, 2).T,
            round_part=np.array(self._round_parts, dtype=np.int64),
            solid=np.array(self._solids, dtype=np.float64).reshape(-1, 4, 3),
            kind=np.array(self._kinds, dtype=np.int64),
            taper=np.array(self._tapers, dtype=np.float64),
        )

    # ------------------------------------------------------------------------------------------------ plumbing

    def _id(self, part: str) -> int:
        try:
            return self._part_id[part]
        except KeyError:
            raise unknown_name("part", part, self._part_id) from None

    def _add_box(self, row: tuple[float, ...], part: str, solid: bool) -> None:
        self._boxes.append(row)
        self._box_parts.append(self._id(part))
        if solid:
            self._add_solid(row, BOX, 1.0)

    def _add_flat(self, patches: np.ndarray, fold: np.ndarray, part: str) -> None:
        self._flat.append(patches)
        self._folds.append(fold)
        self._flat_parts += [self._id(part)] * len(patches)

    def _add_round(self, rows: np.ndarray, part: str, arc: tuple[float, float] = (0.0, TURN)) -> None:
        self._round.append(rows)
        self._arcs += [arc] * len(rows)
        self._round_parts += [self._id(part)] * len(rows)

    def _add_rings(self, rings: np.ndarray, part: str, arc: tuple[float, float], solid: bool) -> None:
        rows = np.concatenate([rings[:-1], rings[1:]], axis=1)
        self._add_round(rows, part, arc)
        if solid:
            for center, u, v, end, u_end, v_end in rows.tolist():
                along = [b - a for a, b in zip(center, end, strict=True)]
                r0, r1 = math.hypot(*u), math.hypot(*u_end)
                if r0 >= r1:
                    self._add_cone(center, u, v, along, r0, r1)
                else:
                    self._add_cone(end, u_end, v_end, [-a for a in along], r1, r0)

    def _add_cone(self, center: Vec, u: Vec, v: Vec, along: Vec, r0: float, r1: float) -> None:
        if r0 > 0 and any(along):
            self._add_solid((*center, *u, *v, *along), CONE, r1 / r0)

    def _add_solid(self, row: tuple[float, ...], kind: int, taper: float) -> None:
        self._solids.append(row)
        self._kinds.append(kind)
        self._tapers.append(taper)


def angles(steps: int, turn: float = math.pi) -> list[float]:
    """`steps + 1` angles from 0 to `turn`: stations of an arc."""
    return [turn * k / steps for k in range(steps + 1)]


def _columns(tables: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Tables of rows (n, *shape) as one table of columns (*shape, n)."""
    rows = np.concatenate(tables) if tables else np.zeros((0, *shape))
    return np.ascontiguousarray(rows.transpose(1, 2, 0))


def _plane(name: str) -> np.ndarray:
    try:
        return _PLANES[name]
    except KeyError:
        raise unknown_name("plane", name, _PLANES) from None


def _frame(start: Vec, end: Vec) -> tuple[list[float], list[float], list[float]]:
    """The vector from start to end, and two unit vectors across it: x and y for an upright one."""
    ax, ay, az = (b - a for a, b in zip(start, end, strict=True))
    length = math.sqrt(ax * ax + ay * ay + az * az)
    tx, ty, tz = ax / length, ay / length, az / length
    if abs(tz) > 0.7:  # upright: first vector near x, second = t × first
        sx, sy, sz = 1 - tx * tx, -tx * ty, -tx * tz
    else:  # lying: first vector horizontal
        sx, sy, sz = ty, -tx, 0.0
    norm = math.sqrt(sx * sx + sy * sy + sz * sz)
    sx, sy, sz = sx / norm, sy / norm, sz / norm
    up = [ty * sz - tz * sy, tz * sx - tx * sz, tx * sy - ty * sx]
    return [ax, ay, az], [sx, sy, sz], up


def _box_faces(boxes: np.ndarray) -> np.ndarray:
    """Six flat patches per box: (K, 4, 3) centre and half-axes → (6K, 3, 3)."""
    center, half = boxes[:, None, 0], boxes[:, 1:]
    faces = np.stack([center + _FACE_ORIGIN @ half, _FACE_E1 @ half, _FACE_E2 @ half], axis=2)
    return faces.reshape(-1, 3, 3)


def _strip(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Two triangles per cell between two polylines (n, 3) → (2(n − 1), 3, 3)."""
    a, b, c, d = low[:-1], low[1:], high[:-1], high[1:]
    return np.concatenate([np.stack([a, b - a, c - a], axis=1), np.stack([d, c - d, b - d], axis=1)])


def _sweep(path: np.ndarray, radius: float | Vec, flatten: float, normal: Vec | None, closed: bool) -> np.ndarray:
    """Rings (n, 3, 3) of centre, U, V along a path; one ring more when closed."""
    if closed:
        padded = np.concatenate([path[-1:], path, path[:1]])
        tangent = padded[2:] - padded[:-2]
    else:
        tangent = np.empty_like(path)
        tangent[1:-1] = path[2:] - path[:-2]
        tangent[0], tangent[-1] = path[1] - path[0], path[-1] - path[-2]
    tangent /= np.sqrt((tangent**2).sum(axis=1, keepdims=True))
    if normal is None:
        reference = np.zeros(3)
        reference[np.abs(tangent).sum(axis=0).argmin()] = 1.0
    else:
        reference = np.asarray(normal, dtype=np.float64)
    across = reference - tangent * (tangent @ reference)[:, None]
    across /= np.sqrt((across**2).sum(axis=1, keepdims=True))
    other = np.cross(tangent, across)
    size = np.broadcast_to(np.asarray(radius, dtype=np.float64), (len(path),))[:, None]
    rings = np.stack([path, across * (size * flatten), other * size], axis=1)
    return np.concatenate([rings, rings[:1]]) if closed else rings
