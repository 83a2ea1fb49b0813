"""How procedural shapes are made: counts, probabilities and ranges."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pointlift.core.errors import ConfigError

KINDS = ("box", "ball", "cylinder", "cone", "torus")

VERSION = 1
"""Raised whenever the same seed would give other clouds; part of the variant, the hash and every cache folder."""


@dataclass(frozen=True)
class ProceduralConfig:
    """What may happen to a shape. Lengths are those of a shape before it is scaled to the unit sphere.

    Attributes:
        points: Points per cloud.
        primitives: Fewest and most primitives of a body, both included.
        kinds: Primitives to choose from, all equally likely; repeat one to make it likelier.
        size: Smallest and largest half extent of a primitive, drawn per axis.
        shear: Largest shear, as the tangent of an angle; 0 keeps right angles.
        displaced: Probability that a primitive's surface is displaced by smooth noise. Tori stay smooth.
        height: Smallest and largest amount of displacement, as a share of the distance from the primitive's centre.
        cut: Probability that something is cut out of the body.
        cutters: Fewest and most cutters then.
        cut_size: Smallest and largest half extent of a cutter, as a share of the body's.
        wire: Probability that wireframes are added.
        wires: Fewest and most wireframes then.
        wire_size: Smallest and largest half extent of a wireframe, as a share of the body's.
        wire_radius: Thinnest and thickest bar, as a share of the body's half extent.
    """

    points: int = 8192
    primitives: tuple[int, int] = (1, 9)
    kinds: tuple[str, ...] = KINDS
    size: tuple[float, float] = (0.3, 1.0)
    shear: float = 0.3
    displaced: float = 0.4
    height: tuple[float, float] = (0.06, 0.25)
    cut: float = 0.5
    cutters: tuple[int, int] = (1, 2)
    cut_size: tuple[float, float] = (0.3, 0.6)
    wire: float = 0.3
    wires: tuple[int, int] = (1, 2)
    wire_size: tuple[float, float] = (0.3, 0.6)
    wire_radius: tuple[float, float] = (0.012, 0.03)

    def __post_init__(self) -> None:
        wrong = []
        if not _is_count(self.points) or self.points < 1:
            wrong.append(f"points={self.points} (a whole number, at least 1)")
        if not self.kinds or any(kind not in KINDS for kind in self.kinds):
            wrong.append(f"kinds={self.kinds} (one or more of {', '.join(KINDS)})")
        for name in ("primitives", "cutters", "wires"):
            if not _is_range(getattr(self, name), 1, 64) or not all(map(_is_count, getattr(self, name))):
                wrong.append(f"{name}={getattr(self, name)} (two whole numbers, 1 to 64, rising)")
        for name in ("displaced", "cut", "wire"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                wrong.append(f"{name}={getattr(self, name)} (a probability)")
        if not 0.0 <= self.shear <= 1.0:
            wrong.append(f"shear={self.shear} (0 to 1)")
        for name, (low, high) in _RANGES.items():
            if not _is_range(getattr(self, name), low, high):
                wrong.append(f"{name}={getattr(self, name)} (two numbers, {low} to {high}, rising)")
        if wrong:
            raise ConfigError("procedural options " + "; ".join(wrong))

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON would give them back: tuples are lists, amounts are floats."""
        return {name: _plain(value, name) for name, value in asdict(self).items()}

    def describe(self) -> str:
        """All settings in one line, the same for equal settings."""
        return f"v{VERSION} " + " ".join(f"{k}={_text(v)}" for k, v in self.as_dict().items())


_RANGES = {
    "size": (0.05, 10.0),
    "height": (0.0, 0.4),
    "cut_size": (0.05, 2.0),
    "wire_size": (0.05, 2.0),
    "wire_radius": (0.002, 0.2),
}
_COUNTS = ("points", "primitives", "cutters", "wires")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_range(value: Any, low: float, high: float) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and low <= value[0] <= value[1] <= high


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, tuple):
        return [_plain(v, name) for v in value]
    return value if isinstance(value, str) or name in _COUNTS else float(value)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
