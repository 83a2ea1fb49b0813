"""Point-M2AE (ZrrSkywalker/Point-M2AE, MIT): pre-training, classifiers, part segmentation (card `point-m2ae`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from pointlift.core.errors import CheckpointError
from pointlift.weights.upstream.base import Renamed, State, Upstream
from pointlift.weights.upstream.point_mae import HEAD, PATCH, rename_block

REPOSITORY = "ZrrSkywalker/Point-M2AE:"
PRETRAIN_ONLY = ("mask_token", "h_decoder.", "decoder_pos_embeds.", "token_prop.", "decoder_norm.", "rec_head.")
_PROPAGATION = {
    "fuse.net.0": "fuse.mlp.fcs.0",
    "fuse.net.1": "fuse.mlp.bns.0",
    "net1.0": "fc1",
    "net1.1": "bn1",
    "net2.0": "fc2",
    "net2.1": "bn2",
}
# Sizes that leave no trace in the tensors, as released: three levels, six heads.
RELEASED = {"num_groups": (512, 256, 64), "group_size": (16, 8, 8), "radius": (0.32, 0.64, 1.28), "num_heads": 6}
SCAN_GROUP_SIZE = (32, 16, 16)


def _levels(state: Mapping[str, Tensor]) -> int:
    found = [int(m[1]) for k in state if (m := re.match(r"h_encoder\.encoder_pos_embeds\.(\d+)\.", k))]
    return 1 + max(found, default=2)


def rename_encoder_key(key: str) -> str | None:
    """One released key of the hierarchical encoder in our names: `h_encoder.encoder_norms.0.bias` and the like."""
    match = re.fullmatch(r"h_encoder\.(token_embed|encoder_pos_embeds|encoder_blocks|encoder_norms)\.(\d+)\.(.+)", key)
    if match is None:
        return None
    kind, level, rest = match[1], f"levels.{match[2]}.", match[3]
    module, _, leaf = rest.rpartition(".")
    if kind == "token_embed":
        return f"{level}token_embed.{PATCH[module]}.{leaf}" if module in PATCH else None
    if kind == "encoder_pos_embeds":
        return f"{level}pos_embed.fc{'1' if module == '0' else '2'}.{leaf}" if module in ("0", "2") else None
    if kind == "encoder_norms":
        return f"{level}norm.{rest}" if rest in ("weight", "bias") else None
    block = rename_block(rest, "blocks.")
    return None if block is None else level + block


def rename_key(key: str, levels: int = 3) -> str | None:
    """One released key of a classifier in our names; its `norm` is that of the coarsest level."""
    if match := re.fullmatch(r"norm\.(weight|bias)", key):
        return f"levels.{levels - 1}.norm.{match[1]}"
    if match := re.fullmatch(r"cls_head_finetune\.(\d)\.(\w+)", key):
        return f"head.{HEAD[match[1]]}.{match[2]}" if match[1] in HEAD else None
    return rename_encoder_key(key)


def rename_pretrain_key(key: str, levels: int = 3) -> str | None:
    """One released key of the pre-training model in our names (card, section 15)."""
    if key == "mask_token":
        return key
    if match := re.fullmatch(r"decoder_pos_embeds\.(\d+)\.(0|2)\.(\w+)", key):
        return f"stages.{match[1]}.pos_embed.fc{'1' if match[2] == '0' else '2'}.{match[3]}"
    if match := re.fullmatch(r"h_decoder\.(\d+)\.(blocks\..+)", key):
        block = rename_block(match[2], "blocks.")
        return None if block is None else f"stages.{match[1]}.{block}"
    if match := re.fullmatch(r"token_prop\.(\d+)\.(?:extraction\.operation\.(\d+)\.)?([\w.]+)\.(\w+)", key):
        if match[3] not in _PROPAGATION or (match[2] is None) != match[3].startswith("fuse"):
            return None
        block = "" if match[2] is None else f"blocks.{match[2]}."
        return f"stages.{int(match[1]) + 1}.token_prop.{block}{_PROPAGATION[match[3]]}.{match[4]}"
    if match := re.fullmatch(r"(decoder_norm|rec_head)\.(weight|bias)", key):
        return f"{'norm' if match[1] == 'decoder_norm' else 'predict'}.{match[2]}"
    encoder = rename_encoder_key(key)
    return None if encoder is None else f"backbone.{encoder}"


_PART_KEYS = {
    "label_conv.0": "head.category.fc",
    "label_conv.1": "head.category.bn",
    **{f"convs{i + 1}": f"head.logits.mlp.fcs.{i}" for i in range(3)},
    **{f"bns{i + 1}": f"head.logits.mlp.bns.{i}" for i in range(3)},
    "convs4": "head.logits.fc",
}


def rename_part_key(key: str, levels: int = 3) -> str | None:
    """One released key of the part segmentation model in our names (card, section 6)."""
    if match := re.fullmatch(r"propagations\.(\d+)\.mlp_(conv|bn)s\.(\d+)\.(\w+)", key):
        return f"head.propagations.{match[1]}.mlp.{'fcs' if match[2] == 'conv' else 'bns'}.{match[3]}.{match[4]}"
    module, _, leaf = key.rpartition(".")
    return f"{_PART_KEYS[module]}.{leaf}" if module in _PART_KEYS else rename_encoder_key(key)


def _rename(name: Callable[[str, int], str | None], state: Mapping[str, Tensor]) -> Renamed:
    """Released tensors under the names that `name(key, levels)` gives; unknown keys keep theirs, for the report."""
    levels = _levels(state)
    renamed: State = {}
    for key, value in state.items():
        ours = name(key, levels)
        # A 1x1 convolution is a linear layer over rows: (out, in, 1) -> (out, in).
        renamed[ours or key] = value.squeeze(-1) if ours is not None and value.ndim == 3 else value
    return Renamed(renamed)


def rename(state: Mapping[str, Tensor]) -> Renamed:
    """A classifier, or what a classifier takes from a pre-trained model: the encoder."""
    dropped = tuple(key for key in state if key.startswith(PRETRAIN_ONLY))
    encoder = {key: value for key, value in state.items() if key not in set(dropped)}
    new = () if any(key.startswith("cls_head_finetune.") for key in state) else ("head.",)
    return Renamed(_rename(rename_key, encoder).state, dropped, new)


rename_pretrain = partial(_rename, rename_pretrain_key)
rename_parts = partial(_rename, rename_part_key)


def sizes(released: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder's part of the YAML's `model:` section; what it leaves out is hard-coded as released."""
    return {
        "num_groups": tuple(released.get("num_groups", RELEASED["num_groups"])),
        "group_size": tuple(released.get("group_sizes", RELEASED["group_size"])),
        "embed_dim": tuple(released.get("encoder_dims", (96, 192, 384))),
        "depth": tuple(released.get("encoder_depths", (5, 5, 5))),
        # The released code reads anything up to 0 as attention without a limit.
        "radius": tuple(max(0.0, float(r)) for r in released.get("local_radius", RELEASED["radius"])),
        "num_heads": int(released.get("num_heads", RELEASED["num_heads"])),
        "drop_path": float(released.get("drop_path_rate", 0.1)),
    }


