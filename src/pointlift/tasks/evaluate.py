"""Evaluation protocols: plain, and voting over random subsets and augmentations."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import numpy as np
import torch

from pointlift.core.errors import DataError, UsageError
from pointlift.core.seeds import derive
from pointlift.data.config import DataConfig
from pointlift.data.dataset import CloudDataset, CloudSplit, DatasetMeta, PartName
from pointlift.data.loader import Loader, make_loader
from pointlift.data.loading import dataset_from_config
from pointlift.data.pipeline import build_transform
from pointlift.data.resample import Stage
from pointlift.engine import distributed
from pointlift.engine.precision import Precision, resolve_precision
from pointlift.models.base import PointModel
from pointlift.tasks.classification import Scores, score
from pointlift.tasks.config import VoteConfig
from pointlift.tasks.inputs import data_config_of
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
from pointlift.tasks.task import Task
from pointlift.tasks.tasks import task_of

Protocol = Literal["plain", "vote"]
DEFAULT_ROUNDS = 10  # of voting, when it is asked for without a number


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found: the record, and the task's scores it stands on (of the last voting round)."""

    record: Record
    scores: Any
    names: tuple[str, ...]

    @property
    def metrics(self) -> dict[str, float]:
        """Scores as fractions."""
        return self.record.metrics


