"""From a file to a model that can predict: whole models, released checkpoints, and adapters on their base."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from pointlift.adapt.base import AdaptationHandle, adaptation_options, check_base
from pointlift.adapt.memory_bank import MemoryBank, Remembering, bank_beside, read_bank
from pointlift.adapt.registry import adapt_model, config_of
from pointlift.core.config import build
from pointlift.core.errors import CheckpointError, CheckpointMismatchError, UsageError
from pointlift.models.base import HEAD_FIELDS, PointModel
from pointlift.models.registry import MODELS, default_file, from_file, listed_file, new_model, sketch
from pointlift.weights.entries import WEIGHTS
from pointlift.weights.hub import on_hub
from pointlift.weights.load import load_state
from pointlift.weights.modelfile import ModelFile, read_model_file

logger = logging.getLogger(__name__)


def load_model(
    path: str | Path, *, base: str | Path | None = None, bank: MemoryBank | str | Path | None = None
) -> tuple[PointModel, ModelFile]:
    """The model in a run folder, a model file, a released checkpoint or an adapter file, in evaluation mode.

    Args:
        base: The weights that an adapter was made on, when the place named in it no longer holds them. For a released
            checkpoint of Point-PEFT: the pre-trained weights, which make the queries and are not in it.
        bank: A memory bank or its file, for what looks things up; by default the one that lies beside.

    Raises:
        CheckpointError: Not readable, an adapter whose base cannot be found or is another one, or a bank that does not
            fit.
        UsageError: A bank for a model that looks nothing up, or a base for one that needs none.
    """
    file = read_model_file(path)
    return model_of(file, base, bank), file


def model_of(
    file: ModelFile, base: str | Path | None = None, bank: MemoryBank | str | Path | None = None
) -> PointModel:
    """`load_model` of a file that was read already."""
    if file.holds == "adapter":
        model = _from_adapter(file, base, bank)
    elif any(key.startswith("adapters.") for key in file.state):
        model = _with_inserted(file, base, bank)
    elif base is not None:
        raise _needs_no_base(file, base)
    elif bank is not None:
        raise UsageError(f"a memory bank for {file.path}, which looks nothing up", "no bank")
    else:
        model = from_file(file)
    return model.eval()


def _needs_no_base(file: ModelFile, base: str | Path) -> UsageError:
    return UsageError(
        f"base weights {base} with {file.path}, which is no adapter", "an adapter file, or no --base (in Python base=)"
    )


def _with_inserted(file: ModelFile, base: str | Path | None, bank: MemoryBank | str | Path | None) -> PointModel:
    """A whole model into which its adaptation inserted something: the base, adapted anew, then what was learned."""
    inserted = {k: v for k, v in file.state.items() if k.startswith("adapters.")}
    model = from_file(replace(file, state={k: v for k, v in file.state.items() if k not in inserted}))
    options = dict(file.extra.get("adaptation") or {})
    if "name" not in options:
        raise CheckpointError(f"{file.path} holds {next(iter(inserted))} and names no adaptation", "an unchanged file")
    handle = adapt_model(model, config_of(options))
    handle.base_said = dict(file.extra.get("base") or {})  # the base's own values of what was trained are not here
    # What the frozen copy keeps (`adapt.prior`) is not in released files; anything else that is missing is a mistake.
    kept = tuple(k for k in model.state_dict() if ".prior.kept." in k)
    load_state(model, inserted, expected_new=(*model.base_state(), *(kept if file.source else ())))
    if not isinstance(handle.inserted, Remembering) or any(".prior." in key for key in inserted):
        if base is not None:
            raise _needs_no_base(file, base)
    elif base is None:
        logger.warning(
            "%s does not hold the pre-trained weights that ask the memory bank: its own ask, as they were trained; "
            "--base FILE (in Python base=FILE) names the others",
            file.path,
        )
    else:
        _ask_with(model, handle.inserted, base_weights(base))
    _remember(handle, file, bank)
    return model


def _ask_with(model: PointModel, adapter: Remembering, base: ModelFile) -> None:
    """Let the frozen network that makes the queries be that of `base`, where training changed it.

    Raises:
        CheckpointMismatchError: `base` is not what the model was trained from.
    """
    changed, own = adapter.prior.kept.state_dict().keys(), model.base_state()
    frozen = [k for k in base.state if k in own and k not in changed and not k.startswith(("head.", "cls_"))]
    if not frozen or not all(torch.equal(base.state[k], own[k]) for k in frozen):
        raise CheckpointMismatchError(f"{base.path} holds other frozen weights than the model", "what it was made from")
    load_state(adapter.prior.kept, {k: v for k, v in base.state.items() if k in changed})


def load_adapter(
    model: PointModel, path: str | Path, *, bank: MemoryBank | str | Path | None = None
) -> AdaptationHandle:
    """Adapt `model` as the file says (classes and head included) and load the learned tensors onto it.

    Args:
        bank: The memory bank of an adaptation that looks things up, or its file; by default the one that lies beside.

    Raises:
        UsageError: `model` is adapted already, or a bank for what looks nothing up.
        CheckpointError: Not an adapter file, or a bank that is not there or of other features.
        CheckpointMismatchError: `model` is not the base that the adapter was made on; it is left as it was.
    """
    return apply_file(model, read_model_file(path), bank)


def apply_file(model: PointModel, file: ModelFile, bank: MemoryBank | str | Path | None = None) -> AdaptationHandle:
    """`load_adapter` of a file that was read already."""
    adaptation = config_of(adaptation_options(file))
    model.check_not_adapted()
    check_base(model, file)
    trained = build(type(model.config), file.config, where=str(file.path))
    before = model.config, model.head, model.classes, model.categories, model.preprocess
    try:
        if any(getattr(model.config, name) != getattr(trained, name) for name in HEAD_FIELDS):
            config = replace(model.config, **{name: getattr(trained, name) for name in HEAD_FIELDS})
            check_fits(sketch(file, model.arch, config), file, with_head=True)
            model.config = config
            model.reset_classifier(trained.num_classes)
        handle = adapt_model(model, adaptation)
        handle.load(file)
        _remember(handle, file, bank)
    except Exception:  # whatever it is: a model that was refused is as it was
        if model.adaptation is not None:
            model.adaptation.remove()
        model.config, model.head, model.classes, model.categories, model.preprocess = before
        raise
    return handle


def _remember(handle: AdaptationHandle, file: ModelFile, bank: MemoryBank | str | Path | None) -> None:
    """Give an adaptation its memory bank: `bank`, or the one beside its file, where that says it has one.

    Raises:
        CheckpointError: It is not there, or not the one that the file names, or `bank` is not of this model's features.
        UsageError: `bank` for an adaptation that looks nothing up.
    """
    if bank is not None:
        if not isinstance(handle.inserted, Remembering):
            raise UsageError(f"a memory bank for {handle.config.name}, which looks nothing up", "no bank")
        given = bank if isinstance(bank, MemoryBank) else read_bank(bank)
        handle.inserted.check_bank(given)
        handle.inserted.set_bank(given)
        return
    said = file.extra.get("bank")
    if said is None or not isinstance(handle.inserted, Remembering):
        return
    path = bank_beside(file.path)
    if not path.is_file():
        raise CheckpointError(
            f"{file.path} needs its memory bank {path.name}",
            "both files in one folder",
            "where it lies elsewhere: --bank FILE (in Python bank=FILE)",
        )
    bank = read_bank(path)
    if not isinstance(said, dict) or bank.hash != said.get("hash"):
        raise CheckpointMismatchError(f"{path} is another memory bank", f"the one that {file.path.name} was made with")
    handle.inserted.set_bank(bank)


def _from_adapter(file: ModelFile, base: str | Path | None, bank: MemoryBank | str | Path | None) -> PointModel:
    adaptation_options(file)
    plan = sketch(file)
    check_fits(plan, file, with_head=False)
    needed = None
    if any(key not in file.state for key in plan.base_state()):
        needed = base_file(file, base)
        _load_base(sketch(needed, file.arch, plan.config), needed, file)
    model = new_model(file.arch, file.config)
    if needed is not None:
        _load_base(model, needed, file)
    apply_file(model, file, bank)
    return model


def check_fits(plan: PointModel, file: ModelFile, *, with_head: bool) -> None:
    """That a network without memory has the adapter's own tensors in their shapes.

    Args:
        with_head: The whole head must be in the file; the rest may be the base's.
    """
    own = {k: v for k, v in file.state.items() if not k.startswith("adapters.")}
    others = [k for k in plan.base_state() if k not in own and not (with_head and k.startswith("head."))]
    if own or with_head:
        load_state(plan, own, expected_new=others)


def base_file(file: ModelFile, base: str | Path | None = None) -> ModelFile:
    """The base weights of an adapter file: at `base`, or where the file says.

    Raises:
        CheckpointError: They are not there.
    """
    source = base or file.extra["base"].get("from")
    if not isinstance(source, str | Path):
        raise CheckpointError(
            f"{file.path} is an adapter and does not say where its base is",
            "the base",
            "--base PATH (in Python base=PATH)",
        )
    return base_weights(source)


def base_weights(source: str | Path) -> ModelFile:
    """The weights that `source` means, wherever a base is asked for.

    A path that exists wins (a file, a run folder); then `hf://org/name`, a name of `pointlift list weights`, and an
    architecture, which means its default weights.

    Raises:
        CheckpointError: They are not there, or an architecture without default weights.
    """
    if Path(source).exists() or on_hub(source):
        return read_model_file(source)
    if str(source) in WEIGHTS:
        return listed_file(str(source))
    if str(source) in MODELS:
        return default_file(str(source))
    raise CheckpointError(
        f"the base weights {str(source)!r} are not there",
        "the file that the adapter was made on, or a name of `pointlift list weights`",
        "give --base PATH (in Python base=PATH)",
    )


def _load_base(model: PointModel, base: ModelFile, adapter: ModelFile) -> None:
    """The base's tensors; those that the adapter brings itself (head, class token) need not be there."""
    state = base_tensors(model, base.state, adapter)
    model.load_report = load_state(model, state, dropped=base.dropped, expected_new=tuple(adapter.state))
    model.origin = base.name or str(base.path)


def base_tensors(model: PointModel, base: Mapping[str, Tensor], adapter: ModelFile) -> dict[str, Tensor]:
    """Those tensors of a base that the model of an adapter begins with.

    Of what the adapter brings itself, the base's values are what `disable` goes back to, where there are any. Left out
    are the base's head, where the adapter brings one, and what only other uses of the architecture have.
    """
    own = model.state_dict()
    elsewhere = model.optional if getattr(model.config, "class_token", True) else (*model.optional, "cls_")
    brings_head = any(k.startswith("head.") for k in adapter.state)

    def wanted(key: str, value: Tensor) -> bool:
        if key.startswith("head.") and brings_head:
            return False
        if key in adapter.state:
            return key in own and own[key].shape == value.shape
        return key in own or not key.startswith(elsewhere)

    return {k: v for k, v in base.items() if wanted(k, v)}