def modelnet_config(released: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The ModelNet40 classifier: mean and maximum, added."""
    classes = int(released.get("cls_dim", 40))
    return "point_m2ae", {**sizes(released), "pooling": "mean_plus_max", "num_classes": classes}


def scan_config(released: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The ScanObjectNN classifier: mean and maximum, side by side."""
    classes = int(released.get("cls_dim", 15))
    return "point_m2ae", {**sizes(released), "pooling": "mean+max", "num_classes": classes}


def label_smoothing(released: Mapping[str, Any], classes: int) -> float:
    """The released ModelNet40 loss's `smooth` as PyTorch counts it.

    Released: the true class gets 1 - smooth, the others share the rest. PyTorch shares it among all classes.
    """
    return float(released.get("smooth", 0.3)) * classes / (classes - 1)


def part_config(released: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The part segmentation model; `fp_mlp` and `convs` name other widths than the released ones."""
    head: dict[str, Any] = {}
    if "fp_mlp" in released:
        head["propagation"] = tuple(released["fp_mlp"])
    if "convs" in released:
        head["hidden"] = tuple(released["convs"][1:-1])
    classes = int(released.get("cls_dim", 50))
    return "point_m2ae", {**sizes(released), "head": "parts", "part_head": head, "num_classes": classes}


def pretrain_config(released: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The YAML's `model:` section of pre-training as our objective and its arguments."""
    backbone = sizes(released)
    stages = [*reversed(backbone["embed_dim"][1:])]
    if "decoder_dims" in released and list(released["decoder_dims"]) != stages:
        raise CheckpointError(
            f"decoder_dims {released['decoder_dims']}", f"those of the encoder from the top: {stages}"
        )
    return "hierarchical", {
        "backbone": "point_m2ae",
        "backbone_options": backbone,
        "mask_ratio": float(released["mask_ratio"]),
        "decoder_depth": tuple(released["decoder_depths"]),
        "decoder_heads": backbone["num_heads"],
        "up_blocks": tuple(released["decoder_up_blocks"][: len(stages) - 1]),
        "drop_path": backbone["drop_path"],
        # The head is as wide as a patch of the finest level, though what it rebuilds lies one level higher.
        "predicted_points": backbone["group_size"][0],
    }


def _encoder_shapes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes that the encoder's tensors tell, and the released ones where they tell nothing."""
    levels = range(_levels(state))
    blocks = [set(re.findall(rf"encoder_blocks\.{i}\.blocks\.(\d+)\.", " ".join(state))) for i in levels]
    patch = "h_encoder.token_embed.0."
    found = {
        "embed_dim": tuple(state[f"h_encoder.encoder_pos_embeds.{i}.0.weight"].shape[0] for i in levels),
        "depth": tuple(len(numbers) for numbers in blocks),
        "patch_widths": tuple(
            state[f"{patch}{name}.weight"].shape[0] for name in ("first_conv.0", "first_conv.3", "second_conv.0")
        ),
    }
    # Nobody knows groups of another number of levels: they must be given.
    return {**found, **(RELEASED if len(levels) == 3 else {"num_heads": 6})}


def _assumed(sizes: Mapping[str, Any], *more: str) -> tuple[str, ...]:
    return (*(f"{name}={sizes[name]} (released config)" for name in RELEASED if name in sizes), *more)


def infer(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """A classifier's or pre-trained model's sizes, from shapes."""
    found = _encoder_shapes(state)
    last = state.get("cls_head_finetune.8.weight")
    found["num_classes"] = 0 if last is None else last.shape[0]
    if last is None:
        return "point_m2ae", found, _assumed(found, "clouds are normalised")
    first, second = (state[f"cls_head_finetune.{i}.weight"] for i in (0, 4))
    found["head_hidden"] = (first.shape[0], second.shape[0])
    scan = first.shape[1] == 2 * found["embed_dim"][-1]
    found["pooling"] = "mean+max" if scan else "mean_plus_max"
    if scan and "group_size" in found:
        found["group_size"] = SCAN_GROUP_SIZE
    clouds = "a head for ScanObjectNN: clouds are read as they are" if scan else "clouds are normalised"
    kin = "I2P-MAE's classifiers have the same tensors and other groups and radii"
    return "point_m2ae", found, _assumed(found, clouds, kin)


def infer_parts(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """A part segmentation model's sizes, from shapes."""
    found = _encoder_shapes(state)
    category = state["label_conv.0.weight"]
    head = {
        "categories": category.shape[1],
        "category_dim": category.shape[0],
        "propagation": tuple(state[f"propagations.0.mlp_convs.{i}.weight"].shape[0] for i in (0, 1)),
        "hidden": tuple(state[f"convs{i}.weight"].shape[0] for i in (1, 2, 3)),
    }
    classes = state["convs4.weight"].shape[0]
    return "point_m2ae", {**found, "head": "parts", "part_head": head, "num_classes": classes}, _assumed(found)


def infer_pretrain(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """A pre-training model's sizes, from shapes; masking is as released."""
    backbone = _encoder_shapes(state)
    stages = range(len(backbone["embed_dim"]) - 1)
    names = " ".join(state)
    options = {
        "backbone": "point_m2ae",
        "backbone_options": backbone,
        "decoder_depth": tuple(len(set(re.findall(rf"h_decoder\.{i}\.blocks\.(\d+)\.", names))) for i in stages),
        "decoder_heads": backbone["num_heads"],
        "up_blocks": tuple(
            len(set(re.findall(rf"token_prop\.{i}\.extraction\.operation\.(\d+)\.", names))) for i in stages[:-1]
        ),
        "predicted_points": state["rec_head.weight"].shape[0] // 3,
    }
    return "hierarchical", options, _assumed(backbone, "80 % of the coarsest patches hidden at random")


def preprocess(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The released loaders' steps: ScanObjectNN (two features side by side) as it is, the others normalised."""
    scan = arguments.get("pooling") == "mean+max"
    # The pre-trained encoder's reported score is on 1,024 points, like ModelNet40's.
    return {
        "points": 2048 if scan or arguments.get("head") == "parts" else 1024,
        "normalize": "none" if scan else "unit_sphere",
        "resample": {"skip_near_origin": True},
    }


_NEEDED = {"h_encoder.token_embed.0.first_conv.0.weight", "h_encoder.encoder_pos_embeds.0.0.weight"}


def _fits(state: Mapping[str, Tensor], *, scan: bool) -> bool:
    """A classifier with every key known, or a pre-trained model (which counts as no ScanObjectNN one)."""
    if not state.keys() >= _NEEDED or any(rename_key(k) is None and not k.startswith(PRETRAIN_ONLY) for k in state):
        return False
    first = state.get("cls_head_finetune.0.weight")
    if first is None or not {"norm.weight", "cls_head_finetune.8.weight"} <= state.keys():
        return not scan and first is None and "h_encoder.encoder_norms.0.weight" in state
    return scan == (first.shape[1] == 2 * state["norm.weight"].shape[0])


def _fits_parts(state: Mapping[str, Tensor]) -> bool:
    needed = {"label_conv.0.weight", "convs4.weight", "propagations.0.mlp_convs.0.weight"}
    return needed | _NEEDED <= state.keys() and all(rename_part_key(key) is not None for key in state)


def _fits_pretrain(state: Mapping[str, Tensor]) -> bool:
    needed = {"mask_token", "rec_head.weight", "decoder_norm.weight", "decoder_pos_embeds.0.0.weight"}
    return needed | _NEEDED <= state.keys() and all(rename_pretrain_key(key) is not None for key in state)


def outdated(state: Mapping[str, Tensor]) -> str | None:
    """Why a checkpoint cannot be read that has the names of the first release; the code was renamed since."""
    # `MAE_encoder.` in front is gone after reading.
    if not any(re.match(r"(MAE_encoder\.)?encoders\.\d", key) for key in state):
        return None
    return "has the key names of Point-M2AE's first release (MAE_encoder.encoders.…), which its own code dropped"


UPSTREAMS = (
    Upstream(
        system="point-m2ae",
        upstream=REPOSITORY + "segmentation/Point_M2AE_SEG.py:Point_M2AE_SEG",
        holds="part segmentation model",
        fits=_fits_parts,
        config=part_config,
        infer=infer_parts,
        rename=rename_parts,
        preprocess=preprocess,
    ),
    Upstream(
        system="point-m2ae",
        upstream=REPOSITORY + "models/Point_M2AE.py:Point_M2AE",
        holds="pre-training model",
        fits=_fits_pretrain,
        config=pretrain_config,
        infer=infer_pretrain,
        rename=rename_pretrain,
        preprocess=lambda options: {**preprocess(options["backbone_options"]), "points": 2048},
        kind="objective",
    ),
    Upstream(
        system="point-m2ae",
        upstream=REPOSITORY + "models/Point_M2AE_Finetune.py:Point_M2AE_ModelNet40",
        holds="classifier or pre-trained encoder",
        fits=partial(_fits, scan=False),
        config=modelnet_config,
        infer=infer,
        rename=rename,
        preprocess=preprocess,
    ),
    Upstream(
        system="point-m2ae",
        upstream=REPOSITORY + "models/Point_M2AE_Finetune.py:Point_M2AE_ScanObjectNN",
        holds="classifier",
        fits=partial(_fits, scan=True),
        config=scan_config,
        infer=infer,
        rename=rename,
        preprocess=preprocess,
    ),
)
