"""Scores from integer counts: of clouds by class, and of points by part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def confusion_matrix(pred: np.ndarray, label: np.ndarray, num_classes: int) -> NDArray[np.int64]:
    """Counts (C, C): rows are true classes, columns predicted ones. Counts of several processes just add up."""
    flat = np.asarray(label, np.int64) * num_classes + np.asarray(pred, np.int64)
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def overall_accuracy(matrix: np.ndarray) -> float:
    """Share of clouds whose class is right (OA); 0.0 without clouds."""
    return float(np.trace(matrix)) / max(int(matrix.sum()), 1)


def mean_class_accuracy(matrix: np.ndarray) -> float:
    """Mean of the accuracies of the classes that occur (mAcc); 0.0 without clouds."""
    support = matrix.sum(1)
    present = support > 0
    if not present.any():
        return 0.0
    return float((np.diag(matrix)[present] / support[present]).mean())


def part_ious(pred: np.ndarray, part: np.ndarray, parts: Sequence[int]) -> NDArray[np.float64]:
    """IoU of every part in every cloud (data-protocols, section 7).

    Args:
        pred: (n, P) answers for clouds of one category.
        part: (n, P) the truth.
        parts: Those of the category.

    Returns:
        (n, len(parts)). A part that neither answer nor truth holds counts as 1.
    """
    ious = np.ones((len(pred), len(parts)))
    for column, number in enumerate(parts):
        said, true = pred == number, part == number
        union = (said | true).sum(1)
        np.divide((said & true).sum(1), union, out=ious[:, column], where=union > 0)
    return ious
