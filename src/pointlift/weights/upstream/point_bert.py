"""Point-BERT (lulutang0608/Point-BERT, MIT): classifier, part segmentation, dVAE and pre-training (card `point-bert`).

What it shares with Point-MAE (patch encoder, blocks, positions) is renamed there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from pointlift.weights.upstream import point_mae
from pointlift.weights.upstream.base import Renamed, State, Upstream

# In a pre-training checkpoint: the network that goes on to be fine-tuned, and what is not part of it there.
_QUERY = "transformer_q."
_QUERY_ONLY = ("mask_token", "lm_head.", "cls_head.")
_PRETRAIN_ONLY = ("transformer_k.", "dvae.", "queue", *(_QUERY + key for key in _QUERY_ONLY))
_POINTS = {64: 1024, 128: 2048, 256: 4096, 512: 8192}


def _rename_all(state: Mapping[str, Tensor], rename_key: Callable[[str], str | None]) -> State:
    """Our names and shapes: 1x1 convolutions are linear layers over rows. Unknown keys keep their names."""
    renamed: State = {}
    for key, value in state.items():
        conv = value.ndim > 2 and key.endswith(".weight")
        renamed[rename_key(key) or key] = value.reshape(value.shape[:2]) if conv else value
    return renamed


def _depth(state: Mapping[str, Tensor], pattern: str = r"blocks\.blocks\.(\d+)\.") -> int:
    return 1 + max(int(m[1]) for k in state if (m := re.match(pattern, k)))


# The classifier.


def rename_key(key: str) -> str | None:
    """One released key of the classifier in our names; None when it is not one of its keys."""
    if match := re.fullmatch(r"reduce_dim\.(weight|bias)", key):
        return f"reduce.{match[1]}"
    if match := re.fullmatch(r"cls_head_finetune\.3\.(weight|bias)", key):
        return f"head.fc2.{match[1]}"
    # The other indices are also those of Point-MAE's larger head, which many forks put on these weights.
    return point_mae.rename_key(key)


def rename(state: Mapping[str, Tensor]) -> Renamed:
    """Tensors of a classifier, or of the network that pre-training trained."""
    dropped = tuple(key for key in state if key.startswith(_PRETRAIN_ONLY))
    kept = {key.removeprefix(_QUERY): value for key, value in state.items() if key not in dropped}
    new = () if any(key.startswith("cls_head_finetune.") for key in kept) else ("head.",)
    return Renamed(_rename_all(kept, rename_key), dropped, new)


def config(released: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The YAML's `model:` section as our architecture and arguments."""
    arch, sizes = point_mae.config({**released, "encoder_dims": released["trans_dim"]})
    return arch, {**sizes, "patch_dim": int(released["encoder_dims"]), "head": "mlp2"}


