"""A linear head on frozen features: multinomial logistic regression, its strength chosen on training clouds only."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from pointlift.core.errors import UsageError
from pointlift.tasks.strength import GRID, best_of, try_strengths

logger = logging.getLogger(__name__)


class BlockScaler(StandardScaler):
    """Standardised columns, of which the last `few` together weigh as much as all others.

    A penalty on the weights makes four columns among a thousand all but invisible; the head would not see how large
    a cloud is.
    """

    def __init__(self, few: int = 0) -> None:
        super().__init__()
        self.few = few

    def transform(self, X: np.ndarray, copy: bool | None = None) -> np.ndarray:
        """(n, F) -> (n, F) float."""
        scaled = super().transform(X, copy=copy)
        if self.few:
            scaled[:, -self.few :] *= math.sqrt(max(scaled.shape[1] / self.few - 1, 1))
        return scaled


def logistic_head(C: float, few: int = 0) -> Pipeline:
    """Standardised features, then logistic regression with an L2 penalty of strength 1 / C.

    A further fit starts from where the last one ended.

    Args:
        few: How many of the last columns weigh as much as all others (`BlockScaler`).
    """
    logistic = LogisticRegression(C=C, tol=1e-3, max_iter=500, warm_start=True)
    return Pipeline([("scale", BlockScaler(few)), ("logistic", logistic)])


def choose_strength(
    features: np.ndarray, codes: np.ndarray, grid: Sequence[float] = GRID, *, few: int = 0, seed: int = 0
) -> dict[float, float]:
    """`try_strengths` with this head; each fit starts from the solution of the C before.

    Args:
        features: (n, F) float32.
        codes: (n,) int64 class numbers.
        grid: Values of C.
        few: As in `logistic_head`.
        seed: Decides which clouds are held out.

    Returns:
        {C: mean accuracy}, in rising order of C.

    Raises:
        UsageError: No class has two clouds.
    """
    heads: dict[int, Pipeline] = {}

    def trial(C: float, split: int, rest: np.ndarray, held: np.ndarray) -> float:
        head = heads.setdefault(split, logistic_head(C, few))
        _fit(head, C, features[rest], codes[rest])
        return float(np.mean(head.predict(features[held]) == codes[held]))

    return try_strengths(codes, trial, grid, seed=seed, purpose="C of the head")


def fit_logistic(
    features: np.ndarray, codes: np.ndarray, C: float | Sequence[float] | str, *, few: int = 0, seed: int = 0
) -> tuple[Pipeline, float, dict[float, float]]:
    """The head on all training clouds: `(head, C, {C tried: held-out accuracy})`.

    The head is led to the chosen C the way it was chosen: through the stronger penalties before it.

    Args:
        C: A number; or values to choose from, "auto" being `GRID`. The smallest of equally good ones is taken.
        few: As in `logistic_head`.
        seed: Decides which clouds are held out.

    Raises:
        UsageError: C is nothing of the kind.
    """
    grid = _grid(C)
    tried: dict[float, float] = {}
    if len(grid) == 1:
        best = grid[0]
    elif np.bincount(codes).max() < 2:
        best = 1.0
        logger.warning("no class has two clouds: C is 1, nothing could be held out to choose it")
    else:
        tried = choose_strength(features, codes, grid, few=few, seed=seed)
        best = best_of(tried)
    head, settled = logistic_head(best, few), True
    for stronger in [c for c in tried if c < best] + [best]:
        settled = _fit(head, stronger, features, codes)
    if not settled:
        logger.warning("the linear head did not settle within %d steps (C = %g)", head[-1].max_iter, best)
    return head, best, tried


def _grid(C: float | Sequence[float] | str) -> tuple[float, ...]:
    values: Any = GRID if isinstance(C, str) and C == "auto" else C
    try:
        grid = tuple(sorted(float(c) for c in np.atleast_1d(np.asarray(values, dtype=float))))
    except (TypeError, ValueError):
        grid = ()
    if not grid or not all(0 < c < float("inf") for c in grid):
        raise UsageError(f"C {C!r}", "'auto', a number above 0, or several")
    return grid


def _fit(head: Pipeline, C: float, features: np.ndarray, codes: np.ndarray) -> bool:
    """Fit in place with this C; whether the solver came to its end."""
    head[-1].set_params(C=C)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said by the return value
        head.fit(features, codes)
    return int(np.max(head[-1].n_iter_)) < head[-1].max_iter
