"""What a caller of `read` can choose; every reader takes the same object and uses what concerns it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pointlift.core.errors import UsageError


@dataclass(frozen=True)
class ReadOptions:
    """Choices of `pointlift.data.read`.

    Args:
        columns: Names of the columns of a file that does not name them; `_` skips one.
        points: How many points to sample on a mesh with faces.
        seed: Seed of that sampling: the same points on every machine.
    """

    columns: Sequence[str] | None = None
    points: int = 8192
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.columns, str):
            raise UsageError(f"columns={self.columns!r}", 'a sequence of names, like ("x", "y", "z", "intensity")')
        if not isinstance(self.points, int) or self.points < 1:
            raise UsageError(f"points={self.points!r}", "a whole number from 1: how many points to sample on a mesh")
