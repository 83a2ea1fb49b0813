"""Configurations in the format of Point-BERT's released code, written from the cards, and checkpoints for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from pointlift.core.config import merge

SCAN = {"NAME": "ScanObjectNN_hardest", "ROOT": "data/ScanObjectNN/main_split"}
MODELNET = {"NAME": "ModelNet", "DATA_PATH": "data/ModelNet/modelnet40_normal_resampled", "N_POINTS": 8192}
MODELNET |= {"NUM_CATEGORY": 40, "USE_NORMALS": False}
SHAPENET = {"NAME": "ShapeNet", "DATA_PATH": "data/ShapeNet55-34/ShapeNet-55", "N_POINTS": 8192}
SHAPENET |= {"PC_PATH": "data/ShapeNet55-34/shapenet_pc"}


def fork(model: Mapping[str, Any], base: str, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A fine-tuning configuration as the cards describe it (sections 7 and 9 of `point-mae`)."""
    part = {name: {"_base_": base, "others": {"subset": own}} for name, own in PARTS.items()}
    values = {
        "optimizer": {"type": "AdamW", "kwargs": {"lr": 0.0005, "weight_decay": 0.05}},
        "scheduler": {"type": "CosLR", "kwargs": {"epochs": 300, "initial_epochs": 10}},
        "dataset": part,
        "model": dict(model),
        "npoints": 2048,
        "total_bs": 32,
        "step_per_update": 1,
        "max_epoch": 300,
        "grad_norm_clip": 10,
    }
    return merge(values, changes or {})


PARTS = {"train": "train", "val": "test", "test": "test"}

TRANSFORMER = {"trans_dim": 384, "depth": 12, "drop_path_rate": 0.1, "num_heads": 6}
PATCHES = {"group_size": 32, "num_group": 128}
MAE = {"NAME": "PointTransformer", **TRANSFORMER, **PATCHES, "encoder_dims": 384, "cls_dim": 15}
BERT = {**MAE, "num_group": 64, "encoder_dims": 256, "cls_dim": 40}
MASKED = {
    "NAME": "Point_MAE",
    "group_size": 32,
    "num_group": 64,
    "loss": "cdl2",
    "transformer_config": {**TRANSFORMER, "encoder_dims": 384, "mask_ratio": 0.6, "mask_type": "rand"}
    | {"decoder_depth": 4, "decoder_num_heads": 6},
}
DVAE = {"group_size": 32, "num_group": 64, "encoder_dims": 256}
DVAE |= {"num_tokens": 8192, "tokens_dims": 256, "decoder_dims": 256}
POINT_BERT = {
    "NAME": "Point_BERT",
    "m": 0.999,
    "T": 0.07,
    "K": 16384,
    "transformer_config": {**TRANSFORMER, "mask_ratio": [0.25, 0.45], "cls_dim": 512, "replace_pob": 0.0}
    | {"moco_loss": False, "dvae_loss": True, "cutmix_loss": True, "return_all_tokens": False},
    "dvae_config": {**DVAE, "ckpt": "to be filled in"},
}
LEVELS = {
    "group_sizes": [16, 8, 8],
    "num_groups": [512, 256, 64],
    "encoder_depths": [5, 5, 5],
    "encoder_dims": [96, 192, 384],
    "local_radius": [0.32, 0.64, 1.28],
    "drop_path_rate": 0.1,
    "num_heads": 6,
}
M2AE = {"NAME": "Point_M2AE", **LEVELS, "mask_ratio": 0.8, "decoder_depths": [1, 1], "decoder_dims": [384, 192]}
M2AE |= {"decoder_up_blocks": [1, 1]}

_CFGS = "cfgs/dataset_configs/"
HARDEST, MODELNET40, SHAPENET55 = (
    f"{_CFGS}{name}.yaml" for name in ("ScanObjectNN_hardest", "ModelNet40", "ShapeNet-55")
)
_CLOUDS = {part: {"others": {"npoints": 1024}} for part in PARTS}

