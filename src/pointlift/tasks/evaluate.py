"""Evaluation protocols: plain, and voting over random subsets and augmentations."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import torch

from pointlift.core.errors import DataError, UsageError
from pointlift.core.seeds import derive
from pointlift.data.config import DataConfig
from pointlift.data.dataset import CloudSplit, DatasetMeta, LabelledDataset
from pointlift.data.loader import Loader, make_loader
from pointlift.data.loading import dataset_from_config
from pointlift.data.pipeline import build_transform
from pointlift.engine import distributed
from pointlift.engine.precision import resolve_precision
from pointlift.models.base import PointModel
from pointlift.tasks.classification import Scores, score
from pointlift.tasks.config import VoteConfig
from pointlift.tasks.predict import data_config_of
from pointlift.tasks.record import SCHEMA, Record, describe_dataset, describe_device, versions
from pointlift.weights.hashing import state_hash

Protocol = Literal["plain", "vote"]
SplitName = Literal["test", "val", "train"]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found: the record, and the logits it stands on (of the last voting round under `vote`)."""

    record: Record
    scores: Scores
    names: tuple[str, ...]

    @property
    def metrics(self) -> dict[str, float]:
        return self.record.metrics


def evaluate(
    model: PointModel,
    dataset: LabelledDataset | None = None,
    *,
    protocol: Protocol = "plain",
    split: SplitName = "test",
    data: Mapping[str, Any] | None = None,
    vote: VoteConfig | None = None,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "auto",
    command: str | None = None,
) -> Evaluation:
    """Score a classifier on one split of a data set.

    Args:
        dataset: The data set; read as `data` says when None.
        protocol: "plain": one deterministic pass. "vote": `vote.rounds` repetitions of averaged logits; the mean
            over rounds is the score, the maximum (what papers print) stands beside it.
        split: "val" is the part of train that training with the same `data` would have held out.
        data: Overrides of the data configuration that came with the model (`root`, `points`, ...).
        vote: Rounds and votes for "vote".
        seed: Seeds voting.

    Raises:
        UsageError: A model without head, a split that is not there.
        DataError: The data set's classes are not the model's.
    """
    if model.config.num_classes == 0:
        raise UsageError(
            f"{model.arch} has no classifier head, so protocol {protocol!r} cannot score it",
            "a fine-tuned model",
            "fine-tune it first; protocol svm is the one for headless models",
        )
    config = data_config_of(model, data)
    if dataset is None:
        dataset = dataset_from_config(config)
    clouds = _with_model_classes(_split(dataset, split, config), dataset.meta, model)
    meta = dataset.meta
    begun, started = time.perf_counter(), datetime.now(UTC)
    target = distributed.check_device(device)
    model.to(target).eval()
    if protocol == "plain":
        scores = plain_scores(model, clouds, config, meta, device=target, precision=precision)
        metrics, voting = scores.metrics(), {"rounds": 0, "pool": "none"}
    else:
        vote = vote if vote is not None and vote.rounds else VoteConfig(rounds=10)
        scores, metrics = vote_scores(model, clouds, config, meta, vote, seed=seed, device=target, precision=precision)
        voting = {"rounds": vote.rounds, "votes": vote.votes, "pool": f"mean of {vote.rounds}"}
    transform = build_transform(config, meta, "test" if protocol == "plain" else "vote")
    record = Record(
        {
            "schema": SCHEMA,
            "task": "classification",
            "protocol": protocol,
            "command": command,
            "dataset": describe_dataset(dataset, {split: len(clouds)}),
            "split": split,
            "metrics": metrics,
            "points": config.points,
            "augmentation": transform.describe(),
            "seed": seed,
            "voting": voting,
            "model": describe_model(model),
            "quirks": _plain(model.config.quirks),
            "versions": versions(),
            "device": describe_device(target, resolve_precision(precision, target).name),
            "time": {
                "started": started.isoformat(timespec="seconds"),
                "evaluate_seconds": round(time.perf_counter() - begun, 3),
            },
        }
    )
    return Evaluation(record, scores, tuple(clouds.names[i] for i in scores.index))


def plain_scores(
    model: PointModel,
    split: CloudSplit,
    config: DataConfig,
    meta: DatasetMeta,
    *,
    device: torch.device,
    precision: str = "auto",
) -> Scores:
    """Logits of one deterministic pass."""
    loader = evaluation_loader(split, config, meta)
    with torch.no_grad(), resolve_precision(precision, device).autocast():
        return score(model, loader)


