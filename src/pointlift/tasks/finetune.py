"""Fine-tuning: from a configuration to a run folder with weights, scores and a record."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pointlift.adapt import adapt_model
from pointlift.core.config import to_dict
from pointlift.core.errors import DataError, UsageError
from pointlift.core.seeds import derive, seed_everything
from pointlift.data.dataset import CloudDataset, CloudSplit
from pointlift.data.loader import Loader, make_loader
from pointlift.data.loading import dataset_from_config
from pointlift.data.pipeline import build_transform
from pointlift.engine import distributed
from pointlift.engine.loop import FitResult, Loaders, fit
from pointlift.engine.precision import resolve_precision
from pointlift.models.base import PointModel
from pointlift.models.registry import create_model
from pointlift.tasks.classification import Scores, classification_losses, evaluate_classification
from pointlift.tasks.config import AdaptationChoice, FinetuneConfig, ModelChoice
from pointlift.tasks.evaluate import check_sizes, describe_voting, evaluation_loader, plain_scores, vote_scores
from pointlift.tasks.predict import preprocess_of
from pointlift.tasks.predictions import write_predictions
from pointlift.tasks.record import (
    SCHEMA,
    Record,
    describe_dataset,
    describe_device,
    describe_model,
    describe_quirks,
    describe_transform,
    versions,
)
from pointlift.tasks.resolve import resolve_device
from pointlift.tasks.run import Origin, Run
from pointlift.tasks.start import begin_or_check, claim_run, is_finished
from pointlift.weights.hashing import file_sha256, state_hash
from pointlift.weights.modelfile import TENSORS, describe, write_model_folder

logger = logging.getLogger(__name__)
FEW_BATCHES = 10  # an epoch of fewer keeps its short last batch: dropping it could cost half of the clouds
Splits = dict[str, CloudSplit]


@dataclass(frozen=True)
class _Job:
    """Everything that one run is made of, once it is known to fit together."""

    out: Path
    config: FinetuneConfig
    dataset: CloudDataset
    parts: Splits
    model: PointModel
    loaders: dict[str, Loader]
    device: torch.device
    # What limits the result, for the terminal, the record and the page.
    notes: list[str]


@dataclass(frozen=True)
class _Scored:
    """What the selected weights score: on every evaluated split, and under voting on the record's split."""

    split: str
    plain: dict[str, Scores]
    vote: dict[str, float] | None
    seconds: float