def infer(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """Sizes from shapes. Heads and groups leave no trace in the tensors: they are assumed, and said."""
    state = {key.removeprefix(_QUERY): value for key, value in state.items()}
    arch, sizes, _ = point_mae.infer(state)
    sizes["patch_dim"] = state["reduce_dim.weight"].shape[1]
    large = "cls_head_finetune.8.weight" in state
    if not large:
        sizes |= {"head": "mlp2", "num_groups": 64}
    if "cls_head_finetune.3.weight" in state:
        hidden = state["cls_head_finetune.0.weight"].shape[0]
        sizes |= {"head_hidden": (hidden, hidden), "num_classes": state["cls_head_finetune.3.weight"].shape[0]}
    assumed = (
        f"num_heads={sizes['num_heads']} (64 channels a head)",
        f"num_groups={sizes['num_groups']}, group_size=32 (released configs for 2048, 4096 and 8192 points have "
        "128, 256 and 512)",
        f"normalize={preprocess(sizes)['normalize']} (clouds of ScanObjectNN are read as they are; its released models "
        "have 40 outputs, as those of ModelNet40)",
    )
    return arch, sizes, assumed


def preprocess(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Points by number of groups; a head for 15 classes is ScanObjectNN's, read as it is."""
    return {**point_mae.preprocess(arguments), "points": _POINTS.get(arguments["num_groups"], 1024)}


# Tensors that sizes are read from, and their axes.
_PATCHES = {f"encoder.{name}.weight": 3 for name in ("first_conv.0", "first_conv.3", "second_conv.0")}
_NEEDED = {**_PATCHES, "reduce_dim.weight": 2, "cls_token": 3, "norm.weight": 1, "pos_embed.0.weight": 2}
_NEEDED |= {"blocks.blocks.0.attn.qkv.weight": 2}
_SMALL_HEAD = {f"cls_head_finetune.{i}.weight": 2 for i in (0, 3)}
_LARGE_HEAD = {f"cls_head_finetune.{i}.weight": 2 for i in (0, 4, 8)}


def _has(state: Mapping[str, Tensor], needed: Mapping[str, int], prefix: str = "") -> bool:
    return all(prefix + key in state and state[prefix + key].ndim == axes for key, axes in needed.items())


def _fits(state: Mapping[str, Tensor]) -> bool:
    """A classifier with either head or none yet, or a pre-training checkpoint."""
    if _fits_pretrain(state):
        return True
    headless = not any(key.startswith("cls_head_finetune.") for key in state)
    head = headless or _has(state, _SMALL_HEAD) or _has(state, _LARGE_HEAD)
    return head and _has(state, _NEEDED) and all(rename_key(key) is not None for key in state)


# Part segmentation.

_PART_KEYS = {"conv1": "head.mlp.fcs.0", "bn1": "head.mlp.bns.0", "conv2": "head.fc"}


def rename_part_key(key: str) -> str | None:
    """One released key of the part segmentation model in our names (card, section 6)."""
    if match := re.fullmatch(r"propagation_(\d)\.mlp_(conv|bn)s\.(\d+)\.(\w+)", key):
        level = int(match[1])
        home = "head.propagation" if level == 0 else f"head.lift.{level - 1}"
        return f"{home}.mlp.{'fcs' if match[2] == 'conv' else 'bns'}.{match[3]}.{match[4]}"
    if match := re.fullmatch(r"dgcnn_pro_([1-9])\.layer([12])\.([01])\.(\w+)", key):
        conv = "across" if match[2] == "1" else "within"
        return f"head.steps.{int(match[1]) - 1}.{conv}.{'fc' if match[3] == '0' else 'norm'}.{match[4]}"
    module, _, leaf = key.rpartition(".")
    return f"{_PART_KEYS[module]}.{leaf}" if module in _PART_KEYS else rename_key(key)


def rename_parts(state: Mapping[str, Tensor]) -> Renamed:
    """Tensors of the part segmentation model."""
    return Renamed(_rename_all(state, rename_part_key))


def part_config(released: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The released part segmentation model as our architecture; `dgcnn_prop_hidden` names another width."""
    arch, sizes = config(released)
    dim = sizes["embed_dim"]
    graph = {"hidden": int(released.get("dgcnn_prop_hidden", 512))}
    head = {"propagation": (4 * dim, dim), "hidden": (128,), "graph": graph}
    return arch, {**sizes, "head": "parts", "part_head": head}


def infer_parts(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """Sizes from shapes; groups, heads, levels and the blocks that are read are the released ones."""
    arch, sizes, _ = infer(state)
    graph = {"hidden": state["dgcnn_pro_1.layer1.0.weight"].shape[0]}
    propagation = tuple(state[f"propagation_0.mlp_convs.{i}.weight"].shape[0] for i in (0, 1))
    head = {
        "categories": state["propagation_0.mlp_convs.0.weight"].shape[1] - propagation[1] - 3,
        "propagation": propagation,
        "hidden": (state["conv1.weight"].shape[0],),
        "graph": graph,
    }
    sizes |= {"num_groups": 128, "num_classes": state["conv2.weight"].shape[0], "head": "parts", "part_head": head}
    assumed = (
        f"num_heads={sizes['num_heads']}",
        "num_groups=128, group_size=32, blocks 3, 7 and 11 read, levels of 512 and 256 points",
    )
    return arch, sizes, assumed


_PART_NEEDED = {f"propagation_0.mlp_convs.{i}.weight": 3 for i in (0, 1)}
_PART_NEEDED |= {"conv1.weight": 3, "conv2.weight": 3, "dgcnn_pro_1.layer1.0.weight": 4}


def _fits_parts(state: Mapping[str, Tensor]) -> bool:
    needed = {**_NEEDED, **_PART_NEEDED}
    return _has(state, needed) and all(rename_part_key(key) is not None for key in state)


# The discrete VAE.

_DECODER = {
    "mlp.0": "fc1",
    "mlp.2": "fc2",
    "mlp.4": "fc3",
    "final_conv.0": "fold.fcs.0",
    "final_conv.1": "fold.bns.0",
    "final_conv.3": "fold.fcs.1",
    "final_conv.4": "fold.bns.1",
    "final_conv.6": "offset",
}
_GRAPHS = {"1": "backbone.dgcnn", "2": "dgcnn"}


def rename_dvae_key(key: str) -> str | None:
    """One released key of the dVAE in our names (card, sections 3 and 13)."""
    if key == "codebook":
        return key
    if match := re.fullmatch(r"dgcnn_([12])\.input_trans\.(\w+)", key):
        return f"{_GRAPHS[match[1]]}.fc_in.{match[2]}"
    if match := re.fullmatch(r"dgcnn_([12])\.layer([1-5])\.([01])\.(\w+)", key):
        layer, part = int(match[2]), match[3]
        own = f"convs.{layer - 1}.{'fc' if part == '0' else 'norm'}" if layer < 5 else ("fc_out", "norm")[int(part)]
        return f"{_GRAPHS[match[1]]}.{own}.{match[4]}"
    if (match := re.fullmatch(r"decoder\.(\w+\.\d)\.(\w+)", key)) and match[1] in _DECODER:
        return f"decoder.{_DECODER[match[1]]}.{match[2]}"
    embed = point_mae.rename_patch_embed(key)
    return None if embed is None else f"backbone.{embed}"


def rename_dvae(state: Mapping[str, Tensor]) -> Renamed:
    """Tensors of the dVAE."""
    return Renamed(_rename_all(state, rename_dvae_key))


def rename_tokenizer(state: Mapping[str, Tensor]) -> Renamed:
    """Tensors of the dVAE's first half, the tokenizer."""
    renamed = rename_dvae(state).state
    theirs = dict(zip(renamed, state, strict=True))
    dropped = tuple(theirs[key] for key in renamed if not key.startswith("backbone."))
    own = {key.removeprefix("backbone."): value for key, value in renamed.items() if key.startswith("backbone.")}
    return Renamed(own, dropped, ("head.",))


def tokenizer_config(released: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the tokenizer; two more keys than the YAML's name other inner widths."""
    first = int(released.get("enc_first", 128))
    return {
        "num_groups": int(released["num_group"]),
        "group_size": int(released["group_size"]),
        "patch_dim": int(released["encoder_dims"]),
        "patch_widths": (first, 2 * first, 4 * first),
        "num_codes": int(released["num_tokens"]),
        "graph_base": int(released.get("dgcnn_base", 128)),
    }


def decoder_config(released: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of what stands behind the tokenizer; likewise."""
    return {
        "code_dim": int(released["tokens_dims"]),
        "decoder_dim": int(released["decoder_dims"]),
        "decoder_hidden": int(released.get("dec_hidden", 1024)),
        "fold_hidden": int(released.get("fold_hidden", 512)),
    }


def dvae_config(released: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The YAML's `model:` section as our objective and its arguments."""
    tokenizer = {"backbone": "point_tokenizer", "backbone_options": tokenizer_config(released)}
    return "dvae", {**tokenizer, **decoder_config(released)}


def infer_tokenizer(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """Sizes from shapes; the number of groups leaves no trace."""
    widths = ("first_conv.0", "first_conv.3", "second_conv.0")
    sizes = {
        "num_groups": 64,
        "group_size": 4 * state["decoder.mlp.4.weight"].shape[0] // 3,
        "patch_dim": state["encoder.second_conv.3.weight"].shape[0],
        "patch_widths": tuple(state[f"encoder.{name}.weight"].shape[0] for name in widths),
        "num_codes": state["codebook"].shape[0],
        "graph_base": state["dgcnn_1.input_trans.weight"].shape[0],
    }
    return "point_tokenizer", sizes, ("num_groups=64 (released config)",)


def infer_decoder(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes of what stands behind the tokenizer."""
    return {
        "code_dim": state["codebook"].shape[1],
        "decoder_dim": state["decoder.mlp.0.weight"].shape[1],
        "decoder_hidden": state["decoder.mlp.0.weight"].shape[0],
        "fold_hidden": state["decoder.final_conv.0.weight"].shape[0],
    }


def infer_dvae(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """Sizes from shapes; schedules are the released ones."""
    arch, sizes, assumed = infer_tokenizer(state)
    return "dvae", {"backbone": arch, "backbone_options": sizes, **infer_decoder(state)}, assumed


_DVAE_NEEDED = {**_PATCHES, "encoder.second_conv.3.weight": 3, "codebook": 2, "dgcnn_1.input_trans.weight": 3}
_DVAE_NEEDED |= {"decoder.mlp.0.weight": 2, "decoder.mlp.4.weight": 2, "decoder.final_conv.0.weight": 3}


def _fits_dvae(state: Mapping[str, Tensor]) -> bool:
    return _has(state, _DVAE_NEEDED) and all(rename_dvae_key(key) is not None for key in state)


# Pre-training: the network that learns, the one that follows it, the frozen dVAE and a queue.

_HEADS = {"lm_head": "codes", "cls_head.0": "contrast1", "cls_head.2": "contrast2"}


def _rename_masked_key(key: str) -> str | None:
    """One key of a network that reads masked clouds: the backbone, and what stands around it."""
    if key == "mask_token":
        return f"heads.{key}"
    module, _, leaf = key.rpartition(".")
    if module in _HEADS:
        return f"heads.{_HEADS[module]}.{leaf}"
    backbone = rename_key(key)
    return None if backbone is None else f"backbone.{backbone}"


def rename_pretrain_key(key: str) -> str | None:
    """One released key of the pre-training model in our names (card, section 13)."""
    if key in ("queue", "queue_ptr"):
        return {"queue": "queue.keys", "queue_ptr": "queue.at"}[key]
    part, _, rest = key.partition(".")
    if part == "dvae":
        inner = rename_dvae_key(rest)
        return None if inner is None else f"dvae.{inner}"
    inner = _rename_masked_key(rest)
    if inner is None or part not in ("transformer_q", "transformer_k"):
        return None
    return inner if part == "transformer_q" else f"follower.{inner}"


def rename_pretrain(state: Mapping[str, Tensor]) -> Renamed:
    """Tensors of the pre-training model; a key of the queue is a row here and a column there."""
    renamed = _rename_all(state, rename_pretrain_key)
    if "queue.keys" in renamed:
        renamed["queue.keys"] = renamed["queue.keys"].T
    return Renamed(renamed)


def pretrain_config(released: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The YAML's `model:` section of pre-training as our objective and its arguments."""
    inner, widths = released["transformer_config"], {k: v for k, v in released.items() if not isinstance(v, Mapping)}
    inside = {**widths, **released["dvae_config"]}
    tokenizer = tokenizer_config(inside)
    low, high = inner["mask_ratio"]
    return "bert", {
        "backbone": "point_transformer",
        "backbone_options": {
            **{name: tokenizer[name] for name in ("num_groups", "group_size", "patch_dim", "patch_widths")},
            "embed_dim": int(inner["trans_dim"]),
            "depth": int(inner["depth"]),
            "num_heads": int(inner["num_heads"]),
            "drop_path": float(inner.get("drop_path_rate", 0.1)),
            "head": "mlp2",
        },
        "tokenizer": tokenizer,
        "dvae": decoder_config(inside),
        "mask": "random" if "rand" in (inner.get("mask_type"), inner.get("mask")) else "block",
        "mask_ratio": (float(low), float(high)),
        "replace": float(inner.get("replace_pob", 0.0)),
        "predict": "all" if inner.get("return_all_tokens", False) else "hidden",
        "code_loss": bool(inner.get("dvae_loss", True)),
        "momentum_loss": bool(inner.get("moco_loss", False)),
        "mix_loss": bool(inner.get("cutmix_loss", True)),
        "contrast_dim": int(inner["cls_dim"]),
        "queue": int(released["K"]),
        "momentum": float(released["m"]),
        "temperature": float(released["T"]),
    }


def infer_pretrain(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """Sizes from shapes; masks, losses, momentum and temperature are the released ones."""
    dvae = {k.removeprefix("dvae."): v for k, v in state.items() if k.startswith("dvae.")}
    tokenizer = infer_tokenizer(dvae)[1]
    query = {k: v for k, v in state.items() if k.startswith(_QUERY)}
    sizes = {**infer(query)[1], **{n: tokenizer[n] for n in ("num_groups", "group_size")}}
    contrast, queue = state["queue"].shape
    options = {
        "backbone": "point_transformer",
        "backbone_options": sizes,
        "tokenizer": tokenizer,
        "dvae": infer_decoder(dvae),
        "contrast_dim": contrast,
        "queue": queue,
    }
    assumed = (
        f"num_heads={sizes['num_heads']} (64 channels a head)",
        "num_groups=64; blocks of 25 to 45 % of the patches hidden, mixed clouds contrasted, temperature 0.07",
    )
    return "bert", options, assumed


def _fits_pretrain(state: Mapping[str, Tensor]) -> bool:
    parts = _has(state, {"queue": 2}) and _has(state, _NEEDED, _QUERY) and _has(state, _DVAE_NEEDED, "dvae.")
    return parts and all(rename_pretrain_key(key) is not None for key in state)


_ADDRESS = "lulutang0608/Point-BERT:"

UPSTREAMS = (
    Upstream(
        system="point-bert",
        upstream=_ADDRESS + "segmentation/models/PointTransformer.py:get_model",
        holds="part segmentation model",
        fits=_fits_parts,
        config=part_config,
        infer=infer_parts,
        rename=rename_parts,
        preprocess=preprocess,
    ),
    Upstream(
        system="point-bert",
        upstream=_ADDRESS + "models/dvae.py:DiscreteVAE",
        holds="discrete VAE",
        fits=_fits_dvae,
        config=dvae_config,
        infer=infer_dvae,
        rename=rename_dvae,
        preprocess=lambda options: preprocess(options["backbone_options"]),
        kind="objective",
    ),
    Upstream(
        system="point-bert",
        upstream=_ADDRESS + "models/dvae.py:DiscreteVAE",
        holds="tokenizer",
        fits=_fits_dvae,
        config=lambda released: ("point_tokenizer", tokenizer_config(released)),
        infer=infer_tokenizer,
        rename=rename_tokenizer,
        preprocess=preprocess,
    ),
    Upstream(
        system="point-bert",
        upstream=_ADDRESS + "models/Point_BERT.py:Point_BERT",
        holds="pre-training model with a tokenizer",
        fits=_fits_pretrain,
        config=pretrain_config,
        infer=infer_pretrain,
        rename=rename_pretrain,
        preprocess=lambda options: preprocess(options["backbone_options"]),
        kind="objective",
    ),
    Upstream(
        system="point-bert",
        upstream=_ADDRESS + "models/Point_BERT.py:PointTransformer",
        holds="classifier or pre-trained encoder",
        fits=_fits,
        config=config,
        infer=infer,
        rename=rename,
        preprocess=preprocess,
    ),
)
