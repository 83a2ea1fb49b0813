"""`create_model`: architectures by name, each written once as a small dict of sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from pointlift.core.config import build
from pointlift.core.errors import CheckpointError, CheckpointMismatchError, ConfigError, UsageError, unknown_name
from pointlift.core.registry import Registry
from pointlift.models.base import HEAD_FIELDS, PointModel
from pointlift.models.point_m2ae import PointM2AE, PointM2AEConfig
from pointlift.models.point_tokenizer import PointTokenizer, PointTokenizerConfig
from pointlift.models.point_transformer import PointTransformer, PointTransformerConfig
from pointlift.weights.entries import WEIGHTS, weights_for
from pointlift.weights.hub import on_hub
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


# What a file may ask for beyond what it holds: blocks of a network that is compared with it, values of a new head.
MAX_DEPTH = 1000
MAX_NEW_VALUES = 2**28

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

_POINT_M2AE = "arXiv 2205.14401"

MODELS.register(
    "point_m2ae", ModelEntry(PointM2AE, PointM2AEConfig, {}, "Hierarchical point transformer of any size", _POINT_M2AE)
)
MODELS.register(
    "point_m2ae_base",
    ModelEntry(
        PointM2AE,
        PointM2AEConfig,
        {"embed_dim": (96, 192, 384), "depth": (5, 5, 5), "num_heads": 6, "patch_widths": (128, 256, 512)},
        "Point-M2AE classifier, released size (12.8 M)",
        _POINT_M2AE,
    ),
)
MODELS.register(
    "point_m2ae_tiny",
    ModelEntry(
        PointM2AE,
        PointM2AEConfig,
        {
            "num_groups": (128, 64, 32),
            "group_size": (16, 8, 8),
            "embed_dim": (48, 96, 192),
            "depth": (2, 2, 2),
            "num_heads": 3,
            "patch_widths": (32, 64, 128),
            "head_hidden": (128, 128),
        },
        "For two CPU cores: 128, 64 and 32 patches, narrow tokenizer, two blocks a level (1.4 M)",
        _POINT_M2AE,
    ),
)

_POINT_BERT = "arXiv 2111.14819"

MODELS.register(
    "point_bert_base",
    ModelEntry(
        PointTransformer,
        PointTransformerConfig,
        {
            "embed_dim": 384,
            "depth": 12,
            "num_heads": 6,
            "patch_widths": (128, 256, 512),
            "patch_dim": 256,
            "head": "mlp2",
        },
        "Point-BERT classifier, released size (22 M)",
        _POINT_BERT,
    ),
)
MODELS.register(
    "point_bert_tiny",
    ModelEntry(
        PointTransformer,
        PointTransformerConfig,
        {
            "embed_dim": 192,
            "depth": 4,
            "num_heads": 3,
            "patch_widths": (32, 64, 128),
            "patch_dim": 128,
            "group_size": 16,
            "pos_hidden": 64,
            "head": "mlp2",
            "head_hidden": (128, 128),
        },
        "For two CPU cores: as point_mae_tiny, with patches of 128 channels that a small dVAE shares (1.9 M)",
        _POINT_BERT,
    ),
)
MODELS.register(
    "point_tokenizer",
    ModelEntry(PointTokenizer, PointTokenizerConfig, {}, "Tokenizer of patches of any size", _POINT_BERT),
)
MODELS.register(
    "point_tokenizer_base",
    ModelEntry(
        PointTokenizer,
        PointTokenizerConfig,
        {"patch_dim": 256, "patch_widths": (128, 256, 512), "num_codes": 8192, "graph_base": 128},
        "Point-BERT's tokenizer of patches, released size (21 M)",
        _POINT_BERT,
    ),
)
MODELS.register(
    "point_tokenizer_tiny",
    ModelEntry(
        PointTokenizer,
        PointTokenizerConfig,
        {
            "group_size": 16,
            "patch_dim": 128,
            "patch_widths": (32, 64, 128),
            "num_codes": 512,
            "graph_base": 32,
            "head_hidden": (128, 128),
        },
        "For two CPU cores: a vocabulary of 512, patches as in point_bert_tiny (0.5 M)",
        _POINT_BERT,
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
    quirks: str | Mapping[str, Any] | None = None,
    **options: Any,
) -> PointModel:
    """A model by registry name.

    Args:
        name: An architecture ("point_mae_base"), or one with a weights tag ("point_mae_base.modelnet_1k"), which
            loads these weights.
        pretrained: True for the default weights, a tag, or the path of a checkpoint (ours or released).
        num_classes: Classes of the head; 0 gives features; None keeps what the weights or the default say.
        quirks: "paper" or "upstream", or field by field; default: what the weights were trained with, "paper"
            without weights.
        **options: Fields of the architecture's config dataclass, by name.

    Raises:
        UnknownNameError, ConfigError: An unknown name or option (with the nearest one).
        CheckpointError: Weights that cannot be had, read, or fitted.
    """
    arch, _, tag = name.partition(".")
    entry = MODELS.get(arch)
    if isinstance(quirks, Mapping):
        options, quirks = {**options, "quirks": quirks}, None
    if tag and pretrained in (False, True):
        pretrained = tag
    if not pretrained:
        return new_model(arch, {**entry.sizes, **options, **_given(num_classes)}, quirks)
    file = _weights_file(arch, pretrained)
    try:
        return from_file(file, arch, num_classes=num_classes, quirks=quirks, **options)
    except CheckpointMismatchError as error:
        sizes = _misfits(file, arch, options, num_classes)
        if not sizes:
            raise
        raise CheckpointMismatchError(
            f"{', '.join(sizes)} other than in the weights: {error.given}",
            "options that leave the tensors as they are",
            "pretrained=False (--model.pretrained false) starts from nothing",
        ) from None


def _misfits(file: ModelFile, arch: str, options: Mapping[str, Any], num_classes: int | None) -> list[str]:
    """Those options with each of which alone the file's tensors do not fit; none where they never do.

    Where each alone would do, or cannot be had without the others, all that differ from what the file says.
    """

    def fits(chosen: Mapping[str, Any]) -> bool:
        try:
            config, same_head = _planned(file, arch, chosen, num_classes)
            _check_fits(arch, config, file, with_head=same_head)
        except CheckpointMismatchError:
            return False
        except ConfigError:  # a value that makes sense beside the others only
            pass
        return True

    if not fits({}):
        return []
    alone = [name for name, value in options.items() if not fits({name: value})]
    (stored, _), (wanted, _) = (_planned(file, arch, chosen, num_classes) for chosen in ({}, options))
    return alone or [name for name in options if getattr(stored, name) != getattr(wanted, name)]


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
    if file.holds == "adapter" or any(key.startswith("adapters.") for key in file.state):
        name = (file.extra.get("adaptation") or {}).get("name", "another model")
        raise CheckpointError(
            f"{file.path} is adapted by {name}",
            "weights without an adaptation",
            "`pointlift convert FILE OUT.safetensors` merges it into its base, where that is exact",
        )
    if arch is None:
        arch = file.arch
    config, same_head = _planned(file, arch, options, num_classes, quirks)
    _check_fits(arch, config, file, with_head=same_head)
    model = _network(arch, config)
    model.load_report = load_into(model, file, with_head=same_head)
    model.classes = file.classes if same_head else None
    model.categories = file.categories if same_head else None
    model.preprocess = dict(file.preprocess)
    model.origin = file.name or str(file.path)
    return model


def _planned(
    file: ModelFile, arch: str, options: Mapping[str, Any], num_classes: int | None, quirks: str | None = None
) -> tuple[Any, bool]:
    """The config of `from_file`, and whether the head in the file is the one that is wanted."""
    # Sizes that another name fixes win, so that a file of other sizes is refused instead of renamed.
    fixed = {} if arch == file.arch else MODELS.get(arch).sizes
    stored = {**file.config, **fixed}
    config = _config(arch, {**stored, **options, **_given(num_classes)}, quirks or file.quirks)
    said = {name: value for name, value in options.items() if name not in HEAD_FIELDS}
    in_file = build(type(config), {**stored, **said}, where=str(file.path))
    return config, all(getattr(config, name) == getattr(in_file, name) for name in HEAD_FIELDS)


def _given(num_classes: int | None) -> dict[str, int]:
    return {} if num_classes is None else {"num_classes": num_classes}


def new_model(arch: str, values: Mapping[str, Any], quirks: str | None = None) -> PointModel:
    """A model with fresh weights from a whole config, as `values` (those of its `config`, or of a file)."""
    return _network(arch, _config(arch, values, quirks))


def _config(arch: str, values: Mapping[str, Any], quirks: str | None) -> Any:
    config: Any = build(MODELS.get(arch).config, values, where=f"options of {arch}")
    return config if quirks is None else with_quirks(config, quirks)


def set_quirks(model: PointModel, quirks: str) -> None:
    """Let a loaded model compute as the paper says ("paper") or as the released code does ("upstream").

    Raises:
        UsageError: Another word.
    """
    model.config = with_quirks(model.config, quirks)


def with_quirks(config: Any, quirks: str) -> Any:
    """A config whose `quirks` are those of the paper or those of the released code; see `set_quirks`."""
    kinds = type(config.quirks)
    if quirks not in ("paper", "upstream"):
        raise UsageError(f"quirks {quirks!r}", "paper or upstream")
    return replace(config, quirks=kinds() if quirks == "paper" else kinds.upstream())


def _network(arch: str, config: Any) -> PointModel:
    model = MODELS.get(arch).network(config)
    model.arch = arch
    return model


def sketch(file: ModelFile, arch: str | None = None, config: Any = None) -> PointModel:
    """The network that a file describes, on the meta device: names and shapes, no memory, no random numbers.

    Sizes in a file are claims. Loading into the sketch compares them with the tensors before memory is taken.

    Args:
        arch: Another architecture than the file's.
        config: Another config than the file's.

    Raises:
        CheckpointMismatchError: Sizes that no file can hold, or tensors that stand for more bytes than it has.
    """
    arch = arch or file.arch
    if config is None:
        config = _config(arch, file.config, None)
    _check_held(file)
    depth = getattr(config, "depth", 0)
    if (sum(depth) if isinstance(depth, tuple) else depth) > MAX_DEPTH:
        raise CheckpointMismatchError(f"{file.path} asks for depth={depth}", f"at most {MAX_DEPTH} blocks")
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return _network(arch, config)
    except (RuntimeError, TypeError, OverflowError) as error:  # torch on a size beyond 64 bits
        reason = " ".join(str(error).split())[:160]
        raise CheckpointMismatchError(
            f"{file.path} asks for sizes that cannot be: {reason}", "a real network"
        ) from error


def _check_held(file: ModelFile) -> None:
    """That a file holds every value of its tensors: a view can repeat a single one a million times over."""
    odd = [k for k, v in file.state.items() if v.layout != torch.strided or v.device.type == "meta"]
    if odd:
        raise CheckpointMismatchError(f"{file.path}: {odd[0]} is no plain tensor", "dense tensors with values")
    storages = [v.untyped_storage() for v in file.state.values()]
    held = sum({s.data_ptr(): s.nbytes() for s in storages}.values())
    if sum(v.nbytes for v in file.state.values()) > held:
        name, largest = max(file.state.items(), key=lambda item: item[1].nbytes)
        raise CheckpointMismatchError(
            f"{file.path} repeats values instead of holding its tensors (largest: {name} {tuple(largest.shape)})",
            "a checkpoint whose tensors do not share memory",
            "where it was written: torch.save({k: v.clone() for k, v in state.items()}, path)",
        )


def _check_fits(arch: str, config: Any, file: ModelFile, *, with_head: bool) -> None:
    """That the network has the file's tensors, before memory is taken for it; the same errors as loading."""
    plan = sketch(file, arch, config)
    new = set(load_into(plan, file, with_head=with_head).new)
    wanted = sum(v.numel() for k, v in plan.state_dict().items() if k in new)
    if wanted > MAX_NEW_VALUES:
        raise CheckpointMismatchError(
            f"{file.path} holds no head, and one as it describes has {wanted} values", f"at most {MAX_NEW_VALUES}"
        )


