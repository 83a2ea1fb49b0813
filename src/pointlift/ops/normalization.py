"""Clouds brought to a common place and size."""

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pointlift.core.errors import UsageError

Cloud = TypeVar("Cloud", Tensor, np.ndarray)


def normalize_unit_sphere(xyz: Cloud) -> Cloud:
    """Move the centroid to the origin and scale the farthest point to distance 1 (`pc_norm` of the released
    code).

    A cloud whose points are all the same becomes all zeros.

    Args:
        xyz: Tensor or numpy array, (N,3) or any (..., N, 3); each cloud by itself. Not changed in place.

    Raises:
        UsageError: Another shape, or no points.
    """
    if xyz.ndim < 2 or xyz.shape[-1] != 3 or xyz.shape[-2] == 0:
        raise UsageError(f"xyz has shape {tuple(xyz.shape)}", "(..., N, 3) with at least one point")
    if isinstance(xyz, np.ndarray):
        centered = xyz - xyz.mean(-2, keepdims=True)
        radius = np.sqrt((centered * centered).sum(-1, keepdims=True)).max(-2, keepdims=True)
        same = (xyz == xyz[..., :1, :]).all((-1, -2), keepdims=True)  # rounding may leave a residue of the centroid
        return np.where(same, 0, centered / np.where(same, 1, radius)).astype(xyz.dtype, copy=False)
    centered = xyz - xyz.mean(-2, keepdim=True)
    radius = centered.square().sum(-1, keepdim=True).sqrt().amax(-2, keepdim=True)
    same = (xyz == xyz[..., :1, :]).flatten(-2).all(-1)[..., None, None]
    return torch.where(same, torch.zeros_like(centered), centered / torch.where(same, torch.ones_like(radius), radius))
