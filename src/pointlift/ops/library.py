"""The operations as torch custom operators (`torch.ops.pointlift.*`), so that compile and export see them.

Each operator makes its inputs what kernels expect (contiguous; coordinates are float32 already) and calls the
active back end. Fake kernels give shapes; gradients are registered where an operation has them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pointlift.ops import reference
from pointlift.ops.dispatch import kernel

_LIBRARY = torch.library.Library("pointlift", "DEF")


def _run(operation: str, *arguments: Any) -> Any:
    device = next(a.device.type for a in arguments if isinstance(a, Tensor))
    ready = (a.detach().contiguous() if isinstance(a, Tensor) else a for a in arguments)
    return kernel(operation, device)(*ready)


def _operator(name: str, schema: str) -> Any:
    """Define `pointlift::<name>`, which runs the active back end of that operation.

    Not by `torch.library.custom_op`: its first call imports the compiler, two seconds in every process.
    """
    _LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, partial(_run, name), "CompositeExplicitAutograd")
    return getattr(torch.ops.pointlift, name).default


def _fake(operator: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as the shape rule of an operator."""
    return torch.library.register_fake(operator, lib=_LIBRARY)


farthest_point_sample = _operator(
    "farthest_point_sample", "(Tensor xyz, SymInt num, Tensor start, bool skip_near_origin) -> Tensor"
)
knn = _operator("knn", "(Tensor query, Tensor points, SymInt k) -> (Tensor, Tensor)")
ball_query = _operator("ball_query", "(Tensor query, Tensor points, float radius, SymInt k) -> Tensor")
three_nn = _operator("three_nn", "(Tensor query, Tensor points) -> (Tensor, Tensor)")
three_interpolate = _operator("three_interpolate", "(Tensor feats, Tensor idx, Tensor weight) -> Tensor")
three_interpolate_backward = _operator(
    "three_interpolate_backward", "(Tensor grad, Tensor feats, Tensor idx, Tensor weight) -> (Tensor, Tensor)"
)
chamfer = _operator("chamfer", "(Tensor a, Tensor b) -> (Tensor, Tensor, Tensor, Tensor)")
chamfer_backward = _operator(
    "chamfer_backward",
    "(Tensor grad_dist_a, Tensor grad_dist_b, Tensor a, Tensor b, Tensor idx_a, Tensor idx_b) -> (Tensor, Tensor)",
)
linear_max = _operator("linear_max", "(Tensor x, Tensor weight) -> (Tensor, Tensor)")
linear_max_backward = _operator(
    "linear_max_backward", "(Tensor grad, Tensor idx, Tensor x, Tensor weight) -> (Tensor, Tensor)"
)
neighborhood_max = _operator(
    "neighborhood_max", "(Tensor table, Tensor idx, Tensor x, Tensor weight) -> (Tensor, Tensor)"
)
neighborhood_attention = _operator(
    "neighborhood_attention", "(Tensor qkv, Tensor idx, SymInt heads, float scale) -> Tensor"
)
neighborhood_attention_backward = _operator(
    "neighborhood_attention_backward", "(Tensor grad, Tensor qkv, Tensor idx, SymInt heads, float scale) -> Tensor"
)
emd_match = _operator("emd_match", "(Tensor a, Tensor b) -> Tensor")


def _index(like: Tensor, *shape: int) -> Tensor:
    return like.new_empty(shape, dtype=torch.int64)


@_fake(farthest_point_sample)
def _(xyz, num, start, skip_near_origin):
    return _index(xyz, xyz.shape[0], num)


@_fake(knn)
def _(query, points, k):
    b, m, _ = query.shape
    return query.new_empty((b, m, k)), _index(query, b, m, k)


@_fake(ball_query)
def _(query, points, radius, k):
    return _index(query, query.shape[0], query.shape[1], k)


@_fake(three_nn)
def _(query, points):
    b, m, _ = query.shape
    return query.new_empty((b, m, 3)), _index(query, b, m, 3)


@_fake(three_interpolate)
def _(feats, idx, weight):
    return feats.new_empty((idx.shape[0], idx.shape[1], feats.shape[2]))


@_fake(three_interpolate_backward)
def _(grad, feats, idx, weight):
    return feats.new_empty(feats.shape), weight.new_empty(weight.shape)


