"""Scores of a classification from one integer confusion matrix."""

from __future__ import annotations

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