def evaluation_loader(split: CloudSplit, config: DataConfig, meta: DatasetMeta) -> Loader:
    """Every cloud once, in stored order, shared between processes."""
    return make_loader(
        split,
        build_transform(config, meta, "test"),
        batch_size=2 * config.batch_size,
        seed=0,
        shuffle=False,
        workers=config.workers,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
    )


def vote_scores(
    model: PointModel,
    split: CloudSplit,
    config: DataConfig,
    meta: DatasetMeta,
    vote: VoteConfig,
    *,
    seed: int,
    device: torch.device,
    precision: str = "auto",
) -> tuple[Scores, dict[str, float]]:
    """`vote.rounds` rounds of `vote.votes` averaged logits (card data-protocols, section 12).

    Returns:
        The last round's averaged logits, and metrics: mean, max and standard deviation over rounds.
    """
    loader = make_loader(
        split,
        build_transform(config, meta, "vote"),
        batch_size=2 * config.batch_size,
        seed=derive(seed, "vote"),
        shuffle=False,
        workers=config.workers,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
    )
    rounds = []
    with torch.no_grad(), resolve_precision(precision, device).autocast():
        for r in range(vote.rounds):
            passes = []
            for v in range(vote.votes):
                loader.set_epoch(r * vote.votes + v)
                passes.append(score(model, loader))
            mean = np.mean([p.logits for p in passes], axis=0, dtype=np.float64).astype(np.float32)
            rounds.append(replace(passes[0], logits=mean))
    found = [r.metrics() for r in rounds]
    metrics = {name: float(np.mean([m[name] for m in found])) for name in found[0]}
    accuracies = [m["overall_accuracy"] for m in found]
    metrics["overall_accuracy_max"] = float(np.max(accuracies))
    metrics["overall_accuracy_std"] = float(np.std(accuracies))
    return rounds[-1], metrics


def describe_model(model: PointModel) -> dict[str, Any]:
    """The `model` part of a record."""
    parameters = dict(model.named_parameters())
    learned = {n: p.numel() for n, p in parameters.items() if p.requires_grad}
    handle = model.adaptation
    return {
        "arch": model.arch,
        "config": _plain(model.config),
        "adaptation": None if handle is None else handle.config.name,
        "parameters": sum(p.numel() for p in parameters.values()),
        "trainable": sum(learned.values()),
        "trainable_without_head": sum(n for name, n in learned.items() if not name.startswith("head.")),
        "hash": state_hash(model.state_dict()),
    }


def _plain(config: Any) -> dict[str, Any]:
    from pointlift.core.config import to_dict

    return to_dict(config)


def _split(dataset: LabelledDataset, name: SplitName, config: DataConfig) -> CloudSplit:
    if name == "test":
        if dataset.test is None:
            raise UsageError(
                f"{dataset.meta.name} has no test part",
                "--split train or val",
                "or hold one out: --data.test_fraction",
            )
        return dataset.test
    train, held = dataset.hold_out(config.val_fraction, config.split_seed)
    if name == "val" and held is None:
        raise UsageError("data.val_fraction is 0: there is no validation part", "--split test or train")
    return held if name == "val" and held is not None else train


def _with_model_classes(split: CloudSplit, meta: DatasetMeta, model: PointModel) -> CloudSplit:
    """The split with its labels numbered as the model's classes."""
    wanted = model.classes
    if wanted is None or wanted == meta.classes:
        if len(meta.classes) > model.config.num_classes:
            raise DataError(
                f"{meta.name} has {len(meta.classes)} classes, the model {model.config.num_classes}",
                "the same classes",
            )
        return split
    unknown = [c for c in meta.classes if c not in wanted]
    if unknown:
        raise DataError(
            f"{meta.name} has classes that the model does not know: {', '.join(unknown[:5])}",
            f"classes among {', '.join(wanted[:8])}{', …' if len(wanted) > 8 else ''}",
            "fine-tune the model on this data set first",
        )
    renumber = np.array([wanted.index(c) for c in meta.classes])
    return CloudSplit(split.store, renumber[split.labels], split.names, rows=split.rows, fields=split.fields)
