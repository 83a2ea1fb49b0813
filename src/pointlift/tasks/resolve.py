"""MODEL on the command line: a run folder, a file, or a registry name, resolved in one place for every verb."""

from __future__ import annotations

from pathlib import Path

from pointlift.adapt.io import load_model
from pointlift.core.errors import CheckpointError
from pointlift.models.base import PointModel
from pointlift.models.registry import MODELS, create_model


def resolve_model(name: str, *, base: str | None = None) -> PointModel:
    """The model that `name` means, in evaluation mode.

    A path that exists wins; then a registry name (`point_mae_base` is untrained, `point_mae_base.scan_hardest` has
    those weights).

    Args:
        base: The base weights of an adapter file, when they are no longer where it says.

    Raises:
        UnknownNameError, CheckpointError: Neither, or a file that cannot be used.
    """
    path = Path(name)
    if path.exists():
        return load_model(path, base=base)[0]
    if "/" in name or path.suffix in {".pth", ".pt", ".safetensors", ".ckpt"}:
        raise CheckpointError(
            f"no run folder or file {name!r}", "a path, or a name of `pointlift list models`", f"looked in {Path.cwd()}"
        )
    MODELS.get(name.partition(".")[0])
    return create_model(name, pretrained="." in name).eval()
