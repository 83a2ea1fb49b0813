"""A narrow two-layer MLP: what adapters put beside or behind frozen layers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pointlift.layers.block import ACTIVATIONS, Activation


class Bottleneck(nn.Module):
    """Linear to few channels, activation, dropout, linear back (arXiv 1902.00751; Point-PEFT, section 3.3).

    The residual is the caller's. Begins as Point-PEFT's, as released: weights Xavier uniform, biases next to nothing,
    so not at zero. With `from_zero` the second layer begins at zero and gives nothing yet, the first one as a fresh
    `nn.Linear` with biases 0 (AdaptFormer, arXiv 2205.13535).
    """

    def __init__(
        self, dim: int, hidden: int, dropout: float = 0.0, *, act: Activation = "quick_gelu", from_zero: bool = False
    ) -> None:
        super().__init__()
        self.act = act
        self.down = nn.Linear(dim, hidden)
        self.up = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)
        if from_zero:
            for zero in (self.down.bias, self.up.weight, self.up.bias):
                nn.init.zeros_(zero)
            return
        for linear in (self.down, self.up):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.normal_(linear.bias, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return self.up(self._inside(x))

    def scaled(self, x: Tensor, factor: float) -> Tensor:
        """`factor * self(x)`: the few weights are scaled, not the many outputs. Hooks on the last layer do not run."""
        if type(self.up) is not nn.Linear:  # swapped (LoRA): it must be called
            return factor * self(x)
        return F.linear(self._inside(x), factor * self.up.weight, factor * self.up.bias)

    def _inside(self, x: Tensor) -> Tensor:
        return self.dropout(ACTIVATIONS[self.act](self.down(x)))
