"""Fine-tuning: from a configuration to a run folder with weights, scores and a record."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pointlift.adapt import adapt_model
from pointlift.core.config import dump_yaml, to_dict
from pointlift.core.errors import UsageError
from pointlift.core.seeds import derive, seed_everything
from pointlift.data.dataset import CloudSplit, LabelledDataset
from pointlift.data.loader import Loader, make_loader
from pointlift.data.loading import dataset_from_config
from pointlift.data.pipeline import build_transform
from pointlift.engine import distributed, run_folder
from pointlift.engine.loop import FitResult, Loaders, fit
from pointlift.models.base import PointModel
from pointlift.models.registry import create_model
from pointlift.tasks.classification import Scores, classification_losses, evaluate_classification
from pointlift.tasks.config import AdaptationChoice, FinetuneConfig, ModelChoice
from pointlift.tasks.evaluate import describe_model, evaluation_loader, plain_scores, vote_scores
from pointlift.tasks.predict import preprocess_of
from pointlift.tasks.record import SCHEMA, Record, describe_dataset, describe_device, versions
from pointlift.tasks.run import CONFIG, Run, read_run_config
from pointlift.weights.hashing import file_sha256
from pointlift.weights.modelfile import TENSORS, describe, write_model_folder

GALLERY_POINTS = 1024


def finetune(
    config: FinetuneConfig,
    *,
    out: str | Path,
    resume: bool = False,
    model: PointModel | None = None,
    dataset: LabelledDataset | None = None,
    recipe: str | None = None,
    command: str | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> Run:
    """Train, choose an epoch, score it, and write the run folder.

    Args:
        config: The whole configuration; with `resume`, the one in the run folder counts where there is one.
        out: The run folder; new or empty, unless `resume`.
        model: A model in memory instead of `config.model`; adapted already, or it is adapted as `config` says.
        dataset: A data set in memory instead of the one `config.data` names.

    Raises:
        UsageError: `out` is not empty, a model that does not fit the data, a wrong device.
        PointLiftError: Whatever goes wrong with files, weights, or the loss.
    """
    out = Path(out)
    with ExitStack() as stack:
        device = stack.enter_context(distributed.process_group(_device(config.device)))
        distributed.from_main(lambda: stack.enter_context(run_folder.claim(out, resume=resume)) and None)
        if resume and (out / CONFIG).exists():
            config = read_run_config(out)
        if model is not None:
            config = _with_model(config, model)
        distributed.barrier()  # no process may see the configuration that the main one writes next
        distributed.from_main(lambda: _write_config(out, config))
        started = datetime.now(UTC)
        dataset = dataset or dataset_from_config(config.data)
        parts = _parts(dataset, config)
        model = _model(config, model, dataset)
        result = fit(
            model,
            classification_losses(config.label_smoothing),
            _loaders(config, dataset, parts),
            config.fit_config(),
            out,
            evaluate=evaluate_classification,
            resume=resume,
            device=device,
            on_epoch=on_epoch,
        )
        scored = _score(config, dataset, parts, model, device)
        distributed.from_main(
            lambda: _write_run(out, config, dataset, parts, model, result, scored, started, device, recipe, command)
        )
    return Run(out)


def _device(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _with_model(config: FinetuneConfig, model: PointModel) -> FinetuneConfig:
    """The configuration as it is with a model from memory, so that the record says what ran."""
    choice = ModelChoice(name=model.arch, options=to_dict(model.config))
    handle = model.adaptation
    if handle is None:
        return replace(config, model=choice)
    adaptation = AdaptationChoice(handle.config.name, to_dict(handle.config))
    return replace(config, model=choice, adaptation=adaptation)


def _write_config(out: Path, config: FinetuneConfig) -> None:
    temporary = out / f".{CONFIG}.tmp"
    temporary.write_text(dump_yaml(to_dict(config)), encoding="utf-8")
    os.replace(temporary, out / CONFIG)


def _parts(dataset: LabelledDataset, config: FinetuneConfig) -> dict[str, CloudSplit]:
    train, val = dataset.hold_out(config.data.val_fraction, config.data.split_seed)
    parts = {"train": train, "val": val, "test": dataset.test}
    return {name: split for name, split in parts.items() if split is not None and len(split)}


def _model(config: FinetuneConfig, model: PointModel | None, dataset: LabelledDataset) -> PointModel:
    """The network, adapted, with a head for the data set's classes."""
    classes = dataset.meta.classes
    seed_everything(derive(config.seed, "model"))
    if model is None:
        choice = config.model
        options = {**choice.options, "num_classes": len(classes)}
        model = create_model(choice.name, pretrained=choice.pretrained, quirks=choice.quirks, **options)
    elif model.config.num_classes == 0:
        model.reset_classifier(len(classes))
    elif model.config.num_classes != len(classes):
        raise UsageError(
            f"the model has {model.config.num_classes} classes, {dataset.meta.name} has {len(classes)}",
            "as many",
            f"create_model(…, num_classes={len(classes)})",
        )
    if model.adaptation is None:
        adapt_model(model, config.adaptation.name, **config.adaptation.options)
    if config.data.points < model.min_points:
        raise UsageError(
            f"data.points is {config.data.points}, {model.arch} needs at least {model.min_points}",
            "more points, or fewer groups",
            f"--data.points {model.min_points}",
        )
    model.classes = classes
    up_axis = config.data.up_axis or dataset.meta.up_axis
    model.preprocess = preprocess_of(replace(config.data, up_axis=up_axis))
    return model


