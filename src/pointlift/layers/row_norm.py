"""BatchNorm over many rows, with statistics that do not lose digits."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Values whose deviations are summed in one go: they stay in the cache.
CHUNK = 1 << 17


def norm_rows(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """`norm(x)` for a `BatchNorm1d` on rows (R, C).

    In training on a CPU, PyTorch's kernel for this layout adds rows up one by one: over 30,000 rows its mean and
    variance are off by 1e-5 (its kernel for (B, C, L), with which the released models were trained, by 1e-7). A
    maximum over points then picks other points, and gradients move by 2 %. Sums here go in a tree, at the same speed.
    """
    narrow = x.device.type != "cpu" or x.dtype != torch.float32 or len(x) < 2
    if type(norm) is not nn.BatchNorm1d or not norm.training or norm.momentum is None or narrow:
        return norm(x)
    mean, var = _statistics(x.detach())
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        with torch.no_grad():
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(var * (len(x) / (len(x) - 1)), norm.momentum)
            norm.num_batches_tracked.add_(1)
    return _Normalize.apply(x, norm.weight, norm.bias, mean, var, norm.eps)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each column."""
    mean = x.mean(0)
    squares = torch.zeros(x.shape[1], dtype=torch.float64)
    for rows in x.split(max(1, CHUNK // x.shape[1])):
        squares += (rows - mean).square_().sum(0)
    return mean, (squares / len(x)).float()


class _Normalize(torch.autograd.Function):
    """weight (x - mean) / sqrt(var + eps) + bias, where mean and var are those of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(var + eps))
        ctx.eps = eps
        return F.batch_norm(x, mean, var, weight, bias, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        grads = torch.ops.aten.native_batch_norm_backward(
            grad.contiguous(), x, weight, None, None, mean, scale, True, ctx.eps, list(ctx.needs_input_grad[:3])
        )
        return (*grads, None, None, None)