def finetune(
    config: FinetuneConfig,
    *,
    out: str | Path,
    resume: bool = False,
    model: PointModel | None = None,
    dataset: CloudDataset | None = None,
    recipe: str | None = None,
    command: str | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> Run:
    """Train, choose an epoch, score it, and write the run folder.

    Args:
        config: The whole configuration; with `resume`, that of the run (`finetune_config(base=…)`).
        out: The run folder; new or empty, unless `resume`.
        resume: Go on with the run in `out`, or begin it if it never came to its first line.
        model: A model in memory instead of `config.model`; adapted already, or it is adapted as `config` says.
        dataset: A data set in memory instead of the one `config.data` names.
        recipe: What to call the recipe in the record.
        command: The command line, for the record.
        on_epoch: Called with every epoch line.

    Raises:
        UsageError: `out` is not empty, a model that does not fit the data, a wrong device, or a run to resume that
            was started otherwise.
        PointLiftError: Whatever goes wrong with files, weights, or the loss.
    """
    out = Path(out)
    with ExitStack() as stack:
        device = stack.enter_context(distributed.process_group(resolve_device(config.device)))

        distributed.from_main(lambda: claim_run(stack, out, resume=resume))
        job = _prepare(config, out, model, dataset, device)
        for loader in job.loaders.values():
            stack.callback(loader.close)
        # Nothing is written before the whole configuration has proved to work: a mistake leaves an empty folder.
        now = _origin(job, from_memory=model is not None, recipe=recipe, command=command)
        origin = distributed.from_main(lambda: begin_or_check(out, job.config, now, resume=resume))
        if resume and is_finished(out):
            return Run(out)
        result = fit(
            job.model,
            classification_losses(config.label_smoothing),
            Loaders(job.loaders["train"], {name: job.loaders[name] for name in ("val", "test") if name in job.loaders}),
            job.config.fit_config(),
            out,
            evaluate=evaluate_classification,
            resume=resume,
            device=device,
            on_epoch=on_epoch,
        )
        scored = _score(job)
        distributed.from_main(lambda: _write_results(job, origin, result, scored))
    return Run(out)


def _prepare(
    config: FinetuneConfig,
    out: Path,
    model: PointModel | None,
    dataset: CloudDataset | None,
    device: torch.device,
) -> _Job:
    """Data, model and loaders, checked against each other; `config` as it is with what came from memory."""
    if dataset is None:
        dataset = dataset_from_config(config.data)
    else:
        config, dataset = _with_dataset(config, dataset)
    parts = _parts(dataset, config)
    given = model is not None
    model = _model(config, model, dataset)
    config = _with_sampling_of(config, model)
    model.preprocess = preprocess_of(replace(config.data, up_axis=config.data.up_axis or dataset.meta.up_axis))
    if given:
        config = _with_model(config, model)
    for split in parts.values():
        check_sizes(split, model)
    loaders = {name: evaluation_loader(parts[name], config.data, dataset.meta) for name in parts if name != "train"}
    notes = _notes(config, parts, model)
    for note in notes:
        logger.warning(note)
    loaders["train"] = _train_loader(config, dataset, parts["train"], model)
    return _Job(out, config, dataset, parts, model, loaders, device, notes)


def _notes(config: FinetuneConfig, parts: Splits, model: PointModel) -> list[str]:
    """What the user should know before training and a reader of the record afterwards."""
    notes = []
    if "test" not in parts:
        scored = "the validation part, which chooses the epoch" if "val" in parts else "the training part itself"
        notes.append(f"there is no test part: the score is that of {scored}")
    for name, split in parts.items():
        counts = split.counts()
        if counts is None or counts.min() == counts.max():  # alike: the transform's own notes say it
            continue
        small = int((counts < config.data.points).sum())
        if small:
            notes.append(
                f"{small} of {len(split)} {name} clouds have fewer than {config.data.points} points (the smallest "
                f"{counts.min()}): some of their points are repeated"
            )
    held = parts.get("val")
    if config.select == "validation" and held is not None and len(held) < 5 * len(set(parts["train"].class_labels())):
        notes.append(f"{len(held)} validation clouds choose the epoch: the choice is noisy, and their score optimistic")
    if model.origin is None and not any(p.requires_grad for n, p in model.named_parameters() if "head" not in n):
        notes.append("only the head learns, on a trunk that was never trained (give --model.pretrained)")
    return notes


def _with_dataset(config: FinetuneConfig, dataset: CloudDataset) -> tuple[FinetuneConfig, CloudDataset]:
    """The configuration for data in memory: its folder, and the test part held out of it if it brings none.

    A test part that is there already is not split again: that would mix train and test.
    """
    root = None if dataset.root is None else str(dataset.root)
    fraction = config.data.test_fraction if dataset.test is None else 0.0
    data = replace(config.data, root=root, test_fraction=fraction, limit=None)
    return replace(config, data=data), dataset.with_test_fraction(fraction, data.split_seed)


def _with_model(config: FinetuneConfig, model: PointModel) -> FinetuneConfig:
    """The configuration for a model in memory, so that it says what ran."""
    adaptation = model.adaptation.config
    options = to_dict(model.config)
    options.pop("quirks")
    upstream = model.config.quirks == type(model.config.quirks).upstream()
    return replace(
        config,
        model=ModelChoice(name=model.arch, quirks="upstream" if upstream else "paper", options=options),
        adaptation=AdaptationChoice(adaptation.name, to_dict(adaptation)),
    )


def _parts(dataset: CloudDataset, config: FinetuneConfig) -> Splits:
    """`train`, and `val` and `test` where there are any; `val` is held out of `train`."""
    if config.select == "test" and dataset.test is None:
        raise UsageError(f"select is test, and {dataset.meta.name} has no test part", "select validation or last")
    dataset.train.class_labels()  # says so when there are none
    train, val = dataset.hold_out(config.data.val_fraction, config.data.split_seed)
    parts = {"train": train, "val": val, "test": dataset.test}
    return {name: split for name, split in parts.items() if split is not None and len(split)}


def _model(config: FinetuneConfig, model: PointModel | None, dataset: CloudDataset) -> PointModel:
    """The network, adapted, with a head for the data set's classes."""
    classes = dataset.meta.classes
    seed_everything(derive(config.seed, "model"))
    if model is None:
        model = _created(config.model, len(classes))
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
            f"data.points is {config.data.points}",
            f"at least {model.min_points}, as many as {model.arch} makes groups of",
            f"--data.points {model.min_points}, or fewer groups: --model.options.num_groups",
        )
    model.classes = classes
    return model


def _with_sampling_of(config: FinetuneConfig, model: PointModel) -> FinetuneConfig:
    """The near-origin rule of sampling belongs to weights: what was not asked for is as they were trained."""
    resample = config.data.resample
    if resample.skip_near_origin is not None:
        return config
    skip = bool((model.preprocess.get("resample") or {}).get("skip_near_origin"))
    return replace(config, data=replace(config.data, resample=replace(resample, skip_near_origin=skip)))


def _created(choice: ModelChoice, num_classes: int) -> PointModel:
    options = dict(choice.options)
    asked = options.pop("num_classes", num_classes)
    if asked != num_classes:
        raise UsageError(
            f"model.options.num_classes is {asked}, and the data set has {num_classes} classes",
            "nothing: the data set decides",
        )
    return create_model(
        choice.name, pretrained=choice.pretrained, quirks=choice.quirks, num_classes=num_classes, **options
    )