def _loaders(config: FinetuneConfig, dataset: LabelledDataset, parts: dict[str, CloudSplit]) -> Loaders:
    data, meta = config.data, dataset.meta
    world = distributed.world_size()
    train = make_loader(
        parts["train"],
        build_transform(data, meta, "train"),
        batch_size=data.batch_size,
        seed=config.seed,
        shuffle=True,
        workers=data.workers,
        # As released: a short last batch would weigh each of its clouds more. Tiny sets keep it.
        drop_last=len(parts["train"]) >= data.batch_size * world,
        rank=distributed.rank(),
        world_size=world,
    )
    evals: dict[str, Loader] = {
        name: evaluation_loader(parts[name], data, meta) for name in ("val", "test") if name in parts
    }
    return Loaders(train, dict(evals))


def _score(
    config: FinetuneConfig,
    dataset: LabelledDataset,
    parts: dict[str, CloudSplit],
    model: PointModel,
    device: torch.device,
) -> dict[str, Any]:
    """Scores of the selected weights on validation and on the record's split, and the vote if asked for."""
    begun = time.perf_counter()
    found: dict[str, Any] = {}
    options: dict[str, Any] = {"device": device, "precision": config.precision}
    for name in ("val", "test"):
        if name in parts:
            found[name] = plain_scores(model, parts[name], config.data, dataset.meta, **options)
    found["split"] = "test" if "test" in parts else "val" if "val" in parts else "train"
    if found["split"] == "train":
        found["train"] = plain_scores(model, parts["train"], config.data, dataset.meta, **options)
    if config.vote.rounds:
        split = parts[found["split"]]
        _, found["vote"] = vote_scores(
            model, split, config.data, dataset.meta, config.vote, seed=config.seed, **options
        )
    found["seconds"] = time.perf_counter() - begun
    return found


def _write_run(
    out: Path,
    config: FinetuneConfig,
    dataset: LabelledDataset,
    parts: dict[str, CloudSplit],
    model: PointModel,
    result: FitResult,
    scored: dict[str, Any],
    started: datetime,
    device: torch.device,
    recipe: str | None,
    command: str | None,
) -> None:
    """model/, predictions.npz and, last, record.json: a folder with a record is a finished run."""
    state = model.state_dict()
    description = describe(model.arch, to_dict(model.config), state, classes=model.classes, preprocess=model.preprocess)
    write_model_folder(out / "model", state, description)
    split = scored["split"]
    scores: Scores = scored[split]
    _write_predictions(out, config, dataset, parts[split], scores)
    transform = build_transform(config.data, dataset.meta, "train").describe()
    vote = scored.get("vote")
    rounds = config.vote.rounds
    Record(
        {
            "schema": SCHEMA,
            "task": config.task,
            "protocol": "plain",
            "command": command,
            "recipe": recipe,
            "dataset": describe_dataset(dataset, {name: len(part) for name, part in parts.items()}),
            "split": split,
            "metrics": scores.metrics() | ({f"vote_{k}": v for k, v in vote.items()} if vote else {}),
            "validation": scored["val"].metrics() if "val" in scored else None,
            "points": config.data.points,
            "augmentation": transform,
            "seed": config.seed,
            "voting": {
                "rounds": rounds,
                "votes": config.vote.votes if rounds else 0,
                "pool": f"mean of {rounds}, beside the plain score" if rounds else "none",
            },
            "epoch_rule": result.epoch_rule,
            "epoch": result.epoch,
            "epochs": result.epochs,
            "samples_seen": result.samples_seen,
            "model": {**describe_model(model), "pretrained": config.model.pretrained or None},
            "quirks": to_dict(model.config.quirks),
            "checkpoint_sha256": file_sha256(out / "model" / TENSORS),
            "versions": versions(),
            "device": describe_device(device, result.precision),
            "processes": distributed.world_size(),
            "time": {
                "started": started.isoformat(timespec="seconds"),
                "train_seconds": round(result.train_seconds, 3),
                "evaluate_seconds": round(scored["seconds"], 3),
            },
            "note": config.note,
        }
    ).write(out)


def _write_predictions(
    out: Path, config: FinetuneConfig, dataset: LabelledDataset, split: CloudSplit, scores: Scores
) -> None:
    arrays: dict[str, np.ndarray] = {
        "logits": scores.logits,
        "label": scores.label,
        "index": scores.index,
        "names": np.array([split.names[i] for i in scores.index]),
        "classes": np.array(dataset.meta.classes),
    }
    if config.keep_clouds:
        chosen = _gallery(scores, config.keep_clouds)
        transform = build_transform(replace(config.data, points=GALLERY_POINTS), dataset.meta, "test")
        xyz = np.stack([transform(split[int(scores.index[i])])["xyz"] for i in chosen])
        arrays["xyz_i16"] = np.round(xyz.clip(-1, 1) * 32767).astype(np.int16)
        arrays["xyz_index"] = scores.index[chosen]
    temporary = out / ".predictions.tmp.npz"
    np.savez_compressed(temporary, **arrays)
    os.replace(temporary, out / "predictions.npz")


def _gallery(scores: Scores, count: int) -> np.ndarray:
    """Positions of clouds to show: the most confident mistakes first, then right ones of every class in turn."""
    pred = scores.logits.argmax(1)
    shifted = scores.logits - scores.logits.max(1, keepdims=True)
    confidence = 1 / np.exp(shifted).sum(1)
    wrong = np.flatnonzero(pred != scores.label)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][: count // 2]
    right = np.flatnonzero(pred == scores.label)
    turn = np.empty(len(right), np.int64)
    for label in np.unique(scores.label[right]):
        of_class = np.flatnonzero(scores.label[right] == label)
        turn[of_class] = np.arange(len(of_class))
    right = right[np.lexsort((scores.label[right], turn))]
    return np.concatenate([wrong, right])[:count]