def evaluate(
    model: PointModel,
    dataset: CloudDataset | None = None,
    *,
    protocol: Protocol = "plain",
    split: PartName = "test",
    data: Mapping[str, Any] | None = None,
    vote: VoteConfig | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    command: str | None = None,
    training: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Score a classifier, or a part segmentation model, on one split of a data set.

    Args:
        dataset: The data set; read as `data` says when None.
        protocol: "plain": one deterministic pass. "vote": `vote.rounds` repetitions of averaged logits; the mean
            over rounds is the score, the maximum (what papers print) stands beside it.
        split: "val" is the set's validation part, or the part of train that training with the same `data` would
            have held out; "all" is every cloud of the set.
        data: Overrides of the data configuration that came with the model (`root`, `points`, ...).
        vote: Rounds and votes for "vote".
        seed: Seeds voting.
        device: "auto", "cpu", "cuda", ...
        command: The command line, for the record.
        training: How the weights came about (`training_of_run`), for the record: whoever reads the score must see
            whether the epoch was chosen on these very clouds.

    Raises:
        UsageError: A model without head, a split that is not there, an unknown protocol.
        DataError: The data set's classes are not the model's, or a cloud is too small for it.
    """
    task = _task_of_call(model, protocol, split)
    config = data_config_of(model, data)
    with distributed.process_group(resolve_device(device)) as target:
        dataset = task.carrying(dataset_from_config(config) if dataset is None else dataset)
        meta = dataset.meta
        clouds = task.aligned(dataset.part(split, config.val_fraction, config.split_seed), meta, model)
        check_sizes(clouds, model)
        begun, started = time.perf_counter(), datetime.now(UTC)
        number_format = resolve_precision(precision, target)
        model.to(target)
        voting = None if protocol == "plain" else vote if vote and vote.rounds else VoteConfig(rounds=DEFAULT_ROUNDS)
        stage: Stage = "test" if voting is None else "vote"
        with closing(evaluation_loader(clouds, config, meta, stage=stage, seed=seed)) as loader:
            if voting is None:
                scores = plain_scores(model, loader, number_format, task.score)
                metrics = scores.metrics()
            else:
                scores, metrics = vote_scores(model, loader, voting, number_format)
        seconds = time.perf_counter() - begun
    record = Record(
        {
            "schema": SCHEMA,
            "task": task.name,
            "protocol": protocol,
            "command": command,
            "dataset": describe_dataset(dataset, {split: len(clouds)}),
            "split": split,
            "metrics": metrics,
            "points": config.points,
            **describe_transform(loader.transform),
            "seed": seed,
            "voting": describe_voting(voting),
            "model": describe_model(model),
            "training": None if training is None else dict(training),
            "quirks": describe_quirks(model),
            **task.details(scores),
            "versions": versions(),
            "device": describe_device(target, number_format.name),
            "time": {
                "started": started.isoformat(timespec="seconds"),
                "evaluate_seconds": round(seconds, 3),
            },
        }
    )
    return Evaluation(record, scores, tuple(clouds.names[i] for i in scores.index))


def evaluation_loader(
    split: CloudSplit, config: DataConfig, meta: DatasetMeta, *, stage: Stage = "test", seed: int = 0
) -> Loader:
    """Every cloud once, in stored order, shared between processes; `seed` matters for "vote" only."""
    return make_loader(
        split,
        build_transform(config, meta, stage),
        batch_size=2 * config.batch_size,  # without gradients there is room for more
        seed=derive(seed, stage),
        shuffle=False,
        workers=config.workers,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
    )


def plain_scores(
    model: PointModel, loader: Loader, precision: Precision, score: Callable[[PointModel, Loader], Any] = score
) -> Any:
    """What `score` (a `Task`'s; by default classification's) says after one pass over a "test" loader.

    Leaves the model in evaluation mode.
    """
    model.eval()
    with torch.no_grad(), precision.autocast():
        return score(model, loader)


def vote_scores(
    model: PointModel, loader: Loader, vote: VoteConfig, precision: Precision
) -> tuple[Scores, dict[str, float]]:
    """`vote.rounds` rounds of `vote.votes` averaged logits over a "vote" loader (card data-protocols, section 12).

    Returns:
        The last round's averaged logits, and metrics: mean, max and standard deviation over rounds.
    """
    rounds = []
    for r in range(vote.rounds):
        passes = []
        for v in range(vote.votes):
            loader.set_epoch(r * vote.votes + v)
            passes.append(plain_scores(model, loader, precision))
        mean = np.stack([p.logits for p in passes]).mean(axis=0, dtype=np.float64).astype(np.float32)
        rounds.append(replace(passes[0], logits=mean))
    found = [r.metrics() for r in rounds]
    metrics = {name: float(np.mean([m[name] for m in found])) for name in found[0]}
    accuracies = [m["overall_accuracy"] for m in found]
    metrics["overall_accuracy_max"] = float(np.max(accuracies))
    metrics["overall_accuracy_std"] = float(np.std(accuracies))
    return rounds[-1], metrics


def describe_voting(vote: VoteConfig | None) -> dict[str, Any]:
    """The `voting` part of a record; None is no voting."""
    if vote is None or vote.rounds == 0:
        return {"rounds": 0, "votes": 0, "pool": "none"}
    return {"rounds": vote.rounds, "votes": vote.votes, "pool": f"mean of {vote.rounds}"}


def check_sizes(split: CloudSplit, model: PointModel) -> None:
    """Refuse clouds that have fewer points than the model makes groups of.

    Sets whose files are read one by one (too large for memory) are not looked through.

    Raises:
        DataError: Naming the first such cloud.
    """
    counts = split.counts()
    if counts is None or counts.size == 0 or counts.min() >= model.min_points:
        return
    small = np.flatnonzero(counts < model.min_points)
    more = f" ({len(small)} such clouds in all)" if len(small) > 1 else ""
    raise DataError(
        f"{split.names[small[0]]} has {counts[small[0]]} points{more}",
        f"at least {model.min_points}, as many as {model.arch} makes groups of",
        "Leave such clouds out, or use a model with fewer groups (--model.options.num_groups)",
    )


def _task_of_call(model: PointModel, protocol: str, split: str) -> Task:
    """What the model does, when the call makes sense for it."""
    if protocol not in ("plain", "vote"):
        raise UsageError(f"protocol {protocol!r}", "plain or vote")
    if split not in get_args(PartName):
        raise UsageError(f"split {split!r}", "test, val, train or all")
    if model.config.num_classes == 0:
        raise UsageError(
            f"{model.arch} has no classifier head, so protocol {protocol} cannot score it",
            "a fine-tuned model",
            "Fine-tune it first, or score its features with protocol svm",
        )
    task = task_of(model)
    if protocol == "vote" and not task.votes:
        raise UsageError(
            f"protocol vote for {task.name}", "protocol plain: no paper votes there", "Leave --protocol out"
        )
    return task
