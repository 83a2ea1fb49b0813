"""Chamfer distances between clouds."""

from typing import NamedTuple

import torch
from torch import Tensor

from pointlift.ops import library
from pointlift.ops.checks import as_pair
from pointlift.ops.reference import gather_rows, squared_distance


class ChamferResult(NamedTuple):
    """Nearest neighbours in both directions."""

    dist_a: Tensor
    """Squared distance from each point of `a` to its nearest in `b`, (B,N). Differentiable."""
    dist_b: Tensor
    """Squared distance from each point of `b` to its nearest in `a`, (B,M). Differentiable."""
    idx_a: Tensor
    """Which point of `b` that is, int64 (B,N)."""
    idx_b: Tensor
    """Which point of `a` that is, int64 (B,M)."""


def chamfer(a: Tensor, b: Tensor) -> ChamferResult:
    """Squared distances to the nearest point of the other cloud, both ways.

    Among equally near points the lowest index is taken, and it alone receives the gradient. The search is in
    float32; float64 inputs get float64 distances and gradients to the points found.

    Args:
        a: (B,N,3), finite.
        b: (B,M,3), finite.

    Raises:
        UsageError: Shapes, dtypes, devices or batch sizes that do not fit.
    """
    a, b = as_pair(a, b, ("a", "b"))
    if a.dtype == b.dtype == torch.float32:
        return ChamferResult(*library.chamfer(a, b))
    _, _, idx_a, idx_b = library.chamfer(a.detach().float(), b.detach().float())
    dist_a = squared_distance(a, gather_rows(b, idx_a))
    return ChamferResult(dist_a, squared_distance(b, gather_rows(a, idx_b)), idx_a, idx_b)


def chamfer_l2(a: Tensor, b: Tensor, *, ignore_zeros: bool = False) -> Tensor:
    """Mean squared distance from `a` to `b` plus that from `b` to `a`, over all clouds: a scalar.

    Args:
        a: (B,N,3).
        b: (B,M,3).
        ignore_zeros: The released rule: in a batch of one cloud, points whose coordinates sum to exactly 0
            (padding) are left out first; larger batches are taken as they are.
    """
    a, b = _without_zeros(a, b) if ignore_zeros else (a, b)
    result = chamfer(a, b)
    return result.dist_a.mean() + result.dist_b.mean()


def chamfer_l1(a: Tensor, b: Tensor, *, ignore_zeros: bool = False) -> Tensor:
    """Half of: mean distance from `a` to `b` plus that from `b` to `a`, over all clouds: a scalar.

    Where a point lies exactly on its nearest, the distance has no derivative; its gradient here is 0. (The
    released code gives NaN there, which spreads to every weight.)

    Args:
        a: (B,N,3).
        b: (B,M,3).
        ignore_zeros: As in `chamfer_l2`.
    """
    a, b = _without_zeros(a, b) if ignore_zeros else (a, b)
    result = chamfer(a, b)
    return (_root(result.dist_a).mean() + _root(result.dist_b).mean()) / 2


def _root(squared: Tensor) -> Tensor:
    """Square root with derivative 0 at 0."""
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), 0.0)


def _without_zeros(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape[0] != 1:
        return a, b
    return a[:, a[0].sum(-1) != 0], b[:, b[0].sum(-1) != 0]
