"""What a shape is made of: a body of joined primitives, what is cut out of it, and wireframes stuck to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pointlift.data.procedural.config import ProceduralConfig
from pointlift.data.procedural.displacement import Displacement
from pointlift.data.procedural.exact import direction, product, rotation
from pointlift.data.procedural.solids import Solid
from pointlift.data.procedural.wires import Wireframe, wireframe
from pointlift.data.shapes.draw import Draw

_TRIES = 4
_CONE_FORMS = (0.0, 0.0, 0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Program:
    """The solid (body - cutters) ∪ wires; body, cutters and wires are each the union of their members."""

    body: tuple[Solid, ...]
    cutters: tuple[Solid, ...] = ()
    wires: tuple[Wireframe, ...] = ()

    @property
    def pieces(self) -> tuple[Solid | Wireframe, ...]:
        """Body, cutters, wires."""
        return (*self.body, *self.cutters, *self.wires)

    def inside(self, xyz: np.ndarray) -> np.ndarray:
        """Which points (3, n) lie inside the solid, (n,) bool."""
        return (inside_any(self.body, xyz) & ~inside_any(self.cutters, xyz)) | inside_any(self.wires, xyz)


def inside_any(pieces: tuple[Solid, ...] | tuple[Wireframe, ...], xyz: np.ndarray) -> np.ndarray:
    """Which points (3, n) lie inside at least one piece, (n,) bool."""
    hidden = np.zeros(xyz.shape[1], dtype=bool)
    for piece in pieces:
        hidden |= piece.inside(xyz)
    return hidden


def draw_program(config: ProceduralConfig, draw: Draw) -> Program:
    """Compose a shape at random.

    Every primitive after the first is centred on a point of an earlier one's surface, so that a body hangs together;
    cutters and wireframes are centred on points of the body's own, visible surface, so that they show.

    Args:
        config: Counts, probabilities and ranges.
        draw: The only source of randomness.
    """
    body: list[Solid] = []
    for _ in range(draw.count(*config.primitives)):
        center = draw.pick(body).toward(direction(draw)[:, None])[:, 0] if body else np.zeros(3)
        body.append(_primitive(config, draw, center))
    reach = _reach(body)
    cutters = [
        _cutter(config, draw, _visible_point(body, draw), reach)
        for _ in range(draw.count(*config.cutters) if draw.chance(config.cut) else 0)
    ]
    wires = [
        _wires(config, draw, _visible_point(body, draw), reach)
        for _ in range(draw.count(*config.wires) if draw.chance(config.wire) else 0)
    ]
    return Program(tuple(body), tuple(cutters), tuple(wires))


def _primitive(config: ProceduralConfig, draw: Draw, center: np.ndarray) -> Solid:
    kind = draw.pick(config.kinds)
    half = [draw.uniform(*config.size) for _ in range(3)]
    solid = _placed(kind, half, center, config.shear, draw)
    if kind != "torus" and draw.chance(config.displaced):
        return Solid(kind, solid.form, solid.matrix, center, Displacement(draw.uniform(*config.height), draw))
    return solid


def _cutter(config: ProceduralConfig, draw: Draw, center: np.ndarray, reach: float) -> Solid:
    kind = draw.pick(config.kinds)
    half = [reach * draw.uniform(*config.cut_size) for _ in range(3)]
    return _placed(kind, half, center, 0.0, draw)


def _wires(config: ProceduralConfig, draw: Draw, center: np.ndarray, reach: float) -> Wireframe:
    kind = draw.pick(config.kinds)
    half = [reach * draw.uniform(*config.wire_size) for _ in range(3)]
    return wireframe(kind, center, rotation(draw), half, reach * draw.uniform(*config.wire_radius), draw)


def _placed(kind: str, half: list[float], center: np.ndarray, shear: float, draw: Draw) -> Solid:
    """A primitive with its half extents along its own axes, sheared, then turned."""
    form = 1.0
    if kind == "cone":
        form = draw.pick(_CONE_FORMS)
    elif kind == "torus":
        form = draw.uniform(0.2, 0.6)
        half = [half[0] / (1 + form), half[1] / (1 + form), 0.5 * (half[0] + half[1])]
    matrix = np.diag(half)
    if shear:
        lean = np.eye(3)
        for i, j in ((0, 1), (0, 2), (1, 2)):
            lean[i, j] = draw.uniform(-shear, shear)
        matrix = product(lean, matrix)
    return Solid(kind, form, product(rotation(draw), matrix), center)


def _visible_point(body: list[Solid], draw: Draw) -> np.ndarray:
    """A point (3,) of some primitive's surface that no other one covers; the last one tried when all are covered."""
    for _ in range(_TRIES):
        points = draw.pick(body).toward(np.stack([direction(draw) for _ in range(4)], axis=1))
        visible = np.flatnonzero(~inside_any(tuple(body), points))
        if len(visible):
            return points[:, visible[0]]
    return points[:, -1]


def _reach(body: list[Solid]) -> float:
    """Half the longest side of a box around the body."""
    low, high = zip(*(solid.box() for solid in body), strict=True)
    return 0.5 * float((np.max(high, axis=0) - np.min(low, axis=0)).max())
