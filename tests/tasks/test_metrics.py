"""Scores against scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as peer

from pointlift.tasks.metrics import confusion_matrix, mean_class_accuracy, overall_accuracy


@pytest.mark.parametrize("seed", range(5))
def test_against_sklearn_with_absent_classes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = rng.choice([0, 2, 3, 6], 50)  # 1, 4 and 5 do not occur
    pred = np.where(rng.random(50) < 0.5, label, rng.integers(0, 7, 50))
    matrix = confusion_matrix(pred, label, 7)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, peer.confusion_matrix(label, pred, labels=range(7)))
    assert overall_accuracy(matrix) == pytest.approx(peer.accuracy_score(label, pred))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn says that predicted classes do not occur
        assert mean_class_accuracy(matrix) == pytest.approx(peer.balanced_accuracy_score(label, pred))


def test_matrices_of_parts_add_up() -> None:
    rng = np.random.default_rng(0)
    pred, label = rng.integers(0, 4, 30), rng.integers(0, 4, 30)
    parts = confusion_matrix(pred[:11], label[:11], 4) + confusion_matrix(pred[11:], label[11:], 4)
    np.testing.assert_array_equal(parts, confusion_matrix(pred, label, 4))


def test_nothing_scored_is_zero() -> None:
    empty = confusion_matrix(np.empty(0, int), np.empty(0, int), 3)
    assert overall_accuracy(empty) == mean_class_accuracy(empty) == 0.0
