"""MODEL and DEVICE on the command line, resolved in one place for every verb."""

from __future__ import annotations

from pathlib import Path

import torch

from pointlift.adapt.io import load_model
from pointlift.core.errors import CheckpointError, UsageError
from pointlift.engine import distributed
from pointlift.models.base import PointModel
from pointlift.models.registry import MODELS, create_model

_WEIGHT_ENDINGS = {".pth", ".pt", ".safetensors", ".ckpt"}


def resolve_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the first GPU if there is one, else the CPU.

    Raises:
        UsageError: Not a device, or not on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = distributed.check_device(name)
    try:
        torch.zeros(1, device=device).item()  # torch knows the names of devices that this machine lacks
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"device {name!r} cannot be used: {reason}", "cpu, cuda, or cuda:0, cuda:1, …") from None
    return device


def resolve_model(name: str, *, base: str | None = None, device: str = "auto") -> PointModel:
    """The model that `name` means, in evaluation mode.

    A path that exists wins; then a registry name (`point_mae_base` is untrained, `point_mae_base.scan_hardest` has
    those weights).

    Args:
        base: The base weights of an adapter file, when they are no longer where it says.
        device: Where to put it; "auto" as in `resolve_device`.

    Raises:
        UnknownNameError, CheckpointError: Neither, or a file that cannot be used.
        UsageError: No such device.
    """
    target = resolve_device(device)
    path = Path(name)
    if path.exists():
        return load_model(path, base=base)[0].to(target)
    if "/" in name or path.suffix in _WEIGHT_ENDINGS:
        raise CheckpointError(
            f"no run folder or file {name!r}", "a path, or a name of `pointlift list models`", f"looked in {Path.cwd()}"
        )
    MODELS.get(name.partition(".")[0])
    return create_model(name, pretrained="." in name).eval().to(target)
