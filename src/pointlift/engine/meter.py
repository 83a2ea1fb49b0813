"""Running averages that stay on the device, so that a training step never waits for the GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from pointlift.core.errors import PointLiftError
from pointlift.engine.distributed import all_reduce_sum

_MOST_SKIPPED = 50  # fp16 halves its scale at every skip: 65536 is below 1e-10 after so many in a row


class Meter:
    """Weighted means of one epoch, and the first step that went wrong.

    Args:
        device: Where the values come from.
        skips: Whether a step that is not finite is skipped and counted (fp16) or ends the run.
    """

    def __init__(self, device: torch.device, *, skips: bool = False) -> None:
        self.device, self.skips = device, skips
        self._dtype = torch.float32 if device.type == "mps" else torch.float64
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}
        self._bad = torch.zeros((), dtype=torch.int64, device=device)
        self._streak = torch.zeros((), dtype=torch.int64, device=device)
        self._longest = torch.zeros((), dtype=torch.int64, device=device)
        self._first = torch.full((3,), -1.0, dtype=self._dtype, device=device)  # step, loss, gradient norm

    def add(self, name: str, value: Tensor, weight: float) -> None:
        """Take `value` (scalar) into the mean called `name`; values that are not finite are left out."""
        value = value.detach().to(self._dtype)
        taken = torch.isfinite(value) * weight
        zero = torch.zeros((), dtype=self._dtype, device=value.device)
        self._sums[name] = self._sums.get(name, zero) + torch.where(taken > 0, value, zero) * taken
        self._weights[name] = self._weights.get(name, zero) + taken

    def step(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """Note loss and gradient norm of optimiser step `step` (scalars)."""
        self.add("grad_norm", norm, 1.0)
        loss, norm = loss.detach().to(self._dtype), norm.to(self._dtype)
        bad = ~(torch.isfinite(loss) & torch.isfinite(norm))
        now = torch.stack([torch.full_like(loss, step), loss, norm])
        self._first = torch.where(bad & (self._bad == 0), now, self._first)
        self._bad = self._bad + bad
        self._streak = (self._streak + 1) * bad
        self._longest = torch.maximum(self._longest, self._streak)

    def check(self, epoch: int, precision: str) -> None:
        """Stop the run if a step was not finite, or (fp16) too many in a row; waits for the device.

        Raises:
            PointLiftError: Naming epoch and step, and what to try.
        """
        bad, longest = torch.stack([self._bad, self._longest]).tolist()
        if bad == 0 or (self.skips and longest < _MOST_SKIPPED):
            return
        step, loss, norm = self._first.tolist()
        what = f"the gradient norm is {norm}" if loss == loss and abs(loss) != float("inf") else f"the loss is {loss}"
        tries = ["a lower optim.lr", "a longer schedule.warmup_epochs", "optim.grad_clip 1.0"]
        if precision != "fp32":
            tries.append("precision fp32")
        count = f", and in {longest} steps in a row" if self.skips else ""
        raise PointLiftError(
            f"{what} in epoch {epoch}, step {int(step)}{count}",
            "finite numbers",
            f"Try {', '.join(tries)}, and look for NaN in the input. The checkpoint of the epoch before is intact",
        )

    def means(self) -> dict[str, float]:
        """All means over all processes."""
        names = sorted(self._sums)
        if not names:
            return {}
        table = torch.stack([torch.stack([self._sums[n], self._weights[n]]) for n in names])
        sums = all_reduce_sum(table).tolist()
        return {n: total / weight if weight else float("nan") for n, (total, weight) in zip(names, sums, strict=True)}

    def skipped(self) -> int:
        """Optimiser steps that were not finite; the same number in every process."""
        return int(self._bad)
