"""Farthest point sampling."""

from typing import Literal

import torch
from torch import Tensor

from pointlift.core.errors import UsageError
from pointlift.ops import library
from pointlift.ops.checks import as_clouds, check_count, check_range

Ties = Literal["lowest", "block"]


def farthest_point_sample(
    xyz: Tensor, num: int, *, start: int | Tensor = 0, skip_near_origin: bool = False, ties: Ties = "lowest"
) -> Tensor:
    """Indices of `num` points per cloud, each the farthest from all points taken before it.

    The first index is `start`; then, each time, the point with the largest squared distance to its nearest
    taken point. Once only copies of taken points are left, their distance is 0 and the tie rule alone
    decides, so an index may repeat.

    Args:
        xyz: Finite coordinates (B,N,3). Distances are computed in float32.
        num: Points to take, 1 to N.
        start: First index, one for all clouds or an int64 tensor (B,).
        skip_near_origin: The rule of the released CUDA kernel: after the first, a point with x² + y² + z² <=
            1e-3 is never taken; where no other point is in the cloud, index 0 is repeated.
        ties: Which of equally far points is taken. "lowest": the lowest index. "block": the order of the
            released CUDA kernel's block reduction (point i belongs to thread i mod T, T the largest power of
            two up to N and 512; the thread with the smallest bit-reversed number wins, inside a thread the
            lowest index).

    Returns:
        int64 (B,num), in the order of taking.

    Raises:
        UsageError: Wrong shape, dtype, start or tie rule.
        DataError: `num` exceeds N.
    """
    points = as_clouds("xyz", xyz).detach().float()
    n = points.shape[1]
    check_count("num", num, n)
    first = _as_start(start, points)
    if ties == "lowest":
        return library.farthest_point_sample(points, num, first, skip_near_origin)
    if ties != "block":
        raise UsageError(f"ties = {ties!r}", "'lowest' or 'block'")
    # Among points in this order the lowest position is the right one, so one kernel serves both rules.
    order = _block_order(n, points.device)
    picked = library.farthest_point_sample(points[:, order], num, order.argsort()[first], skip_near_origin)
    return order[picked]


def _as_start(start: int | Tensor, points: Tensor) -> Tensor:
    batch, n = points.shape[:2]
    if isinstance(start, Tensor):
        if start.shape != (batch,) or start.dtype != torch.int64:
            raise UsageError(f"start has shape {tuple(start.shape)} and dtype {start.dtype}", f"int64 ({batch},)")
        check_range("start", start, n)
        return start.to(points.device)
    if not 0 <= start < n:
        raise UsageError(f"start = {start}", f"an index from 0 to {n - 1}")
    return torch.full((batch,), start, dtype=torch.int64, device=points.device)


def _block_order(n: int, device: torch.device) -> Tensor:
    """Point indices by (bit-reversed thread, index), the preference of the released block reduction."""
    bits = min(n.bit_length() - 1, 9)
    index = torch.arange(n, device=device)
    thread = index % (1 << bits)
    reversed_thread = torch.zeros_like(thread)
    for bit in range(bits):
        reversed_thread |= (thread >> bit & 1) << (bits - 1 - bit)
    return (reversed_thread * n + index).argsort()
