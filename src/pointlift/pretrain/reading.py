"""Objectives on disk: those of our runs, and released ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pointlift.core.errors import CheckpointError, CheckpointMismatchError
from pointlift.models.registry import MAX_DEPTH
from pointlift.pretrain.objective import Objective
from pointlift.weights.load import load_state
from pointlift.weights.modelfile import HEADER, TENSORS, read_model_file
from pointlift.weights.reading import read_checkpoint
from pointlift.weights.upstream import detect

FOLDER = "objective"  # in a run folder


def read_objective(path: str | Path, create: Callable[..., Objective]) -> Objective:
    """An objective with its weights; frozen teachers that the file leaves out come from where its options say.

    Args:
        path: A run folder, an `objective` folder, one of our files, or a released checkpoint.
        create: `create_objective`.

    Raises:
        CheckpointError: Nothing readable there, or no objective.
    """
    path = Path(path)
    if path.is_dir():
        path = next((p for p in (path / FOLDER / TENSORS, path / TENSORS) if p.is_file()), path / FOLDER / TENSORS)
    raw = read_checkpoint(path)
    if HEADER in raw.metadata:
        return _ours(path, create)
    upstream = detect(raw.state, "objective")
    if upstream is None:
        raise CheckpointError(
            f"{path} holds {len(raw.state)} tensors of no objective that is known", "a pre-training checkpoint"
        )
    name, options, _ = upstream.infer(raw.state)
    return _load(lambda: create(name, quirks="upstream", **options), upstream.rename(raw.state).state)


def _ours(path: Path, create: Callable[..., Objective]) -> Objective:
    file = read_model_file(path)
    said = file.extra.get("objective")
    if file.holds != "objective" or not isinstance(said, Mapping) or not isinstance(said.get("options"), Mapping):
        raise CheckpointError(f"{path} holds a {file.holds}", "the folder `objective` of a pre-training run")
    options: dict[str, Any] = dict(said["options"])
    _check_depths(path, {**file.config, **options})
    return _load(lambda: create(str(said.get("name")), file.arch, backbone_options=file.config, **options), file.state)


def _load(make: Callable[[], Objective], state: Mapping[str, Tensor]) -> Objective:
    """Sizes in a file are claims: they are compared with its tensors before memory is taken."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            sketch = make()
    except (RuntimeError, TypeError, OverflowError) as error:  # torch on a size beyond 64 bits
        reason = " ".join(str(error).split())[:160]
        raise CheckpointMismatchError(f"sizes that cannot be: {reason}", "an objective that was trained") from error
    load_state(sketch, state, expected_new=sketch.teacher_prefixes())
    objective = make()
    load_state(objective, state, expected_new=objective.teacher_prefixes())
    return objective.eval()


def _check_depths(path: Path, values: Mapping[str, Any]) -> None:
    """Blocks are built one by one, whatever the tensors hold."""
    for name, value in values.items():
        deep = value if isinstance(value, list | tuple) else [value]
        if "depth" in name and any(isinstance(n, int) and n > MAX_DEPTH for n in deep):
            raise CheckpointMismatchError(f"{path} asks for {name}={value}", f"at most {MAX_DEPTH} blocks")