def _weights_file(arch: str, pretrained: str | Path | Literal[True]) -> ModelFile:
    if pretrained is True:
        return default_file(arch)
    if f"{arch}.{pretrained}" in WEIGHTS:
        return listed_file(f"{arch}.{pretrained}")
    if on_hub(pretrained):
        return read_model_file(pretrained)
    path = Path(pretrained)
    if path.exists() or path.suffix or len(path.parts) > 1 or isinstance(pretrained, Path):
        return read_model_file(path)
    tags = [name.partition(".")[2] for name in weights_for(arch)]
    raise unknown_name(f"weights of {arch}", str(pretrained), tags, "`pointlift list weights`")


def default_file(arch: str) -> ModelFile:
    """The default weights of an architecture.

    Raises:
        CheckpointError: It has none.
    """
    known = weights_for(arch)
    packaged = [name for name in known if WEIGHTS.get(name).default]
    if not packaged:
        raise CheckpointError(
            f"there are no default weights for {arch!r} yet",
            "a checkpoint: in Python pretrained=PATH, or pretrained=False for a new model; as a base --base PATH",
            f"released weights known for it: {', '.join(known) or 'none'}",
        )
    return listed_file(packaged[0])


def listed_file(name: str) -> ModelFile:
    """The file of a weights entry, with what the entry knows beyond the tensors."""
    entry = WEIGHTS.get(name)
    file = read_model_file(entry.local_file(), config=entry.config)
    return replace(
        file,
        name=name,
        classes=file.classes or entry.classes,
        preprocess={**file.preprocess, **entry.preprocess},
        assumed=tuple(a for a in file.assumed if a.partition("=")[0] not in entry.preprocess),
    )


