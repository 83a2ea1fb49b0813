"""Rows by index, and the patches of a cloud: centres, members, coordinates relative to the centre."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pointlift.core.errors import UsageError
from pointlift.ops.neighbors import knn
from pointlift.ops.reference import gather_rows
from pointlift.ops.sampling import Ties, farthest_point_sample


def gather(values: Tensor, idx: Tensor) -> Tensor:
    """Rows of each cloud by index. Differentiable in `values`.

    Args:
        values: (B,N,C), any dtype.
        idx: int64 (B,...), indices per cloud (0 to N-1; a flat index reads another cloud's row or fails).

    Returns:
        (B,...,C): `out[b, ...] = values[b, idx[b, ...]]`.

    Raises:
        UsageError: Shapes or dtype that do not fit.
    """
    if values.dim() != 3 or idx.dim() < 1 or idx.shape[0] != values.shape[0]:
        raise UsageError(f"values {tuple(values.shape)} with idx {tuple(idx.shape)}", "(B,N,C) with (B,...)")
    if idx.dtype != torch.int64:
        raise UsageError(f"idx has dtype {idx.dtype}", "int64", "Convert it with .long()")
    return gather_rows(values, idx)


@dataclass(frozen=True)
class Grouping:
    """Patches of a batch of clouds. Indices are per cloud, never flat."""

    points: Tensor
    """The clouds (B,N,3)."""
    centers: Tensor
    """Patch centres (B,G,3)."""
    center_idx: Tensor
    """Which points the centres are: int64 (B,G)."""
    idx: Tensor
    """Members of each patch, nearest first, the centre among them: int64 (B,G,K)."""

    @property
    def neighborhoods(self) -> Tensor:
        """Members relative to their centre (B,G,K,3); not scaled."""
        return gather(self.points, self.idx) - self.centers[:, :, None]


def group(
    xyz: Tensor,
    num_groups: int,
    group_size: int,
    *,
    skip_near_origin: bool = False,
    ties: Ties = "lowest",
    center_idx: Tensor | None = None,
) -> Grouping:
    """Patches as Point-BERT, Point-MAE and Point-M2AE cut them: farthest points, each with its nearest
    points.

    Args:
        xyz: (B,N,3), finite.
        num_groups: Patches per cloud G.
        group_size: Points per patch K.
        skip_near_origin: See `farthest_point_sample`; released weights were trained with it.
        ties: See `farthest_point_sample`.
        center_idx: int64 (B,G): take these centres and sample none.

    Raises:
        UsageError: Wrong shapes, dtypes or tie rule.
        DataError: A cloud has fewer points than `num_groups` or `group_size`.
    """
    if center_idx is None:
        center_idx = farthest_point_sample(xyz, num_groups, skip_near_origin=skip_near_origin, ties=ties)
    elif center_idx.shape != (xyz.shape[0], num_groups):
        raise UsageError(f"center_idx has shape {tuple(center_idx.shape)}", f"{(xyz.shape[0], num_groups)}")
    centers = gather(xyz, center_idx)
    return Grouping(xyz, centers, center_idx, knn(centers, xyz, group_size).idx)
