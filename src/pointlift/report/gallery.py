"""Clouds for the gallery, mistakes first, packed small enough to travel inside the page."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np

from pointlift.core.seeds import generator
from pointlift.report.run import Predictions

MAX_CLOUDS = 24
MAX_BYTES = 222_000  # of raw coordinates and normals; a third more as base64
NEIGHBOURS = 12


@dataclass(frozen=True)
class Tile:
    """One cloud of the gallery, with its points as `pack` writes them."""

    row: int
    true: int
    predicted: int
    probability: float
    points: str

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
    kept = predictions.clouds.shape[1]
    limit = max(1, MAX_BYTES // (9 * len(chosen)))
    pick = np.arange(kept)
    if kept > limit:
        pick = np.sort(generator("report", "gallery").choice(kept, limit, replace=False))
    return [
        Tile(
            row=int(rows[i]),
            true=int(predictions.label[rows[i]]),
            predicted=int(answer[rows[i]]),
            probability=float(sure[rows[i]]),
            points=pack(predictions.clouds[i][pick]),
        )
        for i in chosen
    ]


def pack(xyz: np.ndarray) -> str:
    """Coordinates (P, 3), scaled so that the cloud fills the unit ball, and normals, for the page's script.

    Returns:
        Base64 of P x 3 little-endian int16 (coordinates times 32767), then P x 3 int8 (normals times 127).
    """
    centred = xyz - (xyz.max(axis=0) + xyz.min(axis=0)) / 2
    radius = float(np.linalg.norm(centred, axis=1).max()) or 1.0
    ball = centred / radius
    coordinates = np.round(ball * 32767).astype("<i2").tobytes()
    return base64.b64encode(coordinates + np.round(normals(ball) * 127).astype("i1").tobytes()).decode("ascii")


def normals(xyz: np.ndarray) -> np.ndarray:
    """Unit normals (P, 3) of the plane through each point's nearest neighbours; their side is arbitrary."""
    from scipy.spatial import cKDTree

    _, near = cKDTree(xyz).query(xyz, k=min(NEIGHBOURS, len(xyz)))
    patches = xyz[near.reshape(len(xyz), -1)].astype(np.float64)
    patches -= patches.mean(axis=1, keepdims=True)
    _, axes = np.linalg.eigh(np.einsum("pki,pkj->pij", patches, patches))
    return axes[:, :, 0]
