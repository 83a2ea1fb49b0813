"""What a model or a checkpoint is: sizes, cost, origin, scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper

from pointlift.adapt.base import adaptation_options
from pointlift.adapt.io import check_fits, model_of
from pointlift.adapt.memory_bank import MemoryBank, Remembering, bank_beside, read_bank
from pointlift.adapt.registry import adapt_model, config_of
from pointlift.core.config import to_dict
from pointlift.core.errors import CheckpointError, DataError, PointLiftError
from pointlift.models.base import PointModel
from pointlift.models.registry import MODELS, create_model, new_model, sketch
from pointlift.ops import use_backend
from pointlift.tasks.inputs import data_config_of
from pointlift.tasks.record import Record, describe_quirks, differing_quirks
from pointlift.tasks.resolve import resolve_model
from pointlift.weights.entries import WEIGHTS, weights_for
from pointlift.weights.hub import local_path, on_hub
from pointlift.weights.ledger import ledger
from pointlift.weights.load import load_state
from pointlift.weights.modelfile import BANK_HEADER, ModelFile, read_model_file
from pointlift.weights.reading import read_checkpoint, read_tensor_file


def inspect_model(name: str) -> dict[str, Any]:
    """Shapes, parameters, FLOPs, licence, reported and measured scores of a registry name, run folder or file.

    Of weights whose system is not built yet, what the ledger knows; of a memory bank, its facts (`bank`): `arch` is
    None and there is nothing on a model.
    """
    path = local_path(name)
    if not path.exists() and name not in WEIGHTS and name in ledger():
        return {"name": name, "arch": None, "weights": {name: _entry(name)}}
    try:
        file = read_model_file(path) if on_hub(name) or path.exists() else None
    except CheckpointError:
        bank = _bank_in(path)
        if bank is None:
            raise
        return {"name": name, "arch": None, "weights": {}, "bank": _facts(bank, path)}
    if file is not None:
        model = _model_of(file)
    elif name in WEIGHTS:  # what is known of weights does not need the file
        model = create_model(name.partition(".")[0])
    else:
        model = resolve_model(name, device="cpu")
    config = data_config_of(model)
    known = [name] if name in WEIGHTS else weights_for(model.arch)
    about: dict[str, Any] = {
        "name": name,
        "arch": model.arch,
        "paper": MODELS.get(model.arch).paper,
        "parameters": sum(p.numel() for p in model.parameters()),
        "parameters_by_part": parameters_by_part(model),
        "input": {"xyz": [1, config.points, 3], "normalize": config.normalize},
        "output": _output(model, config.points),
        "num_classes": model.config.num_classes,
        "gflops": _gflops(model, config.points),
        "adaptation": None if model.adaptation is None else _adaptation(model, config.points),
        "classes": None if model.classes is None else list(model.classes),
        "categories": None if model.categories is None else list(model.categories),
        "config": to_dict(model.config),
        "weights": {w: _entry(w) for w in known},
    }
    return about if file is None else about | {"file": _file(file, path, model)}


def _model_of(file: ModelFile) -> PointModel:
    """The model in a file; a bank that is gone or another one is said (`_beside`), not asked for."""
    if _beside(file).get("bank", {"found": True})["found"] is not True:
        file = replace(file, extra={k: v for k, v in file.extra.items() if k != "bank"})
    return _adapted(file) if file.holds == "adapter" else model_of(file)


def _adapted(file: ModelFile) -> PointModel:
    """The network of an adapter file with the adaptation on it, its own sizes checked; no value of it is the base's."""
    kind, plan = config_of(adaptation_options(file)), sketch(file)  # refuses sizes before they cost memory
    check_fits(plan, file, with_head=False)
    with torch.device("meta"):
        planned = kind.build(plan)
    if planned is not None:
        prefix = f"adapters.{kind.name}."
        load_state(planned, {k.removeprefix(prefix): v for k, v in file.state.items() if k.startswith(prefix)})
    model = new_model(file.arch, file.config)
    model.classes, model.categories, model.preprocess = file.classes, file.categories, dict(file.preprocess)
    inserted = adapt_model(model, kind).inserted
    if isinstance(inserted, Remembering) and "bank" in file.extra:
        inserted.set_bank(read_bank(bank_beside(file.path)))
    return model.eval()


