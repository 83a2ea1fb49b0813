"""Features of a coarse cloud carried to a fine one through its three nearest points (PointNet++)."""

from typing import Literal

import torch
from torch import Tensor

from pointlift.core.errors import UsageError
from pointlift.ops import library
from pointlift.ops.neighbors import three_nn


def interpolation_weights(dist: Tensor, *, power: Literal[1, 2] = 2, eps: float = 1e-8) -> Tensor:
    """Weights 1 / (dist**power + eps), divided by their sum.

    Args:
        dist: Euclidean distances (..., 3), as `three_nn` returns them.
        power: 2 is the feature propagation of the released models, 1 that of the CUDA example of PointNet++.
        eps: Added to the (squared) distance; a query on a point gets that point's features.

    Raises:
        UsageError: Another power.
    """
    if power not in (1, 2):
        raise UsageError(f"power = {power}", "1 or 2")
    inverse = 1.0 / ((dist if power == 1 else dist * dist) + eps)
    return inverse / inverse.sum(-1, keepdim=True)


def three_interpolate(feats: Tensor, idx: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of three feature rows. Differentiable in `feats` and `weight`.

    Args:
        feats: (B,S,C). Half precision is summed in float32 and returned in its own dtype.
        idx: int64 (B,M,3), indices per cloud.
        weight: (B,M,3).

    Returns:
        (B,M,C), dtype of `feats`.

    Raises:
        UsageError: Shapes that do not fit, or indices outside 0..S-1.
    """
    if feats.dim() != 3 or idx.dim() != 3 or idx.shape[-1] != 3 or feats.shape[0] != idx.shape[0]:
        raise UsageError(f"feats {tuple(feats.shape)} with idx {tuple(idx.shape)}", "(B,S,C) with (B,M,3)")
    if weight.shape != idx.shape:
        raise UsageError(f"weight has shape {tuple(weight.shape)}", f"that of idx, {tuple(idx.shape)}")
    dtype = torch.float64 if feats.dtype == torch.float64 else torch.float32
    return library.three_interpolate(feats.to(dtype), idx, weight.to(dtype)).to(feats.dtype)


def interpolate(query: Tensor, points: Tensor, feats: Tensor, *, power: Literal[1, 2] = 2) -> Tensor:
    """Features (B,S,C) at `points` (B,S,3) carried to `query` (B,M,3): (B,M,C). Differentiable in `feats`."""
    dist, idx = three_nn(query, points)
    return three_interpolate(feats, idx, interpolation_weights(dist, power=power))
