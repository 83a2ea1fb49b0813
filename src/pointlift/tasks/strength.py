"""How strong the penalty of a linear classifier should be: 1 / C, chosen on training clouds alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pointlift.data.dataset import stratified_split

GRID = (0.001, 0.01, 0.1, 1.0, 10.0)
HELD = 0.2  # of every class
FEW = 3_000  # clouds; below, one split of them says too little, and three are affordable

# (C, number of the split, positions learned from, positions held out) -> share of the held out that is right.
Trial = Callable[[float, int, np.ndarray, np.ndarray], float]


def try_strengths(
    labels: np.ndarray, trial: Trial, grid: Sequence[float] = GRID, *, seed: int = 0, purpose: str
) -> dict[float, float]:
    """Accuracy on held-out training clouds for every C tried, from strong to weak penalty.

    A fifth of every class is held out, three times with fewer than 3,000 clouds, else once. The first C that is worse
    than the best so far ends the search: weaker penalties take longest and have nothing left to gain. An equal one does
    not: a few held-out clouds are often equally right under two penalties.

    Args:
        labels: (n,) int64.
        trial: What a C scores on one split.
        grid: Values of C.
        seed, purpose: Decide which clouds are held out.

    Returns:
        {C: mean accuracy}, in rising order of C.

    Raises:
        UsageError: No class has two clouds.
    """
    splits = [stratified_split(labels, HELD, seed + r, purpose) for r in range(3 if len(labels) < FEW else 1)]
    found: dict[float, float] = {}
    for C in sorted(grid):
        found[C] = float(np.mean([trial(C, r, rest, held) for r, (rest, held) in enumerate(splits)]))
        if found[C] < max(found.values()):
            break
    return found


def best_of(tried: dict[float, float]) -> float:
    """The smallest C of those with the best accuracy: the strongest of equally good penalties."""
    return max(tried, key=lambda C: (tried[C], -C))