def load_into(model: PointModel, file: ModelFile, *, with_head: bool = True) -> LoadReport:
    """Load a file's tensors into `model`, strictly, and say what happened to each.

    Raises:
        CheckpointMismatchError: A tensor without a place, a place without a tensor, or another shape.
    """
    own = model.state_dict()
    unwanted = () if with_head else tuple(k for k in file.state if k.startswith("head."))
    optional = model.optional
    if file.config.get("class_token", True) != getattr(model.config, "class_token", True):
        # Pre-training does without a class token: one that is wanted now starts anew.
        optional += ("cls_token", "cls_pos")
    unwanted += tuple(k for k in file.state if optional and k.startswith(optional) and k not in own)
    new = ("adapters.", *optional, *file.new, *(() if with_head else ("head.",)))
    try:
        report = load_state(model, file.state, dropped=(*file.dropped, *unwanted), expected_new=new)
    except CheckpointMismatchError as error:
        shape = ", ".join(f"{k}={v}" for k, v in file.config.items() if k in ("embed_dim", "depth", "num_classes"))
        raise CheckpointMismatchError(
            f"{file.path.name} ({file.arch}: {shape}) into {model.arch}: {error.given}",
            error.expected,
            error.fix,
        ) from None
    return replace(report, assumed=file.assumed)