@_fake(chamfer)
def _(a, b):
    (batch, n, _), m = a.shape, b.shape[1]
    return a.new_empty((batch, n)), b.new_empty((batch, m)), _index(a, batch, n), _index(b, batch, m)


@_fake(chamfer_backward)
def _(grad_dist_a, grad_dist_b, a, b, idx_a, idx_b):
    return a.new_empty(a.shape), b.new_empty(b.shape)


@_fake(linear_max)
def _(x, weight):
    return x.new_empty((x.shape[0], weight.shape[0])), _index(x, x.shape[0], weight.shape[0])


@_fake(linear_max_backward)
def _(grad, idx, x, weight):
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


@_fake(neighborhood_max)
def _(table, idx, x, weight):
    shape = (*idx.shape[:2], table.shape[2])
    return table.new_empty(shape), _index(table, *shape)


@_fake(neighborhood_attention)
def _(qkv, idx, heads, scale):
    return qkv.new_empty((*idx.shape, qkv.shape[2] // 3))


@_fake(neighborhood_attention_backward)
def _(grad, qkv, idx, heads, scale):
    return qkv.new_empty(qkv.shape)


@_fake(emd_match)
def _(a, b):
    return a.new_empty((a.shape[0], b.shape[1], a.shape[1]))


def _save_interpolation(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _interpolation_gradient(ctx, grad):
    feats, idx, weight = ctx.saved_tensors
    grad_feats, grad_weight = three_interpolate_backward(grad, feats, idx, weight)
    return grad_feats, None, grad_weight


def _save_chamfer(ctx, inputs, output):
    _, _, idx_a, idx_b = output
    ctx.save_for_backward(*inputs, idx_a, idx_b)


def _chamfer_gradient(ctx, grad_dist_a, grad_dist_b, _idx_a, _idx_b):
    return chamfer_backward(grad_dist_a, grad_dist_b, *ctx.saved_tensors)


def _save_linear_max(ctx, inputs, output):
    ctx.save_for_backward(output[1], *inputs)


def _once(kernel: Any, sums: Any) -> Any:
    """The kernel; where a gradient of the gradient will be asked for, the reference's sums: these have one."""
    return sums if torch.is_grad_enabled() else kernel


def _linear_max_gradient(ctx, grad, _idx):
    return _once(linear_max_backward, reference.linear_max_backward)(grad, *ctx.saved_tensors)


def _save_neighborhood_max(ctx, inputs, output):
    table, *others = inputs
    ctx.rows = table.shape[1]
    ctx.save_for_backward(output[1], *others)


def _neighborhood_max_gradient(ctx, grad, _idx):
    """Of a neighbourhood one member per channel has a gradient: as many values as there are results."""
    at, idx, x, weight = ctx.saved_tensors
    into = grad.new_zeros(grad.shape[0], ctx.rows, grad.shape[2]).scatter_add_(1, idx.gather(2, at), grad)
    flat = (t.flatten(0, 1) for t in (grad, at, x))
    grad_x, grad_weight = _once(linear_max_backward, reference.linear_max_backward)(*flat, weight)
    return into, None, grad_x.view(x.shape), grad_weight


def _save_attention(ctx, inputs, output):
    qkv, idx, ctx.heads, ctx.scale = inputs
    ctx.save_for_backward(qkv, idx)


def _attention_gradient(ctx, grad):
    backward = _once(neighborhood_attention_backward, reference.neighborhood_attention_backward)
    return backward(grad, *ctx.saved_tensors, ctx.heads, ctx.scale), None, None, None


torch.library.register_autograd(
    three_interpolate, _interpolation_gradient, setup_context=_save_interpolation, lib=_LIBRARY
)
torch.library.register_autograd(chamfer, _chamfer_gradient, setup_context=_save_chamfer, lib=_LIBRARY)
torch.library.register_autograd(linear_max, _linear_max_gradient, setup_context=_save_linear_max, lib=_LIBRARY)
torch.library.register_autograd(
    neighborhood_max, _neighborhood_max_gradient, setup_context=_save_neighborhood_max, lib=_LIBRARY
)
torch.library.register_autograd(
    neighborhood_attention, _attention_gradient, setup_context=_save_attention, lib=_LIBRARY
)