def _adaptation(model: PointModel, points: int) -> dict[str, Any]:
    """The adaptation in force: its options, its own quirks, and what it adds to the network; `model` stays as it is."""
    handle = model.adaptation
    options = {k: v for k, v in to_dict(handle.config).items() if k != "quirks"}
    inserted = () if handle.inserted is None else handle.inserted.parameters()
    whole = _gflops(model, points)
    handle.disable()
    alone = flops(model, points) / 1e9
    handle.enable()
    return {
        "name": handle.config.name,
        "paper": handle.config.paper,
        "options": options,
        "quirks": list(differing_quirks(handle.config)),
        "adds": {
            "parameters": sum(p.numel() for p in inserted),
            "gflops": None if whole is None else whole - alone,
        },
    }


def _bank_in(path: Path) -> MemoryBank | None:
    """The memory bank in a file that holds no model: one of ours, or a released one, which is a matrix alone.

    Raises:
        CheckpointError: One of ours that is damaged.
    """
    if path.suffix == ".safetensors":
        ours = path.is_file() and BANK_HEADER in read_checkpoint(path).metadata
        return read_bank(path) if ours else None
    try:
        alone = len(read_tensor_file(path)) == 1
        return read_bank(path) if alone else None
    except PointLiftError:
        return None


def _facts(bank: MemoryBank, path: Path) -> dict[str, Any]:
    """What a memory bank holds, and what it was made from."""
    sizes = {"rows": len(bank), "width": bank.dim, "dtype": str(bank.rows.dtype).removeprefix("torch.")}
    return {"path": str(path), **sizes, "bytes": path.stat().st_size, "hash": bank.hash, **asdict(bank.facts)}


def _output(model: PointModel, points: int) -> list[int]:
    """Shape of what one cloud gives."""
    classes = model.config.num_classes
    return [1, points, classes] if classes and model.config.head == "parts" else [1, classes or model.num_features]


def parameters_by_part(model: PointModel) -> dict[str, int]:
    """Parameters of each part, from input to output, then of what is inserted; blocks together."""
    counts: dict[str, int] = {}
    inserted = {"adapters": ("adapters.",)} if model.adapters else {}
    for part, prefixes in (model.parts() | inserted).items():
        size = sum(p.numel() for n, p in model.named_parameters() if n.startswith(prefixes))
        kind = part.partition(".")[0]
        counts[kind] = counts.get(kind, 0) + size
    return counts


def _gflops(model: PointModel, points: int) -> float | None:
    """Billions of operations of one cloud; None of a model that lacks its memory bank."""
    inserted = None if model.adaptation is None else model.adaptation.inserted
    if isinstance(inserted, Remembering) and inserted.bank is None:
        return None
    return flops(model, points) / 1e9


# Matrix products inside our own operators (`pointlift.ops`), from the shapes of their arguments.
_OPERATIONS: dict[str, Callable[..., int]] = {
    "linear_max": lambda x, weight, **_: 2 * prod(x) * weight[0],
    "neighborhood_max": lambda table, idx, x, weight, **_: 2 * prod(x) * weight[0],
    "neighborhood_attention": lambda qkv, idx, *_, **__: 4 * prod(idx) * idx[2] * qkv[2] // 3,
}


class _Counter(TorchDispatchMode):
    """Sums up torch's formulas (`torch.utils.flop_counter`) and ours over every operation.

    Not torch's own `FlopCounterMode`: its first operation imports the compiler, seconds in every process.
    """

    def __init__(self) -> None:
        super().__init__()
        own = {getattr(torch.ops.pointlift, name): shape_wrapper(count) for name, count in _OPERATIONS.items()}
        self._formulas, self.total = flop_registry | own, 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here; to say that it must not be imports the compiler

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = self._formulas.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=out)
        return out


