"""Numbers about classes and mistakes, against small cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pointlift.report.scores import (
    class_rows,
    confident_mistakes,
    similar_order,
    softmax,
    top_confusions,
    wilson_interval,
)

MATRIX = np.array([[8, 2, 0], [1, 5, 0], [0, 0, 0]])  # third class: no cloud, never predicted


def test_softmax_survives_large_logits():
    probabilities = softmax(np.array([[1000.0, 1000.0], [0.0, np.log(3.0)]]))
    np.testing.assert_allclose(probabilities, [[0.5, 0.5], [0.25, 0.75]])


def test_class_rows():
    first, second, third = class_rows(MATRIX, ["a", "b", "c"])
    assert (first.support, first.predicted, first.recall, first.precision) == (10, 9, 0.8, 8 / 9)
    assert (first.confused_with, first.confused_count) == ("b", 2)
    assert (second.recall, second.precision) == (5 / 6, 5 / 7)
    assert (third.recall, third.precision, third.confused_with) == (None, None, "")


def test_top_confusions_are_sorted_and_limited():
    pairs = top_confusions(MATRIX, 10)
    assert [(p.true, p.predicted, p.count, p.share) for p in pairs] == [(0, 1, 2, 0.2), (1, 0, 1, 1 / 6)]
    assert len(top_confusions(MATRIX, 1)) == 1


def test_confident_mistakes_surest_first():
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.8, 0.2]])
    found = confident_mistakes(probabilities, np.array([0, 1, 1]), limit=5)
    assert [(m.row, m.true, m.predicted, m.probability) for m in found] == [(2, 1, 0, 0.8), (1, 1, 0, 0.7)]
    assert found[0].true_probability == 0.2


def test_wilson_interval_against_published_values():
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_similar_order_puts_confused_classes_side_by_side():
    matrix = np.diag([10, 10, 10, 10, 10, 10])
    matrix[0, 4] = matrix[4, 0] = 6
    matrix[1, 5] = 5
    order = similar_order(matrix)
    assert sorted(order) == list(range(6))
    assert abs(order.index(0) - order.index(4)) == 1
    assert abs(order.index(1) - order.index(5)) == 1
