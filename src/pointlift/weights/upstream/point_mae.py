"""Point-MAE (Pang-Yatian/Point-MAE, MIT): classifier and pre-trained encoder (card `point-mae`, sections 5, 10, 15)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pointlift.core.errors import CheckpointError
from pointlift.weights.upstream.base import Renamed, State, Upstream

PATCH = {
    "first_conv.0": "local1",
    "first_conv.1": "bn1",
    "first_conv.3": "local2",
    "second_conv.0": "joint1",
    "second_conv.1": "bn2",
    "second_conv.3": "joint2",
}
HEAD = {"0": "fc1", "1": "bn1", "4": "fc2", "5": "bn2", "8": "fc3"}
_BLOCK = {
    "norm1": "norm1",
    "attn.qkv": "qkv",
    "attn.proj": "proj",
    "norm2": "norm2",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
}
# Of the pre-training model, the classifier uses the encoder alone (its `MAE_encoder.` is gone after reading).
_PRETRAIN_ONLY = ("mask_token", "MAE_decoder.", "decoder_pos_embed.", "increase_dim.")
_GROUPS_BY_CLASSES = {15: 128}


def rename_patch_embed(key: str) -> str | None:
    """`encoder.first_conv.0.weight` -> `patch_embed.local1.weight`."""
    match = re.fullmatch(r"encoder\.((?:first|second)_conv\.\d)\.(\w+)", key)
    return f"patch_embed.{PATCH[match[1]]}.{match[2]}" if match and match[1] in PATCH else None


def rename_block(key: str, prefix: str = "blocks.blocks.") -> str | None:
    """`blocks.blocks.3.attn.qkv.weight` -> `trunk.blocks.3.qkv.weight`."""
    match = re.fullmatch(re.escape(prefix) + r"(\d+)\.([\w.]+)\.(weight|bias)", key)
    return f"trunk.blocks.{match[1]}.{_BLOCK[match[2]]}.{match[3]}" if match and match[2] in _BLOCK else None


def rename_key(key: str) -> str | None:
    """One released key of the classifier in our names; None when it is not one of its keys."""
    if key in ("cls_token", "cls_pos"):
        return key
    if match := re.fullmatch(r"pos_embed\.(0|2)\.(weight|bias)", key):
        return f"pos_embed.fc{'1' if match[1] == '0' else '2'}.{match[2]}"
    if match := re.fullmatch(r"norm\.(weight|bias)", key):
        return f"trunk.norm.{match[1]}"
    if match := re.fullmatch(r"cls_head_finetune\.(\d)\.(\w+)", key):
        return f"head.{HEAD[match[1]]}.{match[2]}" if match[1] in HEAD else None
    return rename_patch_embed(key) or rename_block(key)


def rename(state: Mapping[str, Tensor]) -> Renamed:
    """Released tensors in our names and shapes; unknown keys keep their names, so that the load report shows them."""
    renamed: State = {}
    dropped = []
    for key, value in state.items():
        if key.startswith(_PRETRAIN_ONLY):
            dropped.append(key)
            continue
        ours = rename_key(key)
        # A 1x1 convolution is a linear layer over rows: (out, in, 1) -> (out, in).
        conv = ours is not None and ours.startswith("patch_embed.") and value.ndim == 3
        renamed[ours or key] = value.squeeze(-1) if conv else value
    new = () if "cls_token" in state else ("cls_token", "cls_pos", "head.")
    return Renamed(renamed, tuple(dropped), new)


def config(released: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The YAML's `model:` section as our architecture and arguments."""
    dim = int(released["trans_dim"])
    if int(released.get("encoder_dims", dim)) != dim:
        raise CheckpointError(f"encoder_dims {released['encoder_dims']} differs from trans_dim {dim}", "equal widths")
    return "point_transformer", {
        "num_groups": int(released["num_group"]),
        "group_size": int(released["group_size"]),
        "embed_dim": dim,
        "depth": int(released["depth"]),
        "num_heads": int(released["num_heads"]),
        "drop_path": float(released.get("drop_path_rate", 0.1)),
        "num_classes": int(released.get("cls_dim", 0)),
    }


