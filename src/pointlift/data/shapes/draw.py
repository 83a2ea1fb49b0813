"""Random choices of a shape generator, all made from `Generator.random`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

_BLOCK = 64


class Draw:
    """Scalars for one shape: sizes, counts, styles.

    Only `Generator.random` is used: its doubles are the top 53 bits of PCG64, which no numpy version has
    changed, whereas `integers`, `choice` and `normal` may take another algorithm in a later one. The doubles
    are fetched in blocks because a shape needs dozens of them and a call costs more than a number.

    Args:
        rng: The stream to read from; it advances by whole blocks.
    """

    __slots__ = ("_block", "_rng")

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._block: list[float] = []

    def unit(self) -> float:
        """A number in [0, 1)."""
        if not self._block:
            self._block = self._rng.random(_BLOCK).tolist()
        return self._block.pop()

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.unit()

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.unit() < probability

    def count(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + int(self.unit() * (high - low + 1))

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely; repeat an option to make it likelier."""
        return options[int(self.unit() * len(options))]
