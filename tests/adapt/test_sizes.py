"""Adapter files at the released size of Point-MAE: a few MB, with nothing of the base in them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from pointlift.adapt import adapt_model, list_adaptations
from pointlift.adapt.registry import ADAPTATIONS
from pointlift.models.base import PointModel
from pointlift.models.registry import create_model

MOST = 8 * 2**20


@pytest.fixture(scope="module")
def base() -> PointModel:
    """One model of 22 M parameters for all."""
    torch.manual_seed(0)
    return create_model("point_mae_base", num_classes=40)


@pytest.mark.parametrize("name", [name for name in list_adaptations() if name != "full"])
def test_a_few_megabytes_of_what_was_learned(base: PointModel, name: str, adapt, tmp_path: Path) -> None:
    whole = base.base_state()
    handle = adapt(base, name) if ADAPTATIONS.get(name).needs_bank else adapt_model(base, name)
    try:
        path = handle.save(tmp_path / "a.safetensors")
        assert path.stat().st_size < MOST
        with safe_open(str(path), "pt") as file:
            keys = set(file.keys())
        assert keys == handle.carried()
        inserted = {k for k in keys if k.startswith(f"adapters.{name}.")}
        assert keys - inserted <= set(handle.changing())
        frozen = {k for k in whole if not k.startswith("head.")} - keys
        assert sum(whole[k].numel() for k in frozen) > 0.95 * 21.9e6
    finally:
        handle.remove()
