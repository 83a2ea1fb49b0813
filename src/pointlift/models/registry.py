"""`create_model`: architectures by name, each written once as a small dict of sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pointlift.core.config import build
from pointlift.core.errors import CheckpointError, CheckpointMismatchError, UsageError, unknown_name
from pointlift.core.registry import Registry
from pointlift.models.base import HEAD_FIELDS, PointModel
from pointlift.models.point_transformer import PointTransformer, PointTransformerConfig
from pointlift.weights.entries import WEIGHTS, weights_for
from pointlift.weights.load import LoadReport, load_state
from pointlift.weights.modelfile import ModelFile, read_model_file


@dataclass(frozen=True)
class ModelEntry:
    """One architecture: a network, its config class, and the sizes that make this name."""

    network: Callable[[Any], PointModel]
    config: type[Any]
    sizes: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""
    paper: str = ""


MODELS: Registry[ModelEntry] = Registry("model", "`pointlift list models`")

_POINT_MAE = "arXiv 2203.06604"

MODELS.register(
    "point_transformer",
    ModelEntry(PointTransformer, PointTransformerConfig, {}, "Point transformer of any size", _POINT_MAE),
)
MODELS.register(
    "point_mae_base",
    ModelEntry(
        PointTransformer,
        PointTransformerConfig,
        {"embed_dim": 384, "depth": 12, "num_heads": 6, "patch_widths": (128, 256, 512)},
        "Point-MAE classifier, released size (22 M)",
        _POINT_MAE,
    ),
)
MODELS.register(
    "point_mae_small",
    ModelEntry(
        PointTransformer,
        PointTransformerConfig,
        {"embed_dim": 256, "depth": 8, "num_heads": 4, "patch_widths": (64, 128, 256)},
        "Between tiny and base (6.7 M)",
        _POINT_MAE,
    ),
)
MODELS.register(
    "point_mae_tiny",
    ModelEntry(
        PointTransformer,
        PointTransformerConfig,
        {
            "embed_dim": 192,
            "depth": 4,
            "num_heads": 3,
            "patch_widths": (32, 64, 128),
            "group_size": 16,
            "pos_hidden": 64,
            "head_hidden": (128, 128),
        },
        "For two CPU cores: 64 patches of 16 points, narrow tokenizer, four blocks (2 M)",
        _POINT_MAE,
    ),
)


def list_models(pattern: str | None = None, *, pretrained: bool = False) -> list[str]:
    """Names of architectures; with `pretrained`, only those for which a weights entry exists."""
    names = MODELS.names(pattern)
    return [n for n in names if weights_for(n)] if pretrained else names


def create_model(
    name: str,
    *,
    pretrained: bool | str | Path = False,
    num_classes: int | None = None,
    quirks: str | None = None,
    **options: Any,
) -> PointModel:
    """A model by registry name.

    Args:
        name: An architecture ("point_mae_base"), or one with a weights tag ("point_mae_base.modelnet_1k"), which
            loads these weights.
        pretrained: True for the default weights, a tag, or the path of a checkpoint (ours or released).
        num_classes: Classes of the head; 0 gives features; None keeps what the weights or the default say.
        quirks: "paper" or "upstream"; default: what the weights were trained with, "paper" without weights.
        **options: Fields of the architecture's config dataclass, by name.

    Raises:
        UnknownNameError, ConfigError: An unknown name or option (with the nearest one).
        CheckpointError: Weights that cannot be had, read, or fitted.
    """
    arch, _, tag = name.partition(".")
    entry = MODELS.get(arch)
    if tag and pretrained in (False, True):
        pretrained = tag
    if not pretrained:
        return new_model(arch, {**entry.sizes, **options, **_given(num_classes)}, quirks)
    return from_file(_weights_file(arch, pretrained), arch, num_classes=num_classes, quirks=quirks, **options)


def from_file(
    file: ModelFile,
    arch: str | None = None,
    *,
    num_classes: int | None = None,
    quirks: str | None = None,
    **options: Any,
) -> PointModel:
    """The model in `file`; its sizes must be those of `arch` where that is given.

    The head is loaded when it is the one that is wanted; with another number of classes or of another kind it
    starts anew.
    """
    if arch is None:
        arch = file.arch
    # Sizes that another name fixes win, so that a file of other sizes is refused instead of renamed.
    fixed = {} if arch == file.arch else MODELS.get(arch).sizes
    stored = {**file.config, **fixed}
    model = new_model(arch, {**stored, **options, **_given(num_classes)}, quirks or file.quirks)
    in_file = build(type(model.config), stored, where=str(file.path))
    same_head = all(getattr(model.config, name) == getattr(in_file, name) for name in HEAD_FIELDS)
    model.load_report = load_into(model, file, with_head=same_head)
    model.classes = file.classes if same_head else None
    model.preprocess = dict(file.preprocess)
    model.origin = str(file.path)
    return model


def _given(num_classes: int | None) -> dict[str, int]:
    return {} if num_classes is None else {"num_classes": num_classes}


def new_model(arch: str, values: Mapping[str, Any], quirks: str | None = None) -> PointModel:
    """A model with fresh weights from a whole config, as `values` (those of its `config`, or of a file)."""
    entry = MODELS.get(arch)
    config = build(entry.config, values, where=f"options of {arch}")
    if quirks is not None:
        kinds = type(config.quirks)
        if quirks not in ("paper", "upstream"):
            raise UsageError(f"quirks {quirks!r}", "paper or upstream")
        config = replace(config, quirks=kinds() if quirks == "paper" else kinds.upstream())
    model = entry.network(config)
    model.arch = arch
    return model


def _weights_file(arch: str, pretrained: str | Path | Literal[True]) -> ModelFile:
    known = weights_for(arch)
    if pretrained is True:
        packaged = [w for w in known if WEIGHTS.get(w).default]
        if not packaged:
            raise CheckpointError(
                f"there are no default weights for {arch!r} yet",
                "pretrained=PATH of a checkpoint, or pretrained=False for a new model",
                f"released weights known for it: {', '.join(known) or 'none'}",
            )
        return read_model_file(WEIGHTS.get(packaged[0]).local_file())
    if f"{arch}.{pretrained}" in WEIGHTS:
        return read_model_file(WEIGHTS.get(f"{arch}.{pretrained}").local_file())
    path = Path(pretrained)
    if path.exists() or path.suffix or len(path.parts) > 1 or isinstance(pretrained, Path):
        return read_model_file(path)
    tags = [name.partition(".")[2] for name in known]
    raise unknown_name(f"weights of {arch}", str(pretrained), tags, "`pointlift list weights`")


def load_into(model: PointModel, file: ModelFile, *, with_head: bool = True) -> LoadReport:
    """Load a file's tensors into `model`, strictly, and say what happened to each.

    Raises:
        CheckpointMismatchError: A tensor without a place, a place without a tensor, or another shape.
    """
    heads = () if with_head else tuple(k for k in file.state if k.startswith("head."))
    new = ("adapters.", *file.new, *(() if with_head else ("head.",)))
    try:
        report = load_state(model, file.state, dropped=(*file.dropped, *heads), expected_new=new)
    except CheckpointMismatchError as error:
        shape = ", ".join(f"{k}={v}" for k, v in file.config.items() if k in ("embed_dim", "depth", "num_classes"))
        raise CheckpointMismatchError(
            f"{file.path.name} ({file.arch}: {shape}) into {model.arch}: {error.given}",
            error.expected,
            error.fix,
        ) from None
    return replace(report, assumed=file.assumed)
