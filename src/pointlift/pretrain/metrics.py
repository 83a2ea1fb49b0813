"""How close rebuilt clouds come to the clouds themselves (what the released dVAE reports of its test split)."""

from __future__ import annotations

import torch
from torch import Tensor

from pointlift.ops import chamfer


def reconstruction_metrics(rebuilt: Tensor, whole: Tensor, *, threshold: float = 0.01) -> dict[str, Tensor]:
    """Scores of each cloud.

    Args:
        rebuilt: (B, P, 3).
        whole: (B, N, 3).
        threshold: How near a point must lie to count as found, in the unit of the clouds.

    Returns:
        (B,) each: `cd_l1` (half the sum of the two mean distances), `cd_l2` (sum of the two mean squared distances),
        `f_score` (harmonic mean of the shares of points, rebuilt and true, that have one of the others near). The
        released code prints both distances times 1,000.
    """
    found = chamfer(rebuilt.float(), whole.float())
    to_whole, to_rebuilt = found.dist_a.sqrt(), found.dist_b.sqrt()
    precision = (to_whole < threshold).float().mean(1)
    recall = (to_rebuilt < threshold).float().mean(1)
    either = precision + recall
    return {
        "cd_l1": (to_whole.mean(1) + to_rebuilt.mean(1)) / 2,
        "cd_l2": found.dist_a.mean(1) + found.dist_b.mean(1),
        "f_score": torch.where(either > 0, 2 * precision * recall / either.clamp_min(1e-12), 0.0),
    }


def category_means(values: Tensor, category: Tensor) -> dict[int, float]:
    """Mean of `values` (B,) for every category number that occurs in `category` (B,); released scores average these."""
    kinds, place = category.unique(return_inverse=True)
    sums = values.new_zeros(len(kinds), dtype=torch.float64).index_add(0, place, values.double())
    counts = place.bincount(minlength=len(kinds))
    return dict(zip(kinds.tolist(), (sums / counts).tolist(), strict=True))
