"""Values that change over a run, from the share of it that is done."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Ramp:
    """From one value to another along half a cosine.

    Args:
        start, end: Values before and after.
        begin: Step at which it leaves `start`.
        steps: Steps until `end` is reached.
    """

    start: float
    end: float
    begin: int = 0
    steps: int = 100_000

    def __post_init__(self) -> None:
        if self.begin < 0 or self.steps < 1:
            raise ValueError(f"begin {self.begin}, steps {self.steps}: expected at least 0 and at least 1")

    def at(self, step: float) -> float:
        """The value at a step, counted from 0."""
        done = min(max((step - self.begin) / self.steps, 0.0), 1.0)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * done)) / 2