def _train_loader(config: FinetuneConfig, dataset: CloudDataset, split: CloudSplit, model: PointModel) -> Loader:
    data, world = config.data, distributed.world_size()
    whole = data.batch_size * world
    smallest = min(len(split), whole) // world
    if smallest < 2 and world == 1 and _has_moving_batchnorm(model):
        raise DataError(
            f"batches of one cloud ({len(split)} to train on, data.batch_size {data.batch_size})",
            "at least two: the model normalises over the batch while it learns",
        )
    return make_loader(
        split,
        build_transform(data, dataset.meta, "train"),
        batch_size=data.batch_size,
        seed=config.seed,
        shuffle=True,
        workers=data.workers,
        # As released: a short last batch would weigh each of its clouds more. Small sets need every cloud.
        drop_last=len(split) >= FEW_BATCHES * whole,
        rank=distributed.rank(),
        world_size=world,
    )


def _has_moving_batchnorm(model: PointModel) -> bool:
    norms = [m for m in model.train().modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return any(norm.training for norm in norms)


def _origin(job: _Job, *, from_memory: bool, recipe: str | None, command: str | None) -> Origin:
    return Origin(
        recipe=recipe,
        command=command,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        pretrained=_pretrained(job, from_memory),
        weights=state_hash(job.model.state_dict()),
        data=job.dataset.content_hash(),
    )


def _pretrained(job: _Job, from_memory: bool) -> str | None:
    """What the weights were, in words for the record; a model in memory may have been changed by its owner."""
    source = job.model.origin
    if from_memory:
        return "a model in memory" + (f", read from {source}" if source else "")
    weights = job.config.model.weights
    return source if weights is True else weights


def _score(job: _Job) -> _Scored:
    """Scores of the selected weights on validation and on the record's split, and the vote if asked for."""
    begun = time.perf_counter()
    config, meta = job.config, job.dataset.meta
    split = next(name for name in ("test", "val", "train") if name in job.parts)
    number_format = resolve_precision(config.precision, job.device)
    loaders = {name: loader for name, loader in job.loaders.items() if name != "train"}
    plain = {name: plain_scores(job.model, loader, number_format) for name, loader in loaders.items()}
    if split == "train":
        with closing(evaluation_loader(job.parts["train"], config.data, meta)) as loader:
            plain["train"] = plain_scores(job.model, loader, number_format)
    vote = None
    if config.vote.rounds:
        with closing(evaluation_loader(job.parts[split], config.data, meta, stage="vote", seed=config.seed)) as loader:
            _, vote = vote_scores(job.model, loader, config.vote, number_format)
    return _Scored(split, plain, vote, time.perf_counter() - begun)


def _write_results(job: _Job, origin: Origin, result: FitResult, scored: _Scored) -> None:
    """Main process: model/, predictions.npz and, last, record.json: a folder with a record is a finished run."""
    model, meta, config = job.model, job.dataset.meta, job.config
    state = model.state_dict()
    adaptation = model.adaptation.config
    description = describe(
        model.arch,
        to_dict(model.config),
        state,
        classes=model.classes,
        preprocess=model.preprocess,
        adaptation={"name": adaptation.name, **to_dict(adaptation)},
    )
    write_model_folder(job.out / "model", state, description)
    write_predictions(
        job.out,
        scored.plain[scored.split],
        job.parts[scored.split],
        meta,
        config.data,
        keep_clouds=config.keep_clouds,
    )
    _record(job, origin, result, scored).write(job.out)


def _record(job: _Job, origin: Origin, result: FitResult, scored: _Scored) -> Record:
    config, model = job.config, job.model
    vote = {f"vote_{name}": value for name, value in (scored.vote or {}).items()}
    validation = scored.plain.get("val")
    said = describe_transform(job.loaders["train"].transform)
    return Record(
        {
            "schema": SCHEMA,
            "task": config.task,
            "protocol": "plain",
            "command": origin.command,
            "recipe": origin.recipe,
            "dataset": describe_dataset(job.dataset, {name: len(part) for name, part in job.parts.items()}),
            "split": scored.split,
            "metrics": scored.plain[scored.split].metrics() | vote,
            "validation": None if validation is None else validation.metrics(),
            "points": config.data.points,
            **said,
            "notes": [*job.notes, *said["notes"]],
            "seed": config.seed,
            "voting": describe_voting(config.vote),
            "epoch_rule": result.epoch_rule,
            "epoch": result.epoch,
            "epochs": result.epochs,
            "samples_seen": result.samples_seen,
            "model": {
                **describe_model(model),
                "pretrained": origin.pretrained,
                "initial_hash": origin.weights,
            },
            "quirks": describe_quirks(model),
            "checkpoint_sha256": file_sha256(job.out / "model" / TENSORS),
            "versions": versions(),
            "device": describe_device(job.device, result.precision),
            "processes": distributed.world_size(),
            "time": {
                "started": origin.started,
                "train_seconds": round(result.train_seconds, 3),
                "evaluate_seconds": round(scored.seconds, 3),
            },
            "note": config.note,
        }
    )
