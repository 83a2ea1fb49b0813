"""From samples to batches (dicts of tensors), dense and packed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pointlift.core.errors import DataError
from pointlift.data.dataset import Sample
from pointlift.data.pipeline import PER_POINT

Batch = dict[str, Tensor]


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples: `xyz` (B, N, 3) float32, `label` and `index` (B,) int64, and what else they carry.

    Raises:
        DataError: The clouds have different numbers of points.
    """
    sizes = {len(s["xyz"]) for s in samples}
    if len(sizes) != 1:
        raise DataError(
            f"clouds of {min(sizes, default=0)} to {max(sizes, default=0)} points in one dense batch",
            "the same number in every cloud",
            "Use a transform that resamples, or `collate_packed`",
        )
    return {key: torch.from_numpy(np.stack([s[key] for s in samples])) for key in samples[0]}


def collate_packed(samples: Sequence[Sample]) -> Batch:
    """Join samples of any sizes: per-point arrays (P, ...), `offsets` (B + 1,) int64, others stacked."""
    sizes = [len(s["xyz"]) for s in samples]
    batch = {
        key: torch.from_numpy((np.concatenate if key in PER_POINT else np.stack)([s[key] for s in samples]))
        for key in samples[0]
    }
    batch["offsets"] = torch.from_numpy(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
    return batch


def to_packed(batch: Batch) -> Batch:
    """A dense batch as a packed one: (B, N, ...) per-point tensors as (B * N, ...), and `offsets` (B + 1,).

    Points that `valid` (B, N) marks as filling are left out. A packed batch comes back as it is.
    """
    if "offsets" in batch:
        return batch
    xyz = batch["xyz"]
    valid = batch.get("valid", torch.ones(xyz.shape[:2], dtype=torch.bool, device=xyz.device))
    packed = {k: v[valid] if k in PER_POINT else v for k, v in batch.items() if k != "valid"}
    packed["offsets"] = torch.nn.functional.pad(valid.sum(dim=1).cumsum(0), (1, 0))
    return packed


def to_dense(batch: Batch) -> Batch:
    """A packed batch as a dense one: (P, ...) per-point tensors as (B, N, ...), N the largest cloud.

    Smaller clouds are filled with their own first point, and `valid` (B, N) bool says which points are real;
    with clouds of one size there is no `valid`. A dense batch comes back as it is.
    """
    if "offsets" not in batch:
        return batch
    offsets = batch["offsets"]
    sizes = offsets.diff()
    column = torch.arange(int(sizes.max()), device=offsets.device)
    valid = column < sizes[:, None]
    rows = offsets[:-1, None] + torch.where(valid, column, 0)
    dense = {k: v[rows] if k in PER_POINT else v for k, v in batch.items() if k != "offsets"}
    return dense if bool(valid.all()) else dense | {"valid": valid}
