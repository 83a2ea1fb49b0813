"""From a file to a model that can predict: whole models, released checkpoints, and adapters on their base."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from pointlift.adapt.base import AdaptationHandle
from pointlift.adapt.registry import adapt_model
from pointlift.core.config import build
from pointlift.core.errors import CheckpointError, CheckpointMismatchError
from pointlift.models.base import PointModel
from pointlift.models.registry import MODELS, create_model, from_file
from pointlift.weights.load import load_state
from pointlift.weights.modelfile import ModelFile, read_model_file


def load_model(path: str | Path, *, base: str | Path | None = None) -> tuple[PointModel, ModelFile]:
    """The model in a run folder, a model file, a released checkpoint or an adapter file, in evaluation mode.

    Args:
        base: The weights that an adapter was made on, when the place named in it no longer holds them.

    Raises:
        CheckpointError: Not readable, or an adapter whose base cannot be found or is another one.
    """
    file = read_model_file(path)
    model = _with_adapter(file, base)[0] if file.holds == "adapter" else from_file(file)
    model.classes, model.preprocess = file.classes, dict(file.preprocess)
    return model.eval(), file


def load_adapter(model: PointModel, path: str | Path) -> AdaptationHandle:
    """Adapt `model` as the file says and load the learned tensors onto it.

    Raises:
        CheckpointMismatchError: `model` is not the base that the adapter was made on.
    """
    file = read_model_file(path)
    if file.holds != "adapter":
        raise CheckpointError(f"{path} holds a {file.holds}", "an adapter file", "pl.load reads whole models")
    return _apply(model, file)


def _with_adapter(file: ModelFile, base: str | Path | None) -> tuple[PointModel, AdaptationHandle]:
    model = create_model(file.arch, **_creation(file))
    carried = set(file.state)
    if any(k not in carried for k in model.base_state()):
        source = base or (file.extra.get("base") or {}).get("from")
        if source is None:
            raise CheckpointError(
                f"{file.path} is an adapter and does not say where its base is",
                "base=PATH of the base weights",
            )
        _load_base(model, _base_file(source), carried)
    return model, _apply(model, file)


def _creation(file: ModelFile) -> dict:
    config = build(MODELS.get(file.arch).config, file.config, where=f"{file.path}")
    return dict(vars(config))


def _base_file(source: str | Path) -> ModelFile:
    if not Path(source).exists():
        raise CheckpointError(
            f"the base weights {str(source)!r} are not there",
            "the file that the adapter was made on",
            "give base=PATH",
        )
    return read_model_file(source)


def _load_base(model: PointModel, file: ModelFile, carried: set[str]) -> None:
    """The base's tensors; those that the adapter brings itself (head, class token) need not fit."""
    state: dict[str, Tensor] = {k: v for k, v in file.state.items() if k not in carried}
    ignored = (*file.dropped, *(k for k in state if k.startswith("head.")))
    load_state(model, state, dropped=ignored, expected_new=tuple(carried))


def _apply(model: PointModel, file: ModelFile) -> AdaptationHandle:
    options = dict(file.extra["adaptation"])
    handle = adapt_model(model, options.pop("name"), **options)
    others = [k for k in model.state_dict() if k not in file.state]
    wanted = file.extra["base"]["hash"]
    load_state(model, file.state, expected_new=tuple(others))
    if handle.base_hash() != wanted:
        raise CheckpointMismatchError(
            f"{file.path} was made on another base than this {model.arch}",
            f"base weights with hash {wanted[:12]}…, not {handle.base_hash()[:12]}…",
            "give the weights that the adapter was trained on",
        )
    return handle
