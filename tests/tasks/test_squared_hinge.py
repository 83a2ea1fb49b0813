"""The SVM's solver: the same problem as scikit-learn's LinearSVC, and so the same answers."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.svm import LinearSVC

from pointlift.tasks.squared_hinge import SquaredHingeSvm


def blobs(classes: int, count: int = 200, features: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centers = np.random.default_rng(5).normal(size=(classes, features))
    return centers[labels] + rng.normal(size=(count, features)), labels * 3 + 1


@pytest.mark.parametrize("C", [0.001, 0.1, 10.0])
@pytest.mark.parametrize("classes", [3, 7])
def test_it_is_the_problem_of_linear_svc(classes: int, C: float) -> None:
    X, y = blobs(classes)
    ours = SquaredHingeSvm(C, tolerance=1e-12).fit(X, y)
    theirs = LinearSVC(C=C, tol=1e-9, max_iter=100_000, random_state=0).fit(X, y)
    np.testing.assert_allclose(ours.coef_[:, :-1], theirs.coef_, atol=2e-4)
    np.testing.assert_allclose(ours.coef_[:, -1], theirs.intercept_, atol=2e-4)
    other, _ = blobs(classes, seed=1)
    assert (ours.predict(other) == theirs.predict(other)).mean() > 0.99
    quick = SquaredHingeSvm(C).fit(X, y)
    assert (quick.predict(other) == theirs.predict(other)).mean() > 0.98
    assert set(quick.classes_) == set(y)


def test_two_classes_have_two_values_that_mirror_each_other() -> None:
    X, y = blobs(2)
    values = SquaredHingeSvm().fit(X, y).decision_function(X)
    assert values.shape == (200, 2)
    np.testing.assert_allclose(values[:, 0], -values[:, 1], atol=1e-2)


def test_it_is_an_estimator_and_deterministic() -> None:
    X, y = blobs(4)
    first = SquaredHingeSvm(C=0.3).fit(X, y)
    again = clone(first).fit(X, y)
    assert again.C == 0.3
    np.testing.assert_array_equal(first.coef_, again.coef_)
    assert first.score(X, y) > 0.7


def test_a_search_that_was_stopped_says_so(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs(4)
    with caplog.at_level("WARNING"):
        SquaredHingeSvm(C=0.3).fit(X, y)
        assert not caplog.records
        monkeypatch.setattr("pointlift.tasks.squared_hinge.STEPS", 3)
        stopped = SquaredHingeSvm(C=0.3).fit(X, y)
    assert stopped.steps_ == 3
    assert "C = 0.3 stopped after 3 steps" in caplog.text
