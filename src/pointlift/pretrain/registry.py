"""`create_objective`: ways of pre-training by name, each on the backbones that it can teach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pointlift.core.config import build
from pointlift.core.registry import Registry
from pointlift.models.registry import create_model
from pointlift.pretrain.masked import MaskedAutoencoder, MaskedConfig
from pointlift.pretrain.objective import Objective


@dataclass(frozen=True)
class ObjectiveEntry:
    """One way of pre-training.

    Args:
        make: `make(backbone, config) -> Objective`.
        config: Its config class.
        backbone: What it needs the backbone to be, as options of `create_model`.
        about: What it is, in one line.
        paper: arXiv number.
    """

    make: Callable[[Any, Any], Objective]
    config: type[Any]
    backbone: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""
    paper: str = ""


OBJECTIVES: Registry[ObjectiveEntry] = Registry("objective", "`pointlift list objectives`")

OBJECTIVES.register(
    "masked",
    ObjectiveEntry(
        MaskedAutoencoder,
        MaskedConfig,
        {"class_token": False, "pooling": "mean+max", "num_classes": 0},
        "rebuild the points of hidden patches (Point-MAE)",
        "2203.06604",
    ),
)


def create_objective(
    name: str,
    backbone: str = "point_mae_base",
    *,
    quirks: str | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Objective:
    """An objective on a fresh backbone.

    Args:
        name: A name of `OBJECTIVES`.
        backbone: A model name.
        quirks: "paper" or "upstream", for the backbone.
        backbone_options: Fields of the backbone's config.
        **options: Fields of the objective's config.

    Raises:
        UnknownNameError, ConfigError: Unknown names or options, wrong values.
    """
    entry = OBJECTIVES.get(name)
    config = build(entry.config, options, where=f"options of {name}")
    model = create_model(backbone, quirks=quirks, **{**entry.backbone, **(backbone_options or {})})
    objective = entry.make(model, config)
    objective.arch = name
    return objective
