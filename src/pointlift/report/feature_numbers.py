"""Numbers about feature vectors: who is next to whom, how well neighbours agree, and maps of two dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pointlift.tasks.principal import principal_axes

VOTERS = 20
TEMPERATURE = 0.07  # of the votes; both as in Wu et al. 2018 (arXiv 1805.01978), but for their 200 voters
CHUNK = 1024
LEAST_FOR_TSNE = 12
TSNE_INPUTS = 50


def unit(features: np.ndarray) -> np.ndarray:
    """Vectors (n, C) float32 of length 1; those of length 0 stay."""
    length = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    return (features / np.where(length > 0, length, 1.0)).astype(np.float32)


def neighbours(features: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest others by cosine, nearest first: indices (n, k) int64 and cosines (n, k), k <= `count`."""
    rows = unit(features)
    k = min(count, len(rows) - 1)
    if k < 1:
        return np.zeros((len(rows), 0), np.int64), np.zeros((len(rows), 0), np.float32)
    near, cosine = [], []
    for start in range(0, len(rows), CHUNK):
        alike = rows[start : start + CHUNK] @ rows.T
        own = np.arange(start, start + len(alike))
        alike[np.arange(len(alike)), own] = -np.inf
        some = np.argpartition(-alike, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(alike, some, axis=1)
        order = np.lexsort((some, -values), axis=1)
        near.append(np.take_along_axis(some, order, axis=1))
        cosine.append(np.take_along_axis(values, order, axis=1))
    return np.concatenate(near), np.concatenate(cosine)


def neighbour_votes(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """What the other clouds say of each: (n,) classes by a vote of its 20 nearest, weighted by exp(cosine / 0.07)."""
    near, cosine = neighbours(features, VOTERS)
    votes = np.zeros((len(features), classes))
    weight = np.exp((cosine - cosine[:, :1]) / TEMPERATURE)
    np.add.at(votes, (np.arange(len(features))[:, None], labels[near]), weight)
    return votes.argmax(axis=1)


@dataclass(frozen=True)
class Principal:
    """Principal components: places (n, 2), and the share of the variance of each component, largest first."""

    places: np.ndarray
    explained: np.ndarray


def principal(features: np.ndarray) -> Principal:
    """Principal components of vectors (n, C) as they are, centred; the largest loading of each axis is positive."""
    rows = features.astype(np.float64)
    rows = rows - rows.mean(axis=0)
    values, axes = principal_axes(rows)
    places = np.zeros((len(rows), 2))
    places[:, : min(2, axes.shape[1])] = rows @ axes[:, :2]
    return Principal(places, values / (values.sum() or 1.0))


def tsne(features: np.ndarray) -> np.ndarray | None:
    """A t-SNE map (n, 2) of the vectors at length 1, seed 0, perplexity 30 or less; None for fewer than 12 clouds."""
    if len(features) < LEAST_FOR_TSNE:
        return None
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows = unit(features)
    inputs = min(TSNE_INPUTS, *rows.shape)
    rows = PCA(inputs, svd_solver="full").fit_transform(rows)
    if rows.std(axis=0).max() < 1e-6:  # all alike: there is nothing to lay out
        return np.zeros((len(rows), 2))
    perplexity = min(30.0, (len(rows) - 1) / 4)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(rows).astype(np.float64)
