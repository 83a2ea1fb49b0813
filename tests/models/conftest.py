"""Every registered family in a small form, so that a new one is covered the moment it registers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pointlift.models.base import PointModel
from pointlift.models.point_m2ae import PointM2AEConfig
from pointlift.models.point_tokenizer import PointTokenizerConfig
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
    PointTokenizerConfig: {
        "num_groups": 6,
        "group_size": 4,
        "patch_dim": 12,
        "patch_widths": (6, 8, 10),
        "num_codes": 12,
        "graph_base": 4,
        "head_hidden": (7, 9),
    },
    PointM2AEConfig: {
        "num_groups": (12, 8, 4),
        "group_size": (4, 3, 3),
        "embed_dim": (6, 12, 18),
        "depth": (2, 1, 2),
        "radius": (0.6, 1.2, 2.4),
        "num_heads": 3,
        "patch_widths": (6, 8, 10),
        "head_hidden": (7, 9),
    },
}
POINTS = 40


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`name`: one name per family and head (all else of a family are sizes); `every_name`: all of them."""
    if "name" in metafunc.fixturenames:
        kinds = {(MODELS.get(n).config, MODELS.get(n).sizes.get("head")): n for n in MODELS}
        metafunc.parametrize("name", list(kinds.values()))
    if "every_name" in metafunc.fixturenames:
        metafunc.parametrize("every_name", list(MODELS))


@pytest.fixture
def small(name: str) -> Callable[..., PointModel]:
    """`small(**options)`: the parametrised model, small, seeded, in evaluation mode."""

    def make(num_classes: int = 5, **options: Any) -> PointModel:
        torch.manual_seed(0)
        sizes = SMALL[MODELS.get(name).config]
        if not hasattr(MODELS.get(name).config, "drop_path"):  # nothing of it to switch off
            options.pop("drop_path", None)
        return create_model(name, num_classes=num_classes, **{**sizes, **options}).eval()

    return make


@pytest.fixture
def clouds() -> Tensor:
    return torch.randn(4, POINTS, 3, generator=torch.Generator().manual_seed(1))
