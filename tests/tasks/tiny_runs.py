"""Small data, small models and the command line in this process, for the tests of `tasks` and `cli`."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pointlift.cli import main
from pointlift.tasks.config import FinetuneConfig, finetune_config

CLASSES = ("ball", "box", "disc", "rod")
POINTS = 64

MODEL = {
    "name": "point_transformer",
    "options": {
        "embed_dim": 16,
        "depth": 1,
        "num_heads": 2,
        "patch_widths": [8, 16, 16],
        "num_groups": 8,
        "group_size": 8,
        "pos_hidden": 8,
        "head_hidden": [16, 16],
    },
}

RECIPE = """epochs: 3
model:
  name: point_transformer
  options: {embed_dim: 16, depth: 1, num_heads: 2, patch_widths: [8, 16, 16], num_groups: 8, group_size: 8,
            pos_hidden: 8, head_hidden: [16, 16]}
data:
  points: 64
  batch_size: 8
  val_fraction: 0.25
optim:
  lr: 3.0e-3
schedule:
  warmup_epochs: 0
"""


def cloud(label: int, rng: np.random.Generator, points: int = POINTS) -> np.ndarray:
    """One cloud (N, 3) float32 of a class that its proportions give away."""
    xyz = rng.standard_normal((points, 3))
    if CLASSES[label] == "ball":
        xyz /= np.linalg.norm(xyz, axis=1, keepdims=True)
    elif CLASSES[label] == "box":
        xyz = rng.uniform(-1, 1, (points, 3))
    elif CLASSES[label] == "disc":
        xyz[:, 2] *= 0.05
    else:
        xyz[:, :2] *= 0.05
    return xyz.astype(np.float32)


def write_data(root: Path, *, train: int = 24, test: int = 12, points: int = POINTS, seed: int = 0) -> Path:
    """`train.npz` and `test.npz`, labels in turn over the classes; `test=0` writes no test part."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for part, count in (("train", train), ("test", test)):
        if count:
            label = np.arange(count) % len(CLASSES)
            xyz = np.stack([cloud(k, rng, points) for k in label])
            np.savez(root / f"{part}.npz", points=xyz, label=label, classes=np.array(CLASSES))
    return root


def write_recipe(path: Path, data: Path, extra: str = "") -> Path:
    """A recipe file for the tiny model on `data`."""
    path.write_text(RECIPE.replace("data:\n", f"data:\n  root: {data}\n") + extra)
    return path


def tiny_config(root: Path, /, **changes: object) -> FinetuneConfig:
    """The same as a configuration for the data in `root`; `changes` are laid on it."""
    import yaml

    from pointlift.core.config import merge

    values = merge(yaml.safe_load(RECIPE), {"data": {"root": str(root)}})
    return finetune_config(None, merge(values, changes))


@dataclass(frozen=True)
class Ended:
    """What a command line came to."""

    code: int
    out: str
    err: str


def cli(*words: str | Path) -> Ended:
    """Run `pointlift WORDS…` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(word) for word in words])
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    return Ended(code, out.getvalue(), err.getvalue())


def refused(ended: Ended, *parts: str, code: int) -> None:
    """The contract of every error: exit code, one screen, no traceback, and the words that help."""
    assert ended.code == code, ended
    assert ended.out == "", ended.out
    assert "Traceback" not in ended.err
    assert "internal error" not in ended.err
    assert 0 < len(ended.err.splitlines()) < 25
    for part in parts:
        assert part in ended.err, f"{part!r} is not in: {ended.err}"


def command(*words: str | Path) -> Sequence[str]:
    """The command line as a process of its own."""
    return [sys.executable, "-m", "pointlift", *map(str, words)]
