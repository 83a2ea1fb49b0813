"""A run whose adaptation inserts something into the trunk reads back as it was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from tiny_runs import tiny_config
from torch import Tensor, nn

from pointlift.adapt.base import Adaptation, Parts
from pointlift.adapt.registry import ADAPTATIONS
from pointlift.layers.trunk import BlockAdapter
from pointlift.models.base import PointModel
from pointlift.tasks.evaluate import evaluate
from pointlift.tasks.finetune import finetune
from pointlift.tasks.run import data_of_run


class _Shift(BlockAdapter):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.ones(dim))

    def branch(self, index: int, h: Tensor, state: object, ctx: object) -> Tensor:
        return h + self.shift


@dataclass(frozen=True)
class _Shifting(Adaptation):
    name: ClassVar[str] = "shifting"

    def build(self, model: PointModel) -> BlockAdapter:
        return _Shift(model.embed_dim)

    def trainable(self, parts: Parts) -> tuple[str, ...]:
        return parts["head"]


def test_run_with_an_inserted_adapter(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADAPTATIONS._entries, "shifting", _Shifting)
    run = finetune(tiny_config(data, epochs=1, adaptation={"name": "shifting"}), out=tmp_path / "run")
    assert run.record.data["model"]["adaptation"] == "shifting"
    assert "adapters.shifting.shift" in run.model.state_dict()
    assert evaluate(run.model, data=data_of_run(run.out, {})).metrics == pytest.approx(run.record.metrics)
