"""A linear SVM for dense features: the problem of scikit-learn's `LinearSVC`, solved for all classes at once.

liblinear solves one class after the other on a sparse layout and takes minutes for ten thousand clouds of 40 classes;
here every step is a few matrix products.
"""

from __future__ import annotations

import logging

import numpy as np
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin

logger = logging.getLogger(__name__)
STEPS = 1000  # far more than a C takes that generalises
TOLERANCE = 1e-6  # relative decrease of the objective that ends the search


class SquaredHingeSvm(ClassifierMixin, BaseEstimator):
    """One class against the rest: minimise 1/2 |w|² + C Σ max(0, 1 - y (w·x + b))², the bias being penalised too.

    Args:
        C: Inverse regularisation.
        tolerance: As `TOLERANCE`.

    Attributes:
        classes_: (k,) sorted labels.
        coef_: (k, F + 1) float64, the bias last.
        steps_: How many the search took, at most `STEPS`; a warning says so where these did not suffice.
    """

    def __init__(self, C: float = 1.0, tolerance: float = TOLERANCE) -> None:
        self.C, self.tolerance = C, tolerance

    def fit(self, X: np.ndarray, y: np.ndarray) -> SquaredHingeSvm:
        """X (n, F), y (n,)."""
        self.classes_, codes = np.unique(y, return_inverse=True)
        table = _with_one(X)
        sign = np.where(codes[:, None] == np.arange(len(self.classes_)), 1.0, -1.0)
        shape = (table.shape[1], len(self.classes_))

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            weights = flat.reshape(shape)
            short = np.maximum(0.0, 1.0 - sign * (table @ weights))
            value = 0.5 * np.vdot(weights, weights) + self.C * np.vdot(short, short)
            short *= sign
            return float(value), (weights - 2 * self.C * (table.T @ short)).ravel()

        options = {"maxiter": STEPS, "maxfun": 2 * STEPS, "maxcor": 20, "ftol": self.tolerance, "gtol": 0.0}
        found = minimize(objective, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options=options)
        self.coef_ = found.x.reshape(shape).T
        self.steps_ = int(found.nit)
        if not found.success:
            logger.warning(
                "the linear SVM with C = %g stopped after %d steps (%s): its scores are not those of a finished "
                "search; a smaller C needs fewer",
                self.C,
                self.steps_,
                str(found.message).lower(),
            )
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """(n, k): the larger, the more likely."""
        return _with_one(X) @ self.coef_.T

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(n,) labels."""
        return self.classes_[self.decision_function(X).argmax(1)]


def _with_one(X: np.ndarray) -> np.ndarray:
    return np.concatenate([np.asarray(X, np.float64), np.ones((len(X), 1))], axis=1)
