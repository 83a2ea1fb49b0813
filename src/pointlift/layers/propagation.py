"""Feature propagation: features of a coarse level carried to the points of a fine one (PointNet++, section 3.4)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointlift.layers.linear import linear_norm
from pointlift.layers.row_norm import norm_rows
from pointlift.ops import interpolation_weights, three_interpolate, three_nn

Activation = Callable[[Tensor], Tensor]


class PointMlp(nn.Module):
    """Linear, BatchNorm, activation, several times over, on rows; dropout behind the first.

    What goes into the first layer often comes in two parts, one of which many rows share. `first` applies its
    weights to the parts apart, so that the shared one costs a row instead of many.
    """

    def __init__(self, in_dim: int, widths: Sequence[int], dropout: float = 0.0, act: Activation = F.relu) -> None:
        super().__init__()
        self.act = act
        self.fcs = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise([in_dim, *widths]))
        self.bns = nn.ModuleList(nn.BatchNorm1d(width) for width in widths)
        self.dropout = nn.Dropout(dropout)

    @property
    def splits(self) -> bool:
        """Whether the first layer may be read instead of called; not when it was swapped (LoRA)."""
        return type(self.fcs[0]) is nn.Linear

    def first(self, x: Tensor, start: int, *, bias: bool) -> Tensor:
        """The first layer's share of input columns `start` and following, for x (..., C): (..., widths[0])."""
        fc = cast(nn.Linear, self.fcs[0])
        return F.linear(x, fc.weight[:, start : start + x.shape[-1]], fc.bias if bias else None)

    def after_first(self, x: Tensor) -> Tensor:
        """What follows the first linear layer: (R, widths[0]) -> (R, widths[-1])."""
        x = self.dropout(self.act(norm_rows(cast(nn.BatchNorm1d, self.bns[0]), x)))
        for fc, bn in zip(self.fcs[1:], self.bns[1:], strict=True):
            x = self.act(linear_norm(x, fc, cast(nn.BatchNorm1d, bn)))
        return x


class FeaturePropagation(nn.Module):
    """Carry features to other points through their three nearest, join what is known there, run a `PointMlp`.

    Args:
        skip_dim: Channels known at the fine points (their coordinates, or features of their level).
        in_dim: Channels of the coarse features.
        widths: Of the `PointMlp`.
        act: Its activation.
    """

    def __init__(self, skip_dim: int, in_dim: int, widths: Sequence[int], act: Activation = F.relu) -> None:
        super().__init__()
        self.skip_dim = skip_dim
        self.mlp = PointMlp(skip_dim + in_dim, widths, act=act)

    def forward(self, xyz: Tensor, centers: Tensor, skip: Tensor, feats: Tensor) -> Tensor:
        """Fine features.

        Args:
            xyz: Fine points (B, N, 3).
            centers: Coarse points (B, G, 3).
            skip: What is known at the fine points (B, N, skip_dim).
            feats: Coarse features (B, G, in_dim).

        Returns:
            (B, N, widths[-1]).
        """
        b, n, _ = xyz.shape
        dist, idx = three_nn(xyz, centers)
        weight = interpolation_weights(dist)
        if self.mlp.splits:
            # Both steps are linear: the layer runs on the few coarse points instead of on every fine one.
            carried = three_interpolate(self.mlp.first(feats, self.skip_dim, bias=False), idx, weight)
            rows = carried + self.mlp.first(skip, 0, bias=True)
        else:
            rows = self.mlp.fcs[0](torch.cat([skip, three_interpolate(feats, idx, weight)], -1))
        return self.mlp.after_first(rows.reshape(b * n, -1)).view(b, n, -1)


class ResidualMlp(nn.Module):
    """Linear, BatchNorm, GELU, Linear, BatchNorm, added to what came in; GELU (PointMLP's residual block)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.bn1 = nn.Linear(dim, dim), nn.BatchNorm1d(dim)
        self.fc2, self.bn2 = nn.Linear(dim, dim), nn.BatchNorm1d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        rows = x.flatten(0, 1)
        inner = F.gelu(linear_norm(rows, self.fc1, self.bn1))
        return F.gelu(linear_norm(inner, self.fc2, self.bn2) + rows).view_as(x)