def flops(model: PointModel, points: int) -> int:
    """Floating-point operations of one cloud's forward pass (two per multiply-add; matrix products and attention)."""
    device = next(model.parameters()).device
    # Distinct points on a spiral: any cloud will do, a random one would make the count depend on a seed.
    t = torch.linspace(0, 20, points, device=device)
    xyz = torch.stack([t.cos() * t, t.sin() * t, t], -1).unsqueeze(0) / 20
    # The count is the same on every back end; this one is there at once, a compiled one after seconds.
    with torch.no_grad(), use_backend("reference"), _Counter() as counter:
        model.eval()({"xyz": xyz, "category": torch.zeros(1, dtype=torch.long, device=device)})
    return counter.total


def _entry(name: str) -> dict[str, Any]:
    entry = ledger()[name]
    return {
        "system": entry.system,
        "holds": entry.holds,
        "load": entry.status,
        "url": entry.url,
        "licence": entry.licence,
        "paper": entry.paper,
        "reported": dict(entry.reported),
        "quirks": list(entry.quirks),
        "note": entry.note,
    }


def _beside(file: ModelFile) -> dict[str, Any]:
    """What a model needs besides its file, and whether that is there: the base of an adapter, a memory bank."""
    found: dict[str, Any] = {}
    base, bank = file.extra.get("base"), file.extra.get("bank")
    if isinstance(base, dict):
        found["base"] = {**base, "found": _is_there(base.get("from"))}
    if isinstance(bank, dict):
        path = bank_beside(file.path)
        size = path.stat().st_size if path.is_file() else None
        found["bank"] = {**bank, "file": path.name, "found": _is_bank(path, bank.get("hash")), "bytes": size}
    return found


def _is_bank(path: Path, wanted: Any) -> bool | str:
    """Whether the memory bank of this hash is there."""
    if not path.is_file():
        return False
    try:
        return read_bank(path).hash == wanted or "another one"
    except PointLiftError:
        return "cannot be read"


def _is_there(place: Any) -> bool | str:
    """Whether base weights are on this machine; those on the Hub are not looked for."""
    if not isinstance(place, str):
        return False
    if on_hub(place):
        return "not looked for"
    try:
        return WEIGHTS.get(place).local_file().is_file() if place in WEIGHTS else Path(place).exists()
    except CheckpointError:
        return False


def sound_counts(said: Any) -> dict[str, Any] | None:
    """What a description says of how many parameters learned (`AdaptationReport`); None where it does not say it."""
    names = ("parameters", "trainable", "trainable_without_head")
    return said if isinstance(said, dict) and all(type(said.get(name)) is int for name in names) else None


def _file(file: ModelFile, path: Path, model: PointModel) -> dict[str, Any]:
    counts = sound_counts(file.extra.get("counts"))
    if counts is None and model.adaptation is not None:  # released files, and older ones of ours
        counts = asdict(model.adaptation.report())
    learned = {"adaptation": file.extra.get("adaptation"), "counts": counts}
    about: dict[str, Any] = {
        "path": str(file.path),
        "holds": file.holds,
        "source": file.source or file.extra.get("source"),
        "quirks": list(describe_quirks(model)),
        "tensors": len(file.state),
        "dropped": list(file.dropped),
        "assumed": list(file.assumed),
        "preprocess": file.preprocess,
        **{k: said for k, said in learned.items() if said is not None},
        **_beside(file),
    }
    try:
        record = Record.read(path)
    except DataError:  # a file, or a run that is not finished
        return about
    measured = {"metrics": record.metrics, **{k: record.data.get(k) for k in ("split", "epoch_rule", "protocol")}}
    return about | {"measured": measured | {"dataset": record.data["dataset"]["name"]}}
