"""Neighbour searches: k nearest, those in a ball, three nearest. Indices are per cloud; no gradient flows."""

import math
from typing import NamedTuple

from torch import Tensor

from pointlift.core.errors import UsageError
from pointlift.ops import library
from pointlift.ops.checks import as_search_pair, check_count


class Neighbors(NamedTuple):
    """Neighbours of each query, nearest first."""

    dist: Tensor
    """Euclidean distances (B,M,k), float32."""
    idx: Tensor
    """Indices into the cloud's points (B,M,k), int64."""


def knn(query: Tensor, points: Tensor, k: int) -> Neighbors:
    """The k nearest points of each query, nearest first.

    Squared distances are sums of squared float32 differences (never the expansion a² + b² - 2ab), so a query
    that is one of the points finds itself at distance 0. Ties, duplicates included, are in order of index.
    Memory grows with B·M·k + B·N, never with M·N.

    Args:
        query: (B,M,3), finite.
        points: (B,N,3), finite.
        k: Neighbours per query, 1 to N.

    Returns:
        `Neighbors(dist, idx)`, both (B,M,k).

    Raises:
        UsageError: Shapes, dtypes, devices or batch sizes that do not fit.
        DataError: `k` exceeds N.
    """
    query, points = as_search_pair(query, points)
    check_count("k", k, points.shape[1])
    return Neighbors(*library.knn(query, points, k))


def ball_query(query: Tensor, points: Tensor, radius: float, k: int) -> Tensor:
    """The first k points, by index, that lie nearer to each query than `radius`.

    A point at exactly the radius is outside (float32: d² < radius²). With fewer than k inside, the first one
    fills the remaining places; with none, all places hold index 0. k may exceed N.

    Args:
        query: (B,M,3), finite.
        points: (B,N,3), finite.
        radius: Positive, in the unit of the coordinates.
        k: Places per query, at least 1.

    Returns:
        int64 (B,M,k).

    Raises:
        UsageError: A radius that is not positive, or shapes, dtypes, devices or batch sizes that do not fit.
    """
    query, points = as_search_pair(query, points)
    if not (radius > 0 and math.isfinite(radius)):
        raise UsageError(f"radius = {radius}", "a positive number")
    if k < 1:
        raise UsageError(f"k = {k}", "at least 1")
    return library.ball_query(query, points, radius, k)


def three_nn(query: Tensor, points: Tensor) -> Neighbors:
    """The three nearest points of each query: `knn` with k = 3, by a kernel of its own.

    Args:
        query: (B,M,3), finite.
        points: (B,S,3), finite, S at least 3.

    Returns:
        `Neighbors(dist, idx)`, both (B,M,3).

    Raises:
        UsageError: Shapes, dtypes, devices or batch sizes that do not fit.
        DataError: Fewer than three points.
    """
    query, points = as_search_pair(query, points)
    check_count("neighbours", 3, points.shape[1])
    return Neighbors(*library.three_nn(query, points))
