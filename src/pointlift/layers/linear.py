"""Linear layers with the normalisation behind them folded in."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointlift.layers.row_norm import norm_rows


def fold_norm(linear: nn.Module, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor] | None:
    """Weight (C_out, C_in) and bias (C_out,) of `norm(linear(x))`, where that is one linear map.

    With fixed statistics (evaluation, frozen BatchNorm) the normalisation is a factor and a shift per channel. None
    while statistics come from the batch, and for a layer that was swapped (LoRA): it must be called, not read.
    """
    if norm.training or norm.running_mean is None or norm.running_var is None or type(linear) is not nn.Linear:
        return None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    bias = norm.bias - norm.running_mean * scale
    if linear.bias is not None:
        bias = bias + linear.bias * scale
    return linear.weight * scale[:, None], bias


def linear_norm(x: Tensor, linear: nn.Module, norm: nn.BatchNorm1d) -> Tensor:
    """norm(linear(x)) on rows (R, C_in) -> (R, C_out), in one product where `fold_norm` allows."""
    folded = fold_norm(linear, norm)
    return norm_rows(norm, linear(x)) if folded is None else F.linear(x, *folded)