def infer(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """Sizes from shapes. Heads and groups leave no trace in the tensors: they are assumed, and said."""
    dim = state["norm.weight"].shape[0]
    depth = 1 + max(int(m[1]) for k in state if (m := re.match(r"blocks\.blocks\.(\d+)\.", k)))
    head = state.get("cls_head_finetune.8.weight")
    classes = 0 if head is None else head.shape[0]
    groups = _GROUPS_BY_CLASSES.get(classes, 64)
    arguments = {
        "embed_dim": dim,
        "depth": depth,
        "num_heads": max(1, dim // 64),
        "num_groups": groups,
        "group_size": 32,
        "num_classes": classes,
        "patch_widths": (
            state["encoder.first_conv.0.weight"].shape[0],
            state["encoder.first_conv.3.weight"].shape[0],
            state["encoder.second_conv.0.weight"].shape[0],
        ),
        "pos_hidden": state["pos_embed.0.weight"].shape[0],
    }
    if head is not None:
        widths = [state[f"cls_head_finetune.{i}.weight"].shape[0] for i in (0, 4)]
        arguments["head_hidden"] = (widths[0], widths[1])
    assumed = (
        f"num_heads={arguments['num_heads']} (64 channels a head)",
        f"num_groups={groups}, group_size=32 (released config for {classes or 'no'} classes; the 8k one has 512)",
        "15 classes mean ScanObjectNN: clouds are read as they are" if classes == 15 else "clouds are normalised",
    )
    return "point_transformer", arguments, assumed


def preprocess(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Points by number of groups; ScanObjectNN (15 classes) is read as it is, everything else normalised."""
    return {
        "points": {64: 1024, 128: 2048, 512: 8192}.get(arguments["num_groups"], 1024),
        "normalize": "none" if arguments.get("num_classes") == 15 else "unit_sphere",
        "resample": {"skip_near_origin": True},
    }


def _fits(state: Mapping[str, Tensor]) -> bool:
    """A classifier or a pre-trained model with every key known; kin of the family share most keys, not all.

    ACT's full and MLP-3 classifiers have these very keys and compute the same function.
    """
    needed = {"encoder.first_conv.0.weight", "blocks.blocks.0.attn.qkv.weight", "norm.weight", "pos_embed.0.weight"}
    if any(key.startswith("cls_head_finetune.") for key in state):
        needed.add("cls_head_finetune.8.weight")  # ACT's linear protocol has one layer there
    known = all(rename_key(key) is not None or key.startswith(_PRETRAIN_ONLY) for key in state)
    return known and needed <= state.keys()


def rename_pretrain_key(key: str) -> str | None:
    """One released key of the pre-training model in our names (card, section 15)."""
    if key == "mask_token":
        return key
    if match := re.fullmatch(r"decoder_pos_embed\.(0|2)\.(weight|bias)", key):
        return f"decoder_pos.fc{'1' if match[1] == '0' else '2'}.{match[2]}"
    if match := re.fullmatch(r"MAE_decoder\.norm\.(weight|bias)", key):
        return f"decoder.norm.{match[1]}"
    if match := re.fullmatch(r"increase_dim\.0\.(weight|bias)", key):
        return f"predict.{match[1]}"
    if block := rename_block(key, "MAE_decoder.blocks."):
        return block.replace("trunk.", "decoder.", 1)
    encoder = rename_key(key.removeprefix("MAE_encoder."))
    return None if encoder is None else f"backbone.{encoder}"


def rename_pretrain(state: Mapping[str, Tensor]) -> Renamed:
    """Released tensors of the pre-training model in our names and shapes."""
    renamed: State = {}
    for key, value in state.items():
        ours = rename_pretrain_key(key)
        conv = ours is not None and value.ndim == 3 and ours != "mask_token"
        renamed[ours or key] = value.squeeze(-1) if conv else value
    return Renamed(renamed)


_PART_KEYS = {
    "label_conv.0": "head.category.fc",
    "label_conv.1": "head.category.bn",
    "convs1": "head.logits.mlp.fcs.0",
    "convs2": "head.logits.mlp.fcs.1",
    "convs3": "head.logits.fc",
    "bns1": "head.logits.mlp.bns.0",
    "bns2": "head.logits.mlp.bns.1",
}


def rename_part_key(key: str) -> str | None:
    """One released key of the part segmentation model in our names (card, section 6)."""
    if match := re.fullmatch(r"propagation_0\.mlp_(conv|bn)s\.(\d+)\.(\w+)", key):
        return f"head.propagation.mlp.{'fcs' if match[1] == 'conv' else 'bns'}.{match[2]}.{match[3]}"
    module, _, leaf = key.rpartition(".")
    return f"{_PART_KEYS[module]}.{leaf}" if module in _PART_KEYS else rename_key(key)


def rename_parts(state: Mapping[str, Tensor]) -> Renamed:
    """Released tensors of the part segmentation model in our names and shapes."""
    renamed: State = {}
    for key, value in state.items():
        ours = rename_part_key(key)
        renamed[ours or key] = value.squeeze(-1) if ours is not None and value.ndim == 3 else value
    return Renamed(renamed)


def part_config(released: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The released part segmentation model as our architecture; `fetch`, `fp_mlp` and `convs` name other widths."""
    arch, sizes = config(released)
    head: dict[str, Any] = {}
    if "fetch" in released:
        head["fetch"] = tuple(released["fetch"])
    if "fp_mlp" in released:
        head["propagation"] = tuple(released["fp_mlp"])
    if "convs" in released:
        head["hidden"] = tuple(released["convs"][1:-1])
    return arch, {**sizes, "class_token": False, "pooling": "mean+max", "head": "parts", "part_head": head}


def infer_parts(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """Sizes from shapes; groups, heads and the blocks that are read are the released ones."""
    arch, sizes, _ = infer(state)
    category = state["label_conv.0.weight"]
    head = {
        "categories": category.shape[1],
        "category_dim": category.shape[0],
        "propagation": tuple(state[f"propagation_0.mlp_convs.{i}.weight"].shape[0] for i in (0, 1)),
        "hidden": tuple(state[f"convs{i}.weight"].shape[0] for i in (1, 2)),
    }
    sizes |= {
        "num_groups": 128,
        "num_classes": state["convs3.weight"].shape[0],
        "class_token": False,
        "pooling": "mean+max",
        "head": "parts",
        "part_head": head,
    }
    return arch, sizes, (f"num_heads={sizes['num_heads']}", "num_groups=128, group_size=32, blocks 3, 7 and 11 read")


def _fits_parts(state: Mapping[str, Tensor]) -> bool:
    return {"label_conv.0.weight", "convs3.weight", "propagation_0.mlp_convs.0.weight"} <= state.keys() and all(
        rename_part_key(key) is not None for key in state
    )


_MASKS = {"rand": "random", "block": "block"}


def pretrain_config(released: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The YAML's `model:` section of pre-training as our objective and its arguments."""
    inner = released["transformer_config"]
    return "masked", {
        "backbone": "point_transformer",
        "backbone_options": config({**inner, **{k: released[k] for k in ("group_size", "num_group")}})[1],
        "mask": _MASKS[inner["mask_type"]],
        "mask_ratio": float(inner["mask_ratio"]),
        "loss": {"cdl1": "cd_l1", "cdl2": "cd_l2"}[released["loss"]],
        "decoder_depth": int(inner["decoder_depth"]),
        "decoder_heads": int(inner["decoder_num_heads"]),
        "drop_path": float(inner.get("drop_path_rate", 0.1)),
    }


def infer_pretrain(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """Sizes from shapes; masking and loss are the released ones."""
    _, sizes, assumed = infer(state)
    depth = 1 + max(int(m[1]) for k in state if (m := re.match(r"MAE_decoder\.blocks\.(\d+)\.", k)))
    sizes["group_size"] = state["increase_dim.0.weight"].shape[0] // 3
    options = {
        "backbone": "point_transformer",
        "backbone_options": sizes,
        "decoder_depth": depth,
        "decoder_heads": sizes["num_heads"],
    }
    return "masked", options, (*assumed, "60 % of the patches hidden at random, squared Chamfer distance")


def _fits_pretrain(state: Mapping[str, Tensor]) -> bool:
    needed = {"mask_token", "increase_dim.0.weight", "MAE_decoder.norm.weight", "decoder_pos_embed.0.weight"}
    return needed <= state.keys() and all(rename_pretrain_key(key) is not None for key in state)


UPSTREAMS = (
    Upstream(
        system="point-mae",
        upstream="Pang-Yatian/Point-MAE:segmentation/models/pt.py:get_model",
        holds="part segmentation model",
        fits=_fits_parts,
        config=part_config,
        infer=infer_parts,
        rename=rename_parts,
        preprocess=lambda options: {**preprocess(options), "points": 2048, "normalize": "unit_sphere"},
    ),
    Upstream(
        system="point-mae",
        upstream="Pang-Yatian/Point-MAE:models/Point_MAE.py:Point_MAE",
        holds="pre-training model",
        fits=_fits_pretrain,
        config=pretrain_config,
        infer=infer_pretrain,
        rename=rename_pretrain,
        preprocess=lambda options: preprocess(options["backbone_options"]),
        kind="objective",
    ),
    Upstream(
        system="point-mae",
        upstream="Pang-Yatian/Point-MAE:models/Point_MAE.py:PointTransformer",
        holds="classifier or pre-trained encoder",
        fits=_fits,
        config=config,
        infer=infer,
        rename=rename,
        preprocess=preprocess,
    ),
)
