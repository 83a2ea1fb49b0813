"""Attention among the members of small neighbourhoods of rows."""

import torch
from torch import Tensor

from pointlift.core.errors import UsageError
from pointlift.ops import library, reference
from pointlift.ops.checks import check_neighborhoods


def neighborhood_attention(qkv: Tensor, idx: Tensor, heads: int, scale: float) -> Tensor:
    """Attention among the members of each neighbourhood of rows of a table. Differentiable in `qkv`.

    Computed in float32 whatever autocast says, in float64 where that is given. Neither members nor weights are held:
    the way back computes them again.

    Args:
        qkv: Queries, keys and values of each row (B,R,3·H·D): all heads of the first, then of the second, then of
            the third.
        idx: Rows of each neighbourhood, int64 (B,S,K), per cloud; one may stand there several times.
        heads: Attention heads H.
        scale: Factor on the products of queries and keys, before the softmax over the K members.

    Returns:
        (B,S,K,H·D), dtype of `qkv`.

    Raises:
        UsageError: Shapes or dtypes that do not fit, or, on a CPU, indices outside 0..R-1.
    """
    check_neighborhoods("qkv", qkv, idx)
    if heads < 1 or qkv.shape[2] < 1 or qkv.shape[2] % (3 * heads):
        raise UsageError(f"qkv of width {qkv.shape[2]} for {heads} heads", "a multiple of three times the heads")
    with torch.autocast(qkv.device.type, enabled=False):
        if qkv.dtype == torch.float64:
            return reference.neighborhood_attention(qkv, idx, heads, scale)
        return library.neighborhood_attention(qkv.float(), idx, heads, scale).to(qkv.dtype)
