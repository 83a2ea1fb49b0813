"""`create_objective`: ways of pre-training by name, each on the backbones that it can teach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pointlift.core.config import build
from pointlift.core.errors import UsageError
from pointlift.core.registry import Registry
from pointlift.models.registry import create_model, with_quirks
from pointlift.pretrain.bert import BertConfig, MaskedPointModelling
from pointlift.pretrain.dvae import DiscreteVAE, DiscreteVAEConfig
from pointlift.pretrain.hierarchical import HierarchicalAutoencoder, HierarchicalConfig
from pointlift.pretrain.masked import MaskedAutoencoder, MaskedConfig
from pointlift.pretrain.objective import Objective
from pointlift.pretrain.reading import read_objective


@dataclass(frozen=True)
class ObjectiveEntry:
    """One way of pre-training.

    Args:
        make: `make(backbone, config) -> Objective`.
        config: Its config class.
        backbone: What it needs the backbone to be, as options of `create_model`.
        default: The backbone where none is named.
        about: What it is, in one line.
        paper: arXiv number.
    """

    make: Callable[[Any, Any], Objective]
    config: type[Any]
    backbone: Mapping[str, Any] = field(default_factory=dict)
    default: str = "point_mae_base"
    about: str = ""
    paper: str = ""


def _bert(backbone: Any, config: BertConfig) -> MaskedPointModelling:
    """With the tokenizer from where `config.teacher` says, at its sizes."""
    if config.teacher is None:
        return MaskedPointModelling(backbone, config)
    teacher = read_objective(config.teacher, create_objective)
    if not isinstance(teacher, DiscreteVAE):
        raise UsageError(f"{config.teacher} holds {teacher.arch!r}", "a discrete VAE: an objective 'dvae'")
    config = replace(config, tokenizer=teacher.backbone.config, dvae=teacher.config)
    objective = MaskedPointModelling(backbone, config)
    objective.set_tokenizer(teacher)
    return objective


OBJECTIVES: Registry[ObjectiveEntry] = Registry("objective", "`pointlift list objectives`")

OBJECTIVES.register(
    "masked",
    ObjectiveEntry(
        MaskedAutoencoder,
        MaskedConfig,
        {"class_token": False, "pooling": "mean+max", "num_classes": 0},
        "point_mae_base",
        "rebuild the points of hidden patches (Point-MAE)",
        "2203.06604",
    ),
)

OBJECTIVES.register(
    "hierarchical",
    ObjectiveEntry(
        HierarchicalAutoencoder,
        HierarchicalConfig,
        {"level_norms": True, "num_classes": 0},
        "point_m2ae_base",
        "rebuild hidden regions of a hierarchy from coarse to fine (Point-M2AE)",
        "2205.14401",
    ),
)

OBJECTIVES.register(
    "dvae",
    ObjectiveEntry(
        DiscreteVAE,
        DiscreteVAEConfig,
        {"num_classes": 0},
        "point_tokenizer_base",
        "learn a vocabulary of patch shapes (Point-BERT's discrete VAE)",
        "2111.14819",
    ),
)

OBJECTIVES.register(
    "bert",
    ObjectiveEntry(
        _bert,
        BertConfig,
        {"class_token": True, "num_classes": 0},
        "point_bert_base",
        "predict the codes of hidden patches, tell mixed clouds apart (Point-BERT)",
        "2111.14819",
    ),
)


def create_objective(
    name: str,
    backbone: str | None = None,
    *,
    pretrained: bool | str | Path = False,
    quirks: str | Mapping[str, Any] | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Objective:
    """An objective on a backbone.

    Args:
        name: A name of `OBJECTIVES`.
        backbone: A model name; by default the one that the objective was published with.
        pretrained: Weights that the backbone starts from, as in `create_model`.
        quirks: "paper" or "upstream", for the backbone and for the objective where it has quirks of its own; or the
            latter field by field.
        backbone_options: Fields of the backbone's config.
        **options: Fields of the objective's config.

    Raises:
        UnknownNameError, ConfigError: Unknown names or options, wrong values.
    """
    entry = OBJECTIVES.get(name)
    if isinstance(quirks, Mapping):
        options, quirks = {**options, "quirks": quirks}, None
    config = build(entry.config, options, where=f"options of {name}")
    if quirks is not None and hasattr(config, "quirks"):
        config = with_quirks(config, quirks)
    choices = {"quirks": quirks, **entry.backbone, **(backbone_options or {})}
    model = create_model(backbone or entry.default, pretrained=pretrained, **choices)
    objective = entry.make(model, config)
    objective.arch = name
    return objective
