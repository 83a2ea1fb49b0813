"""Initial values of linear layers, as the released codes set them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

Fill = Callable[[Tensor], Tensor]

truncated: Fill = partial(nn.init.trunc_normal_, std=0.02)
xavier: Fill = nn.init.xavier_uniform_


def init_linears_(module: nn.Module, fill: Fill) -> None:
    """Weights of every `nn.Linear` in `module` by `fill`, biases 0; norms start at 1 and 0 anyway."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            fill(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
