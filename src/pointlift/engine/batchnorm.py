"""BatchNorm over the batches of all processes, on CPU as on GPU (`nn.SyncBatchNorm` refuses the CPU)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pointlift.engine.distributed import all_reduce_sum, world_size


class _Normalize(torch.autograd.Function):
    """(x − mean) / sqrt(var + eps) with mean and variance over all processes; x (N,C,*) in its own dtype."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dims, view = _axes(x)
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        sums = torch.cat([wide.sum(dims), wide.new_full((1,), x.numel() / x.shape[1])])
        all_reduce_sum(sums)
        count = sums[-1]
        mean = sums[:-1] / count
        # A second pass for the variance: E[x²] − E[x]² cancels where the mean is large.
        centered = wide - mean.view(view)
        var = all_reduce_sum(centered.square().sum(dims)) / count
        scale = torch.rsqrt(var + eps)
        ctx.save_for_backward(x, mean, scale, count)
        ctx.mark_non_differentiable(mean, var, count)
        return centered * scale.view(view), mean, var, count

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, None]:
        x, mean, scale, count = ctx.saved_tensors
        dims, view = _axes(x)
        normalized = (x.to(grad.dtype) - mean.view(view)) * scale.view(view)
        sums = torch.stack([grad.sum(dims), (grad * normalized).sum(dims)])
        mean_grad, mean_product = (all_reduce_sum(sums) / count).unbind()
        grad_x = (grad - mean_grad.view(view) - normalized * mean_product.view(view)) * scale.view(view)
        return grad_x.to(x.dtype), None


class AllReducedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """A BatchNorm1d, 2d or 3d whose training statistics come from the batches of all processes.

    State and options are those of `nn.BatchNorm*d`. Processes may hold different numbers of rows, also none.
    In evaluation, and in a world of one, it is the plain BatchNorm.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (N, C) or more dimensions, got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input` (N,C,*) per channel."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        normalized, mean, var, count = _Normalize.apply(input, self.eps)
        self._update_running(mean, var, count)
        if self.affine:
            _, view = _axes(input)
            normalized = torch.addcmul(self.bias.view(view), normalized, self.weight.view(view))
        return normalized.to(input.dtype)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        weight = 1.0 / self.num_batches_tracked if self.momentum is None else self.momentum
        unbiased = var * (count / (count - 1).clamp(min=1))
        for running, value in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.add_((value.to(running.dtype) - running) * weight)


def convert_sync_batchnorm(module: nn.Module) -> nn.Module:
    """Make every plain BatchNorm in `module` an `AllReducedBatchNorm`, in place; returns `module`.

    The class of each layer changes and the layer stays the same object, so references to it (an adaptation's
    list of frozen layers, an optimiser's parameters) and names in the state dict stay valid.
    """
    for child in module.modules():
        if type(child) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            child.__class__ = AllReducedBatchNorm
    return module


def _axes(x: Tensor) -> tuple[list[int], list[int]]:
    """The axes that statistics run over, and the shape in which a per-channel vector meets `x`."""
    return [0, *range(2, x.dim())], [1, -1] + [1] * (x.dim() - 2)
