"""Every registered family in a small form, so that a new one is covered the moment it registers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pointlift.models.base import PointModel
from pointlift.models.point_transformer import PointTransformerConfig
from pointlift.models.registry import MODELS, create_model

# Options that make one family small; a new family adds its line.
SMALL: dict[type, dict[str, Any]] = {
    PointTransformerConfig: {
        "num_groups": 6,
        "group_size": 4,
        "embed_dim": 12,
        "depth": 2,
        "num_heads": 3,
        "patch_widths": (6, 8, 10),
        "pos_hidden": 5,
        "head_hidden": (7, 9),
    },
}
POINTS = 40


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`name`: one name per family (names of a family differ in sizes alone); `every_name`: all of them."""
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", list({MODELS.get(n).config: n for n in MODELS}.values()))
    if "every_name" in metafunc.fixturenames:
        metafunc.parametrize("every_name", list(MODELS))


@pytest.fixture
def small(name: str) -> Callable[..., PointModel]:
    """`small(**options)`: the parametrised model, small, seeded, in evaluation mode."""

    def make(num_classes: int = 5, **options: Any) -> PointModel:
        torch.manual_seed(0)
        sizes = SMALL[MODELS.get(name).config]
        return create_model(name, num_classes=num_classes, **{**sizes, **options}).eval()

    return make


@pytest.fixture
def clouds() -> Tensor:
    return torch.randn(4, POINTS, 3, generator=torch.Generator().manual_seed(1))
