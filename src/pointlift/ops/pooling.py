"""Features of sets: a linear layer and its maximum over the set."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pointlift.core.errors import UsageError
from pointlift.ops import library


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
        return F.linear(x, weight, bias).amax(1)
    if x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or not x.dtype == weight.dtype == torch.float32:
        return F.linear(x, weight, bias).max(1).values
    largest, _ = library.linear_max(x, weight)
    return largest if bias is None else largest + bias
