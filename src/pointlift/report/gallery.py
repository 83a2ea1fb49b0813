"""Which clouds of a run a page shows: mistakes first, packed small enough to travel inside the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pointlift.report.points import bytes_per_point, pack
from pointlift.report.run import Predictions

MAX_CLOUDS = 24
MAX_BYTES = 222_000  # of raw coordinates and normals; a third more as base64


@dataclass(frozen=True)
class Tile:
    """One cloud of the gallery, with its points as `points.pack` gives them."""

    row: int
    true: int
    predicted: int
    probability: float
    points: dict[str, Any]

    @property
    def right(self) -> bool:
        """Whether the prediction is the true class."""
        return self.true == self.predicted


def gallery(predictions: Predictions, probabilities: np.ndarray) -> list[Tile]:
    """At most 24 tiles: the surest mistakes first, then right answers, one class after the other."""
    if predictions.clouds is None or not len(predictions.clouds):
        return []
    rows = predictions.cloud_rows
    answer = probabilities.argmax(axis=1)
    sure = probabilities[np.arange(len(answer)), answer]
    seen: dict[int, int] = {}
    keys = []
    for position, row in enumerate(rows):
        label = int(predictions.label[row])
        right = bool(answer[row] == label)
        turn = seen.get(label, 0) if right else 0
        if right:
            seen[label] = turn + 1
        keys.append((right, turn, -sure[row] if not right else label, position))
    chosen = [key[3] for key in sorted(keys)][:MAX_CLOUDS]
    limit = max(1, MAX_BYTES // (bytes_per_point(()) * len(chosen)))
    return [
        Tile(
            row=int(rows[i]),
            true=int(predictions.label[rows[i]]),
            predicted=int(answer[rows[i]]),
            probability=float(sure[rows[i]]),
            points=pack(predictions.clouds[i], limit=limit),
        )
        for i in chosen
    ]
