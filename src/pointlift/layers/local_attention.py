"""Attention among the members of small neighbourhoods, and carrying what is found there to every token.

Point-PEFT's geometry-aware adapter (arXiv 2310.03059, section 3.3; card `point-peft`, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointlift.layers.block import drop_path
from pointlift.layers.init import init_linears_, truncated
from pointlift.ops import farthest_point_sample, gather, knn, neighborhood_attention, neighborhood_max
from pointlift.ops.sampling import Ties


@dataclass(frozen=True)
class Surroundings:
    """Neighbourhoods in a table of located rows, and how what is found there reaches located tokens.

    They depend on coordinates alone, so that one serves every block of a trunk.
    """

    centers: Tensor
    """Where the neighbourhoods are (B,S,3)."""
    center_idx: Tensor
    """Which rows these are: int64 (B,S)."""
    idx: Tensor
    """Rows of each neighbourhood, nearest first: int64 (B,S,K)."""
    weights: Tensor
    """Share of each neighbourhood in each token (B,G,S), 1 in all."""

    @classmethod
    def of(
        cls, rows: Tensor, tokens: Tensor, count: int, size: int, *, skip_near_origin: bool = False, ties: Ties
    ) -> Surroundings:
        """Neighbourhoods around the farthest of `rows` (B, R, 3), carried to `tokens` (B, G, 3).

        Coordinates may be learnt: their gradient flows through the weights.

        Args:
            count: Neighbourhoods S.
            size: Their members K.
            skip_near_origin, ties: See `farthest_point_sample`.
        """
        center_idx = farthest_point_sample(rows, count, skip_near_origin=skip_near_origin, ties=ties)
        centers = gather(rows, center_idx)
        return cls(centers, center_idx, knn(centers, rows, size).idx, inverse_distance_weights(tokens, centers))

    def carry(self, feats: Tensor, factor: float = 1.0) -> Tensor:
        """Features of the neighbourhoods (B, S, C) at the tokens (B, G, C), times `factor`."""
        return (factor * self.weights).to(feats.dtype) @ feats  # weights are few beside tokens


def inverse_distance_weights(query: Tensor, points: Tensor, eps: float = 1e-8) -> Tensor:
    """1 / (d² + eps) between `query` (B, M, 3) and all `points` (B, S, 3), divided by the sum over them: (B, M, S).

    Squared distances are sums of squared differences in float32, so none is negative; differentiable in both.
    """
    with torch.autocast(query.device.type, enabled=False):
        q, p = query.float(), points.float()
        squared = (q[:, :, None, 0] - p[:, None, :, 0]).square()
        for axis in (1, 2):
            squared = squared + (q[:, :, None, axis] - p[:, None, :, axis]).square()
        inverse = (squared + eps).reciprocal()
        return inverse / inverse.sum(-1, keepdim=True)


class LocalAttention(nn.Module):
    """A small attention among the members of each neighbourhood, and their maximum; one serves all blocks of a trunk.

    Args:
        dim: Width of a row.
        inner: Channels of queries, keys and values together, over all heads.
        heads: Attention heads; they divide `inner`.
    """

    def __init__(self, dim: int, inner: int = 18, heads: int = 6) -> None:
        super().__init__()
        self.heads = heads
        # As released: by the width of all heads together, not of one.
        self.scale = inner**-0.5
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * inner, bias=False)
        self.proj = nn.Linear(inner, dim)
        init_linears_(self, truncated)

    def forward(
        self, table: Tensor, near: Surroundings, pool: Literal["max", "mean_plus_max"] = "max", drop: float = 0.0
    ) -> Tensor:
        """One row per neighbourhood.

        Args:
            table: Rows (B, R, C), as `near` was made of.
            pool: Over members: the largest values, or these plus the mean.
            drop: Drop path of the attention branch, per neighbourhood.

        Returns:
            (B, S, C).
        """
        b, s, _ = near.idx.shape
        # A row is in many neighbourhoods: what acts on rows runs once for each.
        mixed = neighborhood_attention(self.qkv(self.norm(table)), near.idx, self.heads, self.scale)
        alive = drop_path(mixed.new_ones(b * s, 1, 1), drop, self.training).view(b, s, 1, 1)
        if type(self.proj) is not nn.Linear:  # swapped (LoRA): it must be called
            members = gather(table, near.idx) + self.proj(mixed) * alive
            return members.max(2).values + (members.mean(2) if pool == "mean_plus_max" else 0)
        weight, bias = self.proj.weight, self.proj.bias * alive[..., 0]
        if drop and self.training:
            mixed = mixed * alive
        pooled = neighborhood_max(table, near.idx, mixed, weight) + bias
        if pool == "mean_plus_max":
            pooled = pooled + gather(table, near.idx).mean(2) + F.linear(mixed.mean(2), weight) + bias
        return pooled
