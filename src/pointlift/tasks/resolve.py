"""MODEL and DEVICE on the command line, resolved in one place for every verb."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pointlift.adapt.io import load_model
from pointlift.core.errors import CheckpointError, UsageError
from pointlift.core.seeds import seed_everything
from pointlift.engine import distributed
from pointlift.models.base import PointModel
from pointlift.models.registry import MODELS, create_model, from_file, set_quirks
from pointlift.tasks.record import differing_quirks
from pointlift.weights.entries import has_default_weights
from pointlift.weights.hub import on_hub

logger = logging.getLogger(__name__)
_WEIGHT_ENDINGS = {".pth", ".pt", ".safetensors", ".ckpt"}


def resolve_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the first GPU if there is one, else the CPU.

    Raises:
        UsageError: Not a device, or not on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = distributed.check_device(name)
    # Only looked at, not used: under torchrun every process would otherwise open the first GPU.
    if device.type not in ("cpu", "cuda") or (device.index or 0) >= max(torch.cuda.device_count(), 1):
        raise UsageError(f"device {name!r} is not on this machine", "cpu, cuda, or cuda:0, cuda:1, …")
    return device


def resolve_model(
    name: str,
    *,
    base: str | None = None,
    bank: str | None = None,
    device: str = "auto",
    quirks: str | None = None,
    pretrained: bool | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> PointModel:
    """The model that `name` means, in evaluation mode.

    A path that exists wins; then a registry name: `point_mae_base.scan_hardest` has those weights, `point_mae_tiny`
    its default weights where there are any, else new ones from seed 0.

    Args:
        base: The base weights of an adapter file, when they are no longer where it says.
        bank: The memory bank of a model that looks things up, when it does not lie beside its file.
        pretrained: For a registry name: False for new weights, True for the default ones (an error where there are
            none), a tag, or the path of a checkpoint.
        options: Fields of the network's config, laid on what the weights say.
        quirks: "paper" or "upstream" instead of what the weights were trained with.
        device: Where to put it; "auto" as in `resolve_device`.

    Raises:
        UnknownNameError, CheckpointError: Neither, or a file that cannot be used.
        UsageError: No such device, `pretrained` for what is no registry name, `bank` for what looks nothing up, or
            `base` for what is no adapter.
    """
    target = resolve_device(device)
    model = _of_path(name, base, bank, options, pretrained)
    if model is None:
        if bank is not None:
            raise UsageError(f"a memory bank with {name}, which looks nothing up", "a run folder or file with it")
        if base is not None:
            raise UsageError(f"base weights {base} with {name}, which is no adapter", "an adapter file, or no --base")
        model = _of_name(name, options, pretrained)
    if quirks is not None:
        compute_as(model, quirks)
    return model.to(target)


def compute_as(model: PointModel, quirks: str) -> None:
    """Let a model compute, and clouds be sampled for it, as the paper says ("paper") or the released code ("upstream").

    Raises:
        UsageError: Another word, or "paper" for an adaptation with quirks of its own: they shape what it learned.
    """
    own = {} if model.adaptation is None else differing_quirks(model.adaptation.config)
    if quirks == "paper" and own:
        raise UsageError(
            f"--quirks paper with an adaptation that was trained with {', '.join(own)}",
            "no --quirks: tensors that were learned with these quirks have no meaning without them",
            "Leave --quirks out; `pointlift info MODEL` lists the quirks, `pointlift list adaptations "
            f"{model.adaptation.config.name}` says what they do",
        )
    set_quirks(model, quirks)
    # The same rule of sampling acts where clouds are reduced to the model's number of points.
    resample = {**model.preprocess.get("resample", {}), "skip_near_origin": quirks == "upstream"}
    model.preprocess = {**model.preprocess, "resample": resample}


def _of_path(
    name: str,
    base: str | None,
    bank: str | None,
    options: Mapping[str, Any] | None,
    pretrained: bool | str | None,
) -> PointModel | None:
    """The model in a run folder or a file; None where `name` is no path."""
    path = Path(name)
    if not (on_hub(name) or path.exists()):
        if "/" in name or path.suffix in _WEIGHT_ENDINGS:
            raise CheckpointError(
                f"no run folder or file {name!r}",
                "a path, or a name of `pointlift list models`",
                f"looked in {Path.cwd()}",
            )
        return None
    if pretrained is not None:
        raise UsageError(
            f"model.pretrained {pretrained} with {name}, which has its own weights",
            "a name of `pointlift list models` with it",
        )
    model, file = load_model(name, base=base, bank=bank)
    if file.assumed:
        logger.warning("%s: assumed %s", name, "; ".join(file.assumed))
    if not options:
        return model
    if file.holds == "adapter":
        raise UsageError(f"model.options with {name}, an adapter", "a whole model")
    seed_everything(0)  # what the options add is the same every time
    return from_file(file, **options).eval()


def _of_name(name: str, options: Mapping[str, Any] | None, pretrained: bool | str | None) -> PointModel:
    arch = name.partition(".")[0]
    MODELS.get(arch)
    if pretrained is None:
        pretrained = "." in name or has_default_weights(arch)
    seed_everything(0)  # an untrained model is the same one every time
    return create_model(name, pretrained=pretrained, **(options or {})).eval()
