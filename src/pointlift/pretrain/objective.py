"""`Objective`: what every way of pre-training offers, so that one task trains all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pointlift.models.base import PointModel

Batch = Mapping[str, Tensor]
Noise = Mapping[str, Tensor]


@dataclass(frozen=True)
class Losses:
    """What a forward pass of an objective gives.

    Attributes:
        total: The scalar that is minimised.
        terms: Its summands and other scalars worth a curve, by name.
        found: Intermediate tensors that were asked for, by name.
    """

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    found: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """What an objective made of clouds, for people to look at. Clouds of a batch stay apart: (B, P, 3) each.

    Attributes:
        given: What the network saw.
        rebuilt: What it was asked for and gave; together with `given` the whole cloud.
        target: What it was asked for, as it is in the cloud.
        whole: The cloud itself.
        centers: Where it looked, (B, G, 3).
        hidden: (B, G) bool: which of these were hidden.
        coarse: A first sketch of `rebuilt`, of an objective that makes one.
        codes: (B, G) int64, the code of every patch, of an objective with a vocabulary.
    """

    given: Tensor
    rebuilt: Tensor
    target: Tensor
    whole: Tensor
    centers: Tensor
    hidden: Tensor
    coarse: Tensor | None = None
    codes: Tensor | None = None


class Objective(nn.Module, ABC):
    """A backbone with what it needs to learn without labels.

    Attributes:
        arch: The registry name it was created under.
        backbone: What is learned and kept.
        config: Its frozen config dataclass.
    """

    arch: str = ""
    backbone: PointModel
    config: Any

    @abstractmethod
    def draw(self, batch: Batch, generator: torch.Generator) -> Noise:
        """All randomness of one step; `forward` with the same batch and noise gives the same losses.

        Drop path is not part of it: it belongs to the backbone and is off in evaluation mode.
        """

    @abstractmethod
    def forward(
        self, batch: Batch, noise: Noise, progress: float = 0.0, given: Mapping[str, Tensor] | None = None
    ) -> Losses:
        """Losses of a batch.

        Args:
            batch: `xyz` (B, N, 3).
            noise: From `draw`.
            progress: The share of the run that is done, for what changes over it (temperatures).
            given: Instead of what would be computed from `noise`: masks, permutations, features of a teacher. So
                an objective can be held against a reference.
        """

    @abstractmethod
    def show(self, batch: Batch, noise: Noise, given: Mapping[str, Tensor] | None = None) -> Picture:
        """The same pass as something to look at, in evaluation mode and without gradients."""

    def teachers(self) -> list[nn.Module]:
        """Frozen networks that give targets: always in evaluation mode, without gradients, not saved unless asked."""
        return []

    def kept_state(self, *, teachers: bool = False) -> dict[str, Tensor]:
        """The state dict without the frozen teachers, unless they are asked for: what is worth a file.

        Checkpoints to resume from hold the whole state dict, so that nothing needs to be found again.
        """
        left_out = () if teachers else self.teacher_prefixes()
        return {key: value for key, value in self.state_dict().items() if not key.startswith(left_out)}

    def teacher_prefixes(self) -> tuple[str, ...]:
        """What the names of the teachers' tensors in the state dict begin with."""
        teachers = self.teachers()
        return tuple(f"{name}." for name, part in self.named_modules() if any(part is teacher for teacher in teachers))

    def train(self, mode: bool = True) -> Objective:
        """Training mode, except for teachers."""
        super().train(mode)
        for teacher in self.teachers():
            teacher.eval()
        return self
