"""The frozen protocols of ACT (arXiv 2212.08320, section 4): a linear or a three-layer head on a frozen trunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pointlift.adapt.base import Adaptation, Parts
from pointlift.models.heads import HeadKind


@dataclass(frozen=True)
class HeadOnly(Adaptation):
    """Only the head learns; the trunk's statistics stand still. A head for parts stays what it is.

    The released code also trains `cls_token` and `cls_pos` (their names contain "cls") and keeps the trunk in training
    mode, so that the tokenizer's statistics move and drop path disturbs the features: both are options here.
    """

    starts_as_base: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv 2212.08320"

    train_cls: bool = False
    """The class token and its position learn too, as released."""
    train_mode: bool = False
    """The frozen trunk is in training mode, as released."""

    def trainable(self, parts: Parts) -> tuple[str, ...]:
        return (*parts["head"], *(parts.get("cls", ()) if self.train_cls else ()))

    def held_in_eval(self, parts: Parts) -> tuple[str, ...]:
        return self.still(parts)

    def still(self, parts: Parts) -> tuple[str, ...]:
        if self.train_mode:
            return ()
        return tuple(prefix for part, prefixes in parts.items() if part != "head" for prefix in prefixes)


@dataclass(frozen=True)
class Linear(HeadOnly):
    """One linear layer on the frozen trunk."""

    name: ClassVar[str] = "linear"
    head: ClassVar[HeadKind | None] = "linear"


@dataclass(frozen=True)
class Mlp3(HeadOnly):
    """A three-layer head on the frozen trunk."""

    name: ClassVar[str] = "mlp3"
    head: ClassVar[HeadKind | None] = "mlp3"
