"""Small labelled shapes with parts, and a small model for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pointlift.core.config import merge
from pointlift.tasks.config import FinetuneConfig, finetune_config

CATEGORIES = ("lollipop", "table")
PARTS = ("lollipop/ball", "lollipop/stick", "table/leg", "table/top")
POINTS = 96

MODEL = {
    "name": "point_transformer",
    "options": {
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 2,
        "patch_widths": [8, 16, 16],
        "num_groups": 8,
        "group_size": 8,
        "pos_hidden": 8,
        "class_token": False,
        "pooling": "mean+max",
        "part_head": {"propagation": [16, 16], "category_dim": 4, "hidden": [16, 16]},
    },
}

RECIPE = {
    "task": "part_segmentation",
    "epochs": 2,
    "model": MODEL,
    "data": {"points": 64, "batch_size": 8, "val_fraction": 0.25, "resample": {"pool": "all"}},
    "optim": {"lr": 3.0e-3},
    "schedule": {"warmup_epochs": 0},
}


def shape(category: int, rng: np.random.Generator, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """One cloud (N, 3) and its parts (N,): the upper half of every shape is one part, the lower another."""
    high = rng.random(points) < 0.5
    xyz = rng.standard_normal((points, 3)) * (0.3 if CATEGORIES[category] == "lollipop" else 1.0)
    xyz[:, 2] = np.where(high, rng.uniform(0.2, 1.0, points), rng.uniform(-1.0, -0.2, points))
    part = 2 * category + np.where(high, 0 if category == 0 else 1, 1 if category == 0 else 0)
    return xyz.astype(np.float32), part.astype(np.uint8)


def write_parts(root: Path, *, train: int = 16, test: int = 6, seed: int = 0, points: int = POINTS) -> Path:
    """`train.npz` and `test.npz` of shapes with parts."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("test", test)):
        label = np.arange(count) % len(CATEGORIES)
        xyz, part = zip(*(shape(k, rng, points) for k in label), strict=True)
        names = np.array([f"{CATEGORIES[k]}_{i}" for i, k in enumerate(label)])
        np.savez(
            root / f"{split}.npz",
            points=np.stack(xyz), part=np.stack(part), label=label, name=names,
            classes=np.array(CATEGORIES), parts=np.array(PARTS),
        )  # fmt: skip
    return root


def parts_config(root: Path, /, **changes: object) -> FinetuneConfig:
    """The small recipe for the data in `root`; `changes` are laid on it."""
    return finetune_config(None, merge(merge(RECIPE, {"data": {"root": str(root)}}), changes))


def write_recipe(path: Path, data: Path) -> Path:
    """The small recipe as a file."""
    import yaml

    path.write_text(yaml.safe_dump(merge(RECIPE, {"data": {"root": str(data)}})))
    return path
