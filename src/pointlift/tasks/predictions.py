"""`predictions.npz`: what a model said of every cloud of a split, and a few of the clouds for the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pointlift.data.config import DataConfig
from pointlift.data.dataset import CloudSplit, DatasetMeta
from pointlift.data.pipeline import build_transform
from pointlift.tasks.files import write_arrays

if TYPE_CHECKING:
    from pointlift.tasks.classification import Scores

FILE = "predictions.npz"
GALLERY_POINTS = 1024


def write_predictions(
    out: Path, scores: Scores, split: CloudSplit, meta: DatasetMeta, data: DataConfig, *, keep_clouds: int = 0
) -> Path:
    """Write logits, labels, positions and names; with `keep_clouds`, so many clouds to look at.

    Raises:
        PointLiftError: The file cannot be written.
    """
    arrays: dict[str, np.ndarray] = {
        "logits": scores.logits,
        "label": scores.label,
        "index": scores.index,
        "names": np.array([split.names[i] for i in scores.index]),
        "classes": np.array(meta.classes),
    }
    if keep_clouds:
        chosen = gallery(scores, keep_clouds)
        transform = build_transform(replace(data, points=GALLERY_POINTS), meta, "test")
        xyz = np.stack([transform(split[int(scores.index[i])])["xyz"] for i in chosen])
        arrays["xyz_i16"] = np.round(xyz.clip(-1, 1) * 32767).astype(np.int16)
        arrays["xyz_index"] = scores.index[chosen]
    return write_arrays(out / FILE, arrays, hint="Free some space and go on with --resume")


def gallery(scores: Scores, count: int) -> np.ndarray:
    """Positions of clouds to show: the surest mistakes (up to half), right ones by class in turn, more mistakes."""
    pred = scores.logits.argmax(1)
    shifted = scores.logits - scores.logits.max(1, keepdims=True)
    confidence = 1 / np.exp(shifted).sum(1)
    wrong = np.flatnonzero(pred != scores.label)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    right = np.flatnonzero(pred == scores.label)
    turn = np.empty(len(right), np.int64)
    for label in np.unique(scores.label[right]):
        of_class = np.flatnonzero(scores.label[right] == label)
        turn[of_class] = np.arange(len(of_class))
    right = right[np.lexsort((scores.label[right], turn))]
    return np.concatenate([wrong[: count // 2], right, wrong[count // 2 :]])[:count]
