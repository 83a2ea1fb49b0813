"""Numbers that the page shows about the classes, all from one confusion matrix (rows true, columns predicted)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassRow:
    """One class of the per-class table; a share that has no denominator is None."""

    index: int
    name: str
    support: int
    predicted: int
    recall: float | None
    precision: float | None
    confused_with: str
    confused_count: int


@dataclass(frozen=True)
class Confusion:
    """One kind of mistake: `count` clouds of class `true` were called `predicted`."""

    true: int
    predicted: int
    count: int
    share: float


@dataclass(frozen=True)
class Mistake:
    """One cloud that was called something else: row of the predictions, classes and their probabilities."""

    row: int
    true: int
    predicted: int
    probability: float
    true_probability: float


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) from logits (N, C)."""
    if logits.size == 0:
        return np.zeros_like(logits, dtype=np.float64)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def class_rows(matrix: np.ndarray, classes: Sequence[str]) -> list[ClassRow]:
    """Support, recall, precision and the most frequent wrong answer of each class."""
    support, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    rows = []
    for index, name in enumerate(classes):
        wrong = matrix[index].copy()
        wrong[index] = 0
        other = int(wrong.argmax())
        right = int(matrix[index, index])
        rows.append(
            ClassRow(
                index=index,
                name=name,
                support=int(support[index]),
                predicted=int(predicted[index]),
                recall=right / int(support[index]) if support[index] else None,
                precision=right / int(predicted[index]) if predicted[index] else None,
                confused_with=classes[other] if wrong[other] else "",
                confused_count=int(wrong[other]),
            )
        )
    return rows


def top_confusions(matrix: np.ndarray, limit: int) -> list[Confusion]:
    """The most frequent mistakes, most clouds first; of equal counts the larger share of its class first."""
    support = matrix.sum(axis=1)
    pairs = [
        Confusion(int(r), int(c), int(matrix[r, c]), float(matrix[r, c] / support[r]))
        for r, c in zip(*np.nonzero(matrix), strict=True)
        if r != c
    ]
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.share, pair.true, pair.predicted))[:limit]


def confident_mistakes(probabilities: np.ndarray, label: np.ndarray, limit: int) -> list[Mistake]:
    """Wrongly classified clouds, the surest wrong answer first."""
    predicted = probabilities.argmax(axis=1)
    sure = probabilities[np.arange(len(label)), predicted]
    wrong = np.flatnonzero(predicted != label)
    ordered = wrong[np.argsort(-sure[wrong], kind="stable")][:limit]
    return [
        Mistake(int(i), int(label[i]), int(predicted[i]), float(sure[i]), float(probabilities[i, label[i]]))
        for i in ordered
    ]


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """95 % interval of a share `right / total` (Wilson, 1927): what another draw of the test clouds could give."""
    z = 1.959964
    share = right / total
    centre = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def similar_order(matrix: np.ndarray) -> list[int]:
    """An order of the classes that puts those that are taken for each other side by side.

    Average linkage over 1 - (share of i called j + share of j called i) / 2, with optimally ordered leaves.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    count = len(matrix)
    if count < 3:
        return list(range(count))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    distance = 1.0 - (shares + shares.T) / 2
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), method="average", optimal_ordering=True)
    return [int(i) for i in leaves_list(tree)]
