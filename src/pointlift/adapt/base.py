"""The `Adaptation` contract, and the handle that one leaves on a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from pointlift.core.config import to_dict
from pointlift.layers.trunk import BlockAdapter
from pointlift.models.base import PointModel
from pointlift.models.heads import HeadKind
from pointlift.weights.hashing import state_hash
from pointlift.weights.modelfile import describe, write_model_file

Parts = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Adaptation:
    """One way to adapt. Subclasses are frozen config dataclasses; these defaults train nothing and insert nothing.

    Attributes:
        name: Its registry name.
        head: The kind of head it asks for; None keeps the model's.
    """

    name: ClassVar[str] = ""
    head: ClassVar[HeadKind | None] = None

    def build(self, model: PointModel) -> BlockAdapter | None:
        """What is inserted into the trunk, or None."""
        return None

    def trainable(self, parts: Parts) -> tuple[str, ...]:
        """Prefixes of the base's parameters that learn. What `build` returns learns too."""
        return ()

    def held_in_eval(self, parts: Parts) -> tuple[str, ...]:
        """Prefixes of modules whose BatchNorm statistics stand still during training."""
        return ()


@dataclass(frozen=True)
class AdaptationReport:
    """How much of a model learns. `str()` gives the one line that users know from peft."""

    adaptation: str
    parameters: int
    trainable: int
    trainable_without_head: int

    def __str__(self) -> str:
        share = 100 * self.trainable / max(self.parameters, 1)
        return (
            f"{self.adaptation}: trainable {_count(self.trainable)} ({_count(self.trainable_without_head)} without "
            f"head) | all {_count(self.parameters)} | {share:.2f}%"
        )


def _count(n: int) -> str:
    return f"{n / 1e6:.2f}M" if n >= 1e5 else f"{n / 1e3:.1f}k" if n >= 1e3 else str(n)


class AdaptationHandle:
    """An adaptation in force on one model. It owns which parameters and buffers may change."""

    def __init__(self, model: PointModel, config: Adaptation) -> None:
        self.model, self.config = model, config
        parts = model.parts()
        learned = (*config.trainable(parts), f"adapters.{config.name}.")
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(learned))
        model.held_in_eval = config.held_in_eval(parts)
        model.adaptation = self
        # What `disable` returns to.
        self._before = {k: model.state_dict()[k].detach().clone() for k in self.changing() if k in model.base_state()}
        self._after: dict[str, Tensor] | None = None

    def changing(self) -> list[str]:
        """Names of every parameter and buffer that training may change: the adapter's tensors."""
        learned = [n for n, p in self.model.named_parameters() if p.requires_grad]
        moving = []
        for name, module in self.model.named_modules():
            is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
            if is_norm and not (self.model.held_in_eval and name.startswith(self.model.held_in_eval)):
                moving += [f"{name}.{buffer}" for buffer, _ in module.named_buffers(recurse=False)]
        return learned + moving

    def base_hash(self) -> str:
        """Hash of every tensor that stands still: an adapter works on exactly this base."""
        changing = set(self.changing())
        return state_hash({k: v for k, v in self.model.state_dict().items() if k not in changing})

    def report(self) -> AdaptationReport:
        """Counts of all and of trainable parameters, with and without the head."""
        learned = {n: p.numel() for n, p in self.model.named_parameters() if p.requires_grad}
        return AdaptationReport(
            adaptation=self.config.name,
            parameters=sum(p.numel() for p in self.model.parameters()),
            trainable=sum(learned.values()),
            trainable_without_head=sum(n for name, n in learned.items() if not name.startswith("head.")),
        )

    @property
    def enabled(self) -> bool:
        return self._after is None

    def disable(self) -> None:
        """Give the base its own values back (the learned ones are kept for `enable`)."""
        if not self.enabled:
            return
        state = self.model.state_dict()
        self._after = {k: state[k].detach().clone() for k in self._before}
        self._write(self._before)

    def enable(self) -> None:
        """Put the learned values back."""
        if self._after is not None:
            self._write(self._after)
            self._after = None

    def _write(self, values: Mapping[str, Tensor]) -> None:
        state = self.model.state_dict()
        with torch.no_grad():
            for key, value in values.items():
                state[key].copy_(value)

    def state(self) -> dict[str, Tensor]:
        """The adapter's tensors alone."""
        state = self.model.state_dict()
        return {k: state[k] for k in self.changing()}

    def save(self, path: str | Path, *, base: str | None = None) -> Path:
        """Write the adapter's tensors, naming the base by architecture and hash.

        Args:
            base: Where the base weights can be had (a path), as a hint for loading.
        """
        state = self.state()
        description = describe(
            self.model.arch,
            to_dict(self.model.config),
            state,
            classes=self.model.classes,
            preprocess=self.model.preprocess,
            holds="adapter",
            adaptation={"name": self.config.name, **to_dict(self.config)},
            base={"hash": self.base_hash(), "from": base},
        )
        return write_model_file(path, state, description)
