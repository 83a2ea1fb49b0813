"""Principal axes whose signs are settled, so that pictures of the same features look the same."""

from __future__ import annotations

import numpy as np


def principal_axes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal axes of centred rows (n, C), by falling variance.

    Returns:
        Variances times n (C,), and axes (C, C), one a column; the largest entry of each is positive.
    """
    values, axes = np.linalg.eigh(rows.T @ rows)
    values, axes = np.maximum(values[::-1], 0), axes[:, ::-1]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0, keepdims=True), axis=0)
    return values, axes * np.where(largest < 0, -1.0, 1.0)
