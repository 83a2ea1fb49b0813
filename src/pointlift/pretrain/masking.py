"""Which patches are hidden. A mask is (B, G) bool, True = hidden."""

from __future__ import annotations

import torch
from torch import Tensor

from pointlift.ops import knn


def num_hidden(groups: int, ratio: float) -> int:
    """How many of `groups` patches a ratio hides: rounded down, as released."""
    return int(ratio * groups)


def random_order(batch: int, groups: int, generator: torch.Generator) -> Tensor:
    """A random permutation of 0 .. G-1 per cloud, int64 (B, G)."""
    return torch.rand(batch, groups, generator=generator, device=generator.device).argsort(1)


def random_mask(order: Tensor, hidden: int) -> Tensor:
    """Hide `hidden` patches at random, as many in every cloud (Point-MAE section 3.1).

    Args:
        order: A permutation of 0 .. G-1 per cloud (B, G), from `random_order`.
    """
    return order >= order.shape[1] - hidden


def block_mask(centers: Tensor, anchor: Tensor, hidden: int | Tensor) -> Tensor:
    """Hide the `hidden` patches nearest to one of them (Point-BERT's and Point-MAE's block masking).

    Args:
        centers: (B, G, 3).
        anchor: Which patch each block grows from, int64 (B,); it is hidden itself.
        hidden: How many, in every cloud or in each: int64 (B,).
    """
    mask = torch.zeros(centers.shape[:2], dtype=torch.bool, device=centers.device)
    if isinstance(hidden, int) and hidden == 0:
        return mask
    rows = torch.arange(len(centers), device=centers.device)
    most = hidden if isinstance(hidden, int) else centers.shape[1]
    nearest = knn(centers[rows, anchor].unsqueeze(1), centers, most).idx[:, 0]
    if isinstance(hidden, int):
        return mask.scatter(1, nearest, True)
    return mask.scatter(1, nearest, torch.arange(most, device=centers.device) < hidden.unsqueeze(1))
