"""Fine-tuning: from a configuration to a run folder with weights, scores and a record."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pointlift.adapt.base import describe_bank
from pointlift.core.config import to_dict
from pointlift.data.dataset import CloudDataset
from pointlift.data.loading import dataset_from_config
from pointlift.engine import distributed
from pointlift.engine.loop import FitResult, Loaders, fit
from pointlift.engine.precision import resolve_precision
from pointlift.models.base import PointModel
from pointlift.tasks.config import FinetuneConfig
from pointlift.tasks.evaluate import describe_voting, evaluation_loader, plain_scores, vote_scores
from pointlift.tasks.job import Job, prepare
from pointlift.tasks.memory_bank import keep_bank
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

ADAPTER = "adapter.safetensors"


@dataclass(frozen=True)
class _Scored:
    """What the selected weights score: on every evaluated split, and under voting on the record's split."""

    split: str
    plain: dict[str, Any]
    vote: dict[str, float] | None
    vote_notes: tuple[str, ...]
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
        clouds = dataset_from_config(config.data) if dataset is None else dataset
        job = prepare(config, out, model, clouds, device, in_memory=dataset is not None)
        for loader in job.loaders.values():
            stack.callback(loader.close)
        # Nothing is written before the whole configuration has proved to work: a mistake leaves an empty folder.
        now = _origin(job, from_memory=model is not None, recipe=recipe, command=command)
        origin = distributed.from_main(lambda: begin_or_check(out, job.config, now, resume=resume))
        if resume and is_finished(out):
            return Run(out)
        distributed.from_main(lambda: keep_bank(job.model, out))
        # The rest of the run sees the same validation and test clouds again and again.
        stack.enter_context(job.model.remembering(in_training=not job.loaders["train"].transform.random))
        result = fit(
            job.model,
            job.task.losses,
            Loaders(job.loaders["train"], {name: job.loaders[name] for name in ("val", "test") if name in job.loaders}),
            job.config.fit_config(metric=job.task.metric),
            out,
            evaluate=job.task.evaluate,
            resume=resume,
            device=device,
            on_epoch=on_epoch,
        )
        scored = _score(job)
        distributed.from_main(lambda: _write_results(job, origin, result, scored))
    return Run(out)


def _origin(job: Job, *, from_memory: bool, recipe: str | None, command: str | None) -> Origin:
    return Origin(
        recipe=recipe,
        command=command,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        pretrained=_pretrained(job, from_memory),
        weights=state_hash(job.model.state_dict()),
        data=job.dataset.content_hash(),
    )


def _pretrained(job: Job, from_memory: bool) -> str | None:
    """What the weights were, in words for the record; a model in memory may have been changed by its owner."""
    source = job.model.origin
    if from_memory:
        return "a model in memory" + (f", read from {source}" if source else "")
    weights = job.config.model.weights
    return source if weights is True else weights


def _score(job: Job) -> _Scored:
    """Scores of the selected weights on validation and on the record's split, and the vote if asked for."""
    begun = time.perf_counter()
    config, meta = job.config, job.dataset.meta
    split = next(name for name in ("test", "val", "train") if name in job.parts)
    number_format = resolve_precision(config.precision, job.device)
    loaders = {name: loader for name, loader in job.loaders.items() if name != "train"}
    plain = {name: plain_scores(job.model, loader, number_format, job.task.score) for name, loader in loaders.items()}
    if split == "train":
        with closing(evaluation_loader(job.parts["train"], config.data, meta)) as loader:
            plain["train"] = plain_scores(job.model, loader, number_format, job.task.score)
    vote: dict[str, float] | None = None
    notes: tuple[str, ...] = ()
    if config.vote.rounds:
        with closing(evaluation_loader(job.parts[split], config.data, meta, stage="vote", seed=config.seed)) as loader:
            _, vote = vote_scores(job.model, loader, config.vote, number_format)
            notes = tuple(loader.transform.notes)
    return _Scored(split, plain, vote, notes, time.perf_counter() - begun)


def _write_results(job: Job, origin: Origin, result: FitResult, scored: _Scored) -> None:
    """Main process: model/, predictions.npz and, last, record.json: a folder with a record is a finished run."""
    model, meta, config = job.model, job.dataset.meta, job.config
    state = model.state_dict()
    adaptation = model.adaptation.config
    description = describe(
        model.arch,
        to_dict(model.config),
        state,
        classes=model.classes,
        categories=model.categories,
        preprocess=model.preprocess,
        adaptation={"name": adaptation.name, **to_dict(adaptation)},
        **describe_bank(model.adaptation.bank),
    )
    write_model_folder(job.out / "model", state, description)
    counts = model.adaptation.report()
    if model.origin is not None and counts.trainable < counts.parameters:  # what was learned, for those with the base
        model.adaptation.save(job.out / ADAPTER)
    job.task.write_predictions(
        job.out,
        scored.plain[scored.split],
        job.parts[scored.split],
        meta,
        config.data,
        keep_clouds=config.keep_clouds,
    )
    _record(job, origin, result, scored).write(job.out)


def _record(job: Job, origin: Origin, result: FitResult, scored: _Scored) -> Record:
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
            "notes": list(dict.fromkeys([*job.notes, *said["notes"], *scored.vote_notes])),  # what is said twice, once
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
            **job.task.details(scored.plain[scored.split]),
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