# One of each model NAME; Point-BERT's and Point-MAE's classifier share theirs.
RELEASED: dict[str, dict[str, Any]] = {
    "mae": fork(MAE, HARDEST),
    "bert": fork(BERT, MODELNET40, {"npoints": 1024}),
    "masked": fork(MASKED, SHAPENET55, {"dataset": _CLOUDS, "total_bs": 128}),
    "dvae": fork(
        {"NAME": "DiscreteVAE", **DVAE},
        SHAPENET55,
        {
            "dataset": _CLOUDS,
            "temp": {"start": 1, "target": 0.0625, "ntime": 100_000},
            "kldweight": {"start": 0, "target": 0.1, "ntime": 100_000},
            "scheduler": {"kwargs": {"warming_up_init_lr": 0.00005}},
            "total_bs": 64,
            "consider_metric": "CDL1",
        },
    ),
    "point_bert": fork(
        POINT_BERT, SHAPENET55, {"dataset": {"train": {"others": {"npoints": 1024, "whole": True}}}, "total_bs": 128}
    ),
    "m2ae": fork(M2AE, "cfgs/dataset/ShapeNet-55.yaml", {"scheduler": {"kwargs": {"epochs": 400}}}),
    "m2ae_modelnet": fork(
        {"NAME": "Point_M2AE_ModelNet40", **LEVELS, "smooth": 0.3}, "cfgs/dataset/ModelNet40.yaml", {"npoints": 1024}
    ),
    "m2ae_scan": fork(
        {"NAME": "Point_M2AE_ScanObjectNN", **LEVELS, "group_sizes": [32, 16, 16]}, "cfgs/dataset/Scan_OBJ-BG.yaml"
    ),
}


def write_fork(folder: Path, values: Mapping[str, Any], name: str = "finetune.yaml") -> Path:
    """The configuration as a file `cfgs/NAME`; its `_base_` files are not there."""
    path = folder / "cfgs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False))
    return path


def write_base(folder: Path, written: str, values: Mapping[str, Any]) -> None:
    """A `_base_` file where the released code, run in `folder`, finds it."""
    path = folder / written
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False))


# Sizes that train in a second, and what `released_state` has.
TINY = {"trans_dim": 24, "depth": 2, "num_heads": 4, "group_size": 8, "num_group": 16, "encoder_dims": 24}
TINY_RUN = {"npoints": 64, "total_bs": 8, "max_epoch": 1}


def released_state(*, classes: int = 5, dim: int = 24, patch: int = 24, depth: int = 2) -> dict[str, torch.Tensor]:
    """Random weights with the keys of Point-MAE's classifier; 0 classes: no head.

    Args:
        patch: Width of an embedded patch; another than `dim` makes it Point-BERT's trunk.
    """
    draw = torch.Generator().manual_seed(0)

    def new(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw) * 0.1

    def linear(name: str, out: int, into: int, *tail: int) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": new(out, into, *tail), f"{name}.bias": new(out)}

    def norm(name: str, width: int, *, batch: bool = True) -> dict[str, torch.Tensor]:
        state = {f"{name}.weight": new(width) + 1, f"{name}.bias": new(width)}
        more = {f"{name}.running_mean": new(width), f"{name}.running_var": new(width).abs() + 1}
        return {**state, **more, f"{name}.num_batches_tracked": torch.tensor(3)} if batch else state

    state = {"cls_token": new(1, 1, dim), "cls_pos": new(1, 1, dim)}
    state |= linear("encoder.first_conv.0", 8, 3, 1) | norm("encoder.first_conv.1", 8)
    state |= linear("encoder.first_conv.3", 16, 8, 1)
    state |= linear("encoder.second_conv.0", 16, 32, 1) | norm("encoder.second_conv.1", 16)
    state |= linear("encoder.second_conv.3", patch, 16, 1)
    state |= linear("pos_embed.0", 12, 3) | linear("pos_embed.2", dim, 12)
    if patch != dim:
        state |= linear("reduce_dim", dim, patch)
    for i in range(depth):
        block = f"blocks.blocks.{i}"
        state |= norm(f"{block}.norm1", dim, batch=False) | {f"{block}.attn.qkv.weight": new(3 * dim, dim)}
        state |= linear(f"{block}.attn.proj", dim, dim) | norm(f"{block}.norm2", dim, batch=False)
        state |= linear(f"{block}.mlp.fc1", 4 * dim, dim) | linear(f"{block}.mlp.fc2", dim, 4 * dim)
    state |= norm("norm", dim, batch=False)
    if classes:
        state |= linear("cls_head_finetune.0", 20, 2 * dim) | norm("cls_head_finetune.1", 20)
        state |= linear("cls_head_finetune.4", 20, 20) | norm("cls_head_finetune.5", 20)
        state |= linear("cls_head_finetune.8", classes, 20)
    return state


def tiny_checkpoint(path: Path, state: Mapping[str, torch.Tensor]) -> Path:
    """A checkpoint as released runners write it."""
    torch.save({"base_model": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, path)
    return path
