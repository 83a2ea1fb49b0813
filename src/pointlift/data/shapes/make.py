"""One labelled cloud: generate, stretch, sample, pose, normalise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from pointlift.core.errors import ConfigError, UsageError
from pointlift.data.shapes.builder import TURN, Builder
from pointlift.data.shapes.catalog import CLASSES, PART_IDS, SHAPE_CLASSES
from pointlift.data.shapes.draw import Draw
from pointlift.data.shapes.sampling import sample_surface

POSES = ("up", "none", "so3")

_AMOUNTS = (("level", 1.0), ("stretch", 1.5), ("warp", 0.8), ("noise", 1.0), ("density", 5.0), ("occlusion", 0.8))
"""Fields that are amounts, with the most that makes sense."""

VERSION = 1
"""Raised whenever the same seed would give other clouds; part of the data set's variant and hash."""


@dataclass(frozen=True)
class ShapeConfig:
    """How clouds are made of shapes.

    Attributes:
        points: Points per cloud.
        classes: Names to use, in the order of their labels; None means all, as in `CLASSES`.
        pose: `"up"` turns each shape by a uniform angle about z, `"so3"` by a uniform rotation, `"none"` not.
        level: Share of a shape's own proportions that is taken away, 0…1: each axis is scaled by
            (mean extent / extent)^level, so that the box says less about the class.
        stretch: Then each axis is scaled by e^u with u uniform in ±stretch, so that it says still less.
        warp: How much a shape may taper and lengthen one half of its height, 0…0.8 (see `_Warp`).
        noise: Standard deviation of nearly Gaussian noise on each coordinate, in bounding radii.
        density: How uneven the sampling is at most; each shape draws its own amount (see `sample_surface`).
        occlusion: Largest share of the surface that may be missing on one side, drawn likewise.
    """

    points: int = 1024
    classes: tuple[str, ...] | None = None
    pose: str = "up"
    level: float = 0.8
    stretch: float = 0.45
    warp: float = 0.4
    noise: float = 0.01
    density: float = 2.0
    occlusion: float = 0.15

    def __post_init__(self) -> None:
        wrong = []
        if self.points < 1:
            wrong.append(f"points={self.points} (at least 1)")
        if self.pose not in POSES:
            wrong.append(f"pose={self.pose!r} (one of {', '.join(POSES)})")
        for name, high in _AMOUNTS:
            if not 0.0 <= getattr(self, name) <= high:
                wrong.append(f"{name}={getattr(self, name)} (0 to {high})")
        if wrong:
            raise ConfigError("shape options " + "; ".join(wrong))
        for name in self.classes or ():
            SHAPE_CLASSES.get(name)
        if self.classes is not None and (not self.classes or len(set(self.classes)) < len(self.classes)):
            raise ConfigError(f"classes={self.classes}", "at least one name, each once")

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their labels."""
        return CLASSES if self.classes is None else self.classes

    def describe(self) -> str:
        """All settings in one line, the same for equal settings."""
        classes = "all" if self.classes is None else ",".join(self.classes)
        numbers = " ".join(f"{name}={float(getattr(self, name))}" for name, _ in _AMOUNTS)
        return f"v{VERSION} points={self.points} classes={classes} pose={self.pose} {numbers}"


@dataclass(frozen=True)
class Shape:
    """One labelled cloud, its centroid at the origin and its farthest point at distance 1.

    Attributes:
        xyz: (N, 3) float32.
        part: (N,) int64, positions in `PART_NAMES`.
        normals: (N, 3) float32, unit length, outward.
        label: Position of the class in the config's `class_names`.
        name: The class.
    """

    xyz: np.ndarray
    part: np.ndarray
    normals: np.ndarray
    label: int
    name: str


_DEFAULT = ShapeConfig()


def make_shape(
    kind: str | int, rng: np.random.Generator, *, config: ShapeConfig = _DEFAULT, points: int | None = None
) -> Shape:
    """One random member of a class.

    Args:
        kind: Class name, or label in `config.class_names`.
        rng: The only source of randomness: equal streams give equal shapes.
        config: How the cloud is made.
        points: Overrides `config.points`.

    Raises:
        UnknownNameError: No such class.
        UsageError: A label outside the classes.
    """
    config = config if points is None else replace(config, points=points)
    names = config.class_names
    if isinstance(kind, str):
        name = SHAPE_CLASSES.get(kind).name
        if name not in names:
            raise UsageError(f"class {name!r}", f"one of this configuration: {', '.join(names)}")
    elif 0 <= kind < len(names):
        name = names[kind]
    else:
        raise UsageError(f"class {kind}", f"0 to {len(names) - 1}")
    turn = _pose(config.pose, rng)
    xyz, normals, part = _cloud(name, rng, config)
    xyz, normals = turn @ xyz, turn @ normals
    xyz -= xyz.mean(axis=1, keepdims=True)
    xyz /= _radius(xyz)
    rows = (np.ascontiguousarray(a.T, dtype=np.float32) for a in (xyz, normals))
    return Shape(next(rows), part, next(rows), names.index(name), name)


def _cloud(name: str, rng: np.random.Generator, config: ShapeConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """xyz (3, N), normals (3, N), part (N,) of one member, stretched, noisy, neither posed nor normalised."""
    entry = SHAPE_CLASSES.get(name)
    builder = Builder(entry.parts, PART_IDS[name][0])
    draw = Draw(rng)
    entry.generate(builder, draw)
    surface = builder.surface()
    low, high = surface.bounds()
    stretch = np.exp([draw.uniform(-config.stretch, config.stretch) for _ in range(3)])
    scale = stretch * (np.prod(high - low) ** (1 / 3) / (high - low)) ** config.level
    surface = surface.scaled(scale)
    warp = _Warp(low[2] * scale[2], high[2] * scale[2], draw, config.warp) if config.warp else None
    xyz, normals, part = sample_surface(
        surface, config.points, rng, warp=warp, density=config.density, occlusion=config.occlusion
    )
    if config.noise:
        radius = _radius(xyz - xyz.mean(axis=1, keepdims=True))
        xyz = xyz + config.noise * radius * _nearly_normal(rng, xyz.shape)
    return xyz, normals, part


class _Warp:
    """Tapers a shape towards one end and lengthens its lower or upper half, smoothly and invertibly.

    With t from 0 at the bottom to 1 at the top: widths are multiplied by 1 + taper·(2t − 1), and the height
    becomes t + bulge·t·(1 − t).

    Args:
        low: Height of the bottom.
        high: Height of the top.
        draw: Gives taper and bulge, both uniform in ±amount.
        amount: 0…0.8.
    """

    def __init__(self, low: float, high: float, draw: Draw, amount: float) -> None:
        self.low, self.tall = low, high - low
        self.taper, self.bulge = draw.uniform(-amount, amount), draw.uniform(-amount, amount)

    def __call__(self, xyz: np.ndarray, area: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y, z = xyz
        t = (z - self.low) / self.tall
        wide, wider = 1 + self.taper * (2 * t - 1), 2 * self.taper / self.tall
        higher = 1 + self.bulge * (1 - 2 * t)
        moved = np.stack([x * wide, y * wide, self.low + self.tall * (t + self.bulge * t * (1 - t))])
        # Area vectors go with the cofactors of the Jacobian [[wide, 0, x·wider], [0, wide, y·wider], [0, 0, higher]].
        a, b, c = area
        up = wide * (wide * c - wider * (x * a + y * b))
        return moved, np.stack([wide * higher * a, wide * higher * b, up])


def _radius(xyz: np.ndarray) -> float:
    """Largest distance from the origin of points (3, N)."""
    x, y, z = xyz
    return math.sqrt((x * x + y * y + z * z).max())


def _nearly_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of mean 0 and variance 1: sums of three uniform ones (why uniform: see `Draw`), never beyond 3."""
    return (rng.random((3, *shape)).sum(axis=0) - 1.5) * 2


def _pose(pose: str, rng: np.random.Generator) -> np.ndarray:
    """A rotation matrix (3, 3)."""
    a, b, c = rng.random(3)
    if pose == "none":
        return np.eye(3)
    if pose == "up":
        cos, sin = math.cos(TURN * a), math.sin(TURN * a)
        return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    # A uniform unit quaternion from three uniform numbers (Shoemake, Graphics Gems III, 1992).
    x, y = math.sqrt(1 - a) * math.sin(TURN * b), math.sqrt(1 - a) * math.cos(TURN * b)
    z, w = math.sqrt(a) * math.sin(TURN * c), math.sqrt(a) * math.cos(TURN * c)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
