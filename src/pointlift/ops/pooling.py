"""Features of sets and of neighbourhoods: the largest values of a linear layer over their members."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pointlift.core.errors import UsageError
from pointlift.ops import library
from pointlift.ops.checks import check_neighborhoods
from pointlift.ops.grouping import gather


def linear_max(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The largest value of each output of a linear layer over a set's points: `F.linear(x, weight, bias).amax(1)`.

    Where a gradient will be asked for, the first of equally large points alone receives it (as with `max`). On a CPU
    it then costs next to nothing: one point of a set has a gradient for each output, so both matrix products of the
    usual backward pass shrink to as many rows as there are sets.

    Args:
        x: Sets of as many points (P,K,C_in).
        weight: (C_out,C_in).
        bias: (C_out,).

    Returns:
        (P,C_out).

    Raises:
        UsageError: Shapes that do not fit.
    """
    if x.dim() != 3 or x.shape[1] < 1 or weight.dim() != 2 or x.shape[2] != weight.shape[1]:
        raise UsageError(
            f"x {tuple(x.shape)} with weight {tuple(weight.shape)}", "(P,K,C_in) with (C_out,C_in), K >= 1"
        )
    if not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)):
        largest = F.linear(x, weight).amax(1)  # the bias does not choose: added to all points it costs a copy of them
        return largest if bias is None else largest + bias.to(largest.dtype)
    if x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or not x.dtype == weight.dtype == torch.float32:
        return F.linear(x, weight, bias).max(1).values
    largest, _ = library.linear_max(x, weight)
    return largest if bias is None else largest + bias


def neighborhood_max(table: Tensor, idx: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The largest values over each neighbourhood's rows and what a linear layer adds: `(table[idx] + x @ weight.T)`.

    Differentiable in `table`, `x` and `weight`; the first of equally large members alone receives the gradient. On a
    CPU in float32 the members are never held, and the way back is as many values as there are results.

    Args:
        table: Rows of each cloud (B,R,C).
        idx: Rows of each neighbourhood, int64 (B,S,K), per cloud.
        x: Per member what the linear layer reads (B,S,K,D).
        weight: (C,D).

    Returns:
        (B,S,C).

    Raises:
        UsageError: Shapes or dtypes that do not fit, or, on a CPU, indices outside 0..R-1.
    """
    check_neighborhoods("table", table, idx)
    if x.shape[:-1] != idx.shape or weight.shape != (table.shape[2], x.shape[-1]):
        raise UsageError(
            f"x {tuple(x.shape)} and weight {tuple(weight.shape)} with table {tuple(table.shape)} and idx "
            f"{tuple(idx.shape)}",
            "(B,S,K,D) and (C,D) with (B,R,C) and (B,S,K)",
        )
    if not x.dtype == weight.dtype == table.dtype and not torch.is_autocast_enabled(table.device.type):
        raise UsageError(f"table {table.dtype}, x {x.dtype}, weight {weight.dtype}", "one dtype, outside autocast")
    fast = table.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    if not fast or not table.dtype == x.dtype == weight.dtype == torch.float32:
        return (gather(table, idx) + x @ weight.T).max(2).values
    return library.neighborhood_max(table, idx, x, weight)[0]
