"""The `Adaptation` contract, and the handle that one leaves on a model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from pointlift.adapt.memory_bank import MemoryBank, Remembering, bank_beside
from pointlift.adapt.places import Parts
from pointlift.core.config import to_dict
from pointlift.core.errors import CheckpointError, CheckpointMismatchError, UsageError
from pointlift.layers.trunk import BlockAdapter
from pointlift.models.base import PointModel
from pointlift.models.heads import HeadKind
from pointlift.weights.hashing import state_hash
from pointlift.weights.load import LoadReport, load_state
from pointlift.weights.modelfile import ModelFile, describe, read_model_file, write_model_file


@dataclass(frozen=True)
class Adaptation:
    """One way to adapt. Subclasses are frozen config dataclasses; these defaults train nothing and insert nothing.

    Attributes:
        name: Its registry name.
        head: The kind of head it asks for; None keeps the model's.
        starts_as_base: Before the first step the model gives what it gave without the adaptation.
        needs_bank: What it inserts is a `Remembering` adapter: it needs a memory bank.
        paper: Where it comes from.
    """

    name: ClassVar[str] = ""
    head: ClassVar[HeadKind | None] = None
    starts_as_base: ClassVar[bool] = False
    needs_bank: ClassVar[bool] = False
    paper: ClassVar[str] = ""

    def build(self, model: PointModel) -> BlockAdapter | None:
        """What is inserted into the trunk (or swaps its layers: `BlockAdapter.attach`), or None.

        Raises:
            UsageError: The model is not of a kind that it can adapt.
        """
        return None

    def trainable(self, parts: Parts) -> tuple[str, ...]:
        """Prefixes of the base's parameters that learn. What `build` returns learns too."""
        return ()

    def held_in_eval(self, parts: Parts) -> tuple[str, ...]:
        """Prefixes of modules whose BatchNorm statistics stand still during training."""
        return ()

    def still(self, parts: Parts) -> tuple[str, ...]:
        """Prefixes of modules that stay in evaluation mode as a whole during training: no dropout, no drop path."""
        return ()

    def merge(self, model: PointModel) -> None:
        """Write what `build` inserted into the base's own weights, where that is exact; see `AdaptationHandle.merge`.

        Raises:
            UsageError: It is not: what was inserted is more than other values of the base's weights.
        """
        if self.name in model.adapters:
            raise UsageError(
                f"{self.name} cannot be merged: what it inserts is no change of the base's weights",
                "an adaptation whose change fits into them (lora, bias_norm, full, linear, mlp3)",
                "the adapter file predicts as it is: pointlift predict ADAPTER FILE",
            )


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
    """An adaptation in force on one model. It owns which parameters and buffers may change.

    Attributes:
        model: What is adapted.
        config: How.
        base_said: Of what came from a file: what that says of its base. None where training begins here.

    `disable` gives the base its own values back and passes over what was inserted, `enable` undoes that, `remove` takes
    the adaptation off for good. A head that the adaptation asked for stays, with the values it began with.
    """

    def __init__(self, model: PointModel, config: Adaptation) -> None:
        self.model, self.config = model, config
        if self.inserted is not None:
            self.inserted.attach(model)
        parts = model.parts()
        learned = (*config.trainable(parts), self._prefix)
        self._learned_before = {n for n, p in model.named_parameters() if p.requires_grad}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(learned))
        model.held_in_eval, model.still = config.held_in_eval(parts), config.still(parts)
        model.train(model.training)  # those BatchNorms stand still from now on
        model.adaptation = self
        self._before = self._copies(k for k in self.changing() if not k.startswith("adapters."))
        self._after: dict[str, Tensor] | None = None
        self.base_said: Mapping[str, Any] | None = None

    @property
    def _prefix(self) -> str:
        return f"adapters.{self.config.name}."

    @property
    def inserted(self) -> BlockAdapter | None:
        """What was inserted into the model, if anything."""
        adapters = self.model.adapters
        return cast(BlockAdapter, adapters[self.config.name]) if self.config.name in adapters else None

    @property
    def bank(self) -> MemoryBank | None:
        """The memory bank in use, if the adaptation has one."""
        return self.inserted.bank if isinstance(self.inserted, Remembering) else None

    def changing(self) -> list[str]:
        """Names of every parameter and buffer that training may change."""
        learned = [n for n, p in self.model.named_parameters() if p.requires_grad]
        held = self.model.held_in_eval
        moving = [
            f"{name}.{buffer}"
            for name, module in self.model.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and not name.startswith(held)
            for buffer, _ in module.named_buffers(recurse=False)
        ]
        return learned + moving

    def carried(self) -> set[str]:
        """Names of the adapter's tensors: what may change, what was inserted, and what the base's checkpoint had not.

        A class token that began at random in this model (pre-trained weights have none) can come from nowhere else,
        nor can what an adaptation keeps of the base's values before training (`adapt.prior`).
        """
        inserted = {k for k in self.model.state_dict() if k.startswith(self._prefix)}
        return self._fresh() | set(self.changing()) | inserted

    def _fresh(self) -> set[str]:
        """Names of what the base's checkpoint had not."""
        report = self.model.load_report
        return set() if report is None else {k for k in report.new if k in self.model.state_dict()}

    def base_hash(self) -> str:
        """Hash of every tensor of the base that the adapter does not carry: it works on exactly these."""
        return base_hash(self.model, self.carried())

    def whole_base_hash(self) -> str | None:
        """Hash of the whole base as it was before training, but for its head: the same for all adapters of one base.

        For people to compare; what an adapter fits is told by `base_hash`. What came from a file has the hash that is
        said there, None where it says none: of tensors that the file brings, the base's values may be gone.
        """
        if self.base_said is not None:
            whole = self.base_said.get("whole")
            return whole if isinstance(whole, str) else None
        fresh, before = self._fresh(), self.model.base_state() | self._before
        return state_hash({k: v for k, v in before.items() if not k.startswith("head.") and k not in fresh})

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
        """Compute with the base alone; what was learned is kept for `enable`."""
        if self.enabled:
            self._after = self._copies(self._before)
            self._write(self._before)
            self.model.adapters.disabled.add(self.config.name)
            if self.inserted is not None:
                self.inserted.detach(self.model)

    def enable(self) -> None:
        """Put what was learned back."""
        if self._after is not None:
            self._write(self._after)
            self._after = None
            self.model.adapters.disabled.discard(self.config.name)
            if self.inserted is not None:
                self.inserted.attach(self.model)

    def remove(self) -> None:
        """Take the adaptation off: the base's own values, everything trainable that was, nothing inserted."""
        self.disable()
        self._take_off()

    def merge(self) -> PointModel:
        """Leave what was learned in the model's own weights and take the adaptation off for good.

        Returns:
            The model, now a plain one that computes what the adapted one did.

        Raises:
            UsageError: What was inserted is more than other values of the base's weights.
        """
        was_enabled = self.enabled
        self.enable()
        try:
            self.config.merge(self.model)
        except UsageError:
            if not was_enabled:
                self.disable()
            raise
        self._take_off()
        self.model.origin = None  # no file holds these weights
        return self.model

    def _take_off(self) -> None:
        model = self.model
        if self.config.name in model.adapters:
            model.adapters.pop(self.config.name)
        model.adapters.disabled.discard(self.config.name)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in self._learned_before)
        model.held_in_eval, model.still, model.adaptation = (), (), None
        model.train(model.training)

    def _copies(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Values set aside in main memory, whatever device the model is on."""
        state = self.model.state_dict()
        return {k: state[k].detach().to("cpu", copy=True) for k in names}

    def _write(self, values: Mapping[str, Tensor]) -> None:
        state = self.model.state_dict()
        with torch.no_grad():
            for key, value in values.items():
                state[key].copy_(value)

    def state(self) -> dict[str, Tensor]:
        """The adapter's tensors alone, as learned (also while it is disabled)."""
        state = self.model.state_dict() | (self._after or {})
        carried = self.carried()
        return {k: v for k, v in state.items() if k in carried}

    def save(self, path: str | Path, *, base: str | None = None) -> Path:
        """Write the adapter's tensors, naming the base by architecture and hash; its memory bank lies beside.

        Args:
            base: Where the base weights can be had (a path), as a hint for loading; by default where they came from.

        Raises:
            UsageError: It needs a memory bank and has none; nothing is written.
        """
        if isinstance(self.inserted, Remembering):
            self.inserted.rows()  # a file without its bank could not predict
        state, bank = self.state(), self.bank
        description = describe(
            self.model.arch,
            to_dict(self.model.config),
            state,
            classes=self.model.classes,
            categories=self.model.categories,
            preprocess=self.model.preprocess,
            holds="adapter",
            adaptation={"name": self.config.name, **to_dict(self.config)},
            base={"hash": self.base_hash(), "whole": self.whole_base_hash(), "from": base or self.model.origin},
            counts=asdict(self.report()),
            **describe_bank(bank),
        )
        if bank is not None:  # first, so that a file is never without its bank
            bank.save(bank_beside(path))
        return write_model_file(path, state, description)

    def load(self, file: str | Path | ModelFile) -> LoadReport:
        """Take the tensors of an adapter file of this adaptation.

        Raises:
            CheckpointError: Not an adapter file.
            CheckpointMismatchError: Another adaptation, another base, or tensors of other shapes; nothing is changed.
        """
        file = file if isinstance(file, ModelFile) else read_model_file(file)
        name = adaptation_options(file)["name"]
        if name != self.config.name:
            raise CheckpointMismatchError(f"{file.path} holds {name!r}", f"an adapter of kind {self.config.name!r}")
        check_base(self.model, file)
        changing, was_enabled = set(self.changing()), self.enabled
        others = tuple(k for k in self.model.state_dict() if k not in changing)
        self.enable()
        try:
            report = load_state(self.model, file.state, expected_new=others)
        except CheckpointMismatchError:
            if not was_enabled:
                self.disable()
            raise
        self.model.classes, self.model.categories = file.classes, file.categories
        self.model.preprocess = dict(file.preprocess)
        self.base_said = dict(file.extra["base"])
        return report


def describe_bank(bank: MemoryBank | None) -> dict[str, Any]:
    """What a model or adapter file says of the memory bank beside it; nothing without one."""
    return {} if bank is None else {"bank": {"hash": bank.hash, "rows": len(bank), **asdict(bank.facts)}}


def base_hash(model: PointModel, without: Collection[str]) -> str:
    """Hash of a model's tensors, save those named and what is inserted."""
    return state_hash({k: v for k, v in model.base_state().items() if k not in without})


def adaptation_options(file: ModelFile) -> dict[str, Any]:
    """What an adapter file says of its adaptation: `name` and the fields of its config.

    Raises:
        CheckpointError: It is not an adapter file.
    """
    options, base = file.extra.get("adaptation"), file.extra.get("base")
    if file.holds != "adapter" or not isinstance(options, dict) or "name" not in options or not isinstance(base, dict):
        given = f"holds a {file.holds}" if file.holds != "adapter" else "does not describe its adaptation and its base"
        raise CheckpointError(f"{file.path} {given}", "an adapter file", "pl.load reads whole models")
    return dict(options)


def check_base(model: PointModel, file: ModelFile) -> None:
    """That an adapter file was made on this very base.

    Raises:
        CheckpointMismatchError: It was not.
    """
    without = set(file.state)
    if any(k.startswith("head.") for k in file.state):  # the adapter brings its head, of whatever kind
        without |= {k for k in model.base_state() if k.startswith("head.")}
    found, wanted = base_hash(model, without), str(file.extra["base"].get("hash"))
    if found != wanted:
        raise CheckpointMismatchError(
            f"{file.path} was made on another base ({file.arch}) than this {model.arch}",
            f"base weights with hash {wanted[:12]}…, not {found[:12]}…",
            "give the weights that the adapter was trained on",
        )
