"""The `state/*` of a reference file: stored, or rebuilt from the seeded recipe in its metadata."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor


def read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a reference file; half-precision state is exact and widened."""
    with safe_open(str(path), framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    widen = {k: v.float() for k, v in tensors.items() if k.startswith("state/") and v.dtype == torch.float16}
    return metadata, {**tensors, **widen}


def released_state(path: Path, metadata: dict[str, str], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The released state dict of the case."""
    stored = {k.removeprefix("state/"): v for k, v in tensors.items() if k.startswith("state/")}
    if "state_recipe" not in metadata:
        return stored
    shapes = json.loads(metadata["state_shapes"]) if "state_shapes" in metadata else _shapes(path, metadata)
    seed = int(metadata.get("state_seed", metadata["seed"]))
    return {**{key: recipe(key, tuple(shape), seed) for key, shape in shapes.items()}, **stored}


def _shapes(path: Path, metadata: dict[str, str]) -> dict[str, list[int]]:
    """Shapes of the key list whose class and sizes are the case's."""
    config = json.loads(metadata["config"])
    sizes = _sizes(config)
    folders = {path.parent, Path(__file__).parent / "files"}
    for file in sorted(f for folder in folders for f in folder.glob("*.keys.json")):
        keys = json.loads(file.read_text())
        if keys["upstream"] == metadata["upstream"] and _sizes(keys["config"]) == sizes:
            # The length of a queue is the one free number that shows in a shape.
            return {k: [s[0], config["K"]] if k == "queue" else s for k, s in keys["keys"].items()}
    raise AssertionError(f"{path.name}: no key list has the shapes of {metadata['upstream']} with {sizes}")


def _sizes(config: Any) -> Any:
    """A config without what leaves no trace in shapes."""
    free = {"NAME", "drop_path_rate", "num_group", "K"}
    return {k: _sizes(v) for k, v in config.items() if k not in free} if isinstance(config, dict) else config


def recipe(key: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """One tensor of the recipe, as the metadata words it."""
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return torch.tensor(7)
    if leaf == "queue_ptr":
        return torch.zeros(shape, dtype=torch.int64)
    random = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)
    v = random.standard_normal(int(np.prod(shape))).astype(np.float32).reshape(shape)
    if leaf == "running_var":
        v = 0.5 + np.abs(v)
    elif leaf == "running_mean":
        v = 0.1 * v
    elif len(shape) == 1:
        v = 1 + 0.1 * v if leaf == "weight" else 0.05 * v
    elif leaf == "queue":
        v = v / np.linalg.norm(v, axis=0, keepdims=True)
    elif leaf == "mask_token" or (len(shape) == 3 and shape[:2] == (1, 1)):
        v = 0.2 * v
    elif leaf != "codebook":
        v = v / np.sqrt(np.float32(np.prod(shape[1:])))
    return torch.from_numpy(np.asarray(v, np.float32))
