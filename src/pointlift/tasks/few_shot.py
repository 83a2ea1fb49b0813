"""Few-shot classification: a few clouds of a few classes, again and again; mean and spread over the folds.

The published protocol (card data-protocols, section 5) fine-tunes all weights on every fold for 150 epochs and takes
the best epoch on the test clouds. `how: finetune` does that, by default with the last epoch instead; `how: svm` leaves
the network as it is and fits a linear SVM to its features.
"""

from __future__ import annotations

import copy
import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from pointlift.adapt import adapt_model
from pointlift.core.config import merge, to_dict
from pointlift.core.errors import UsageError
from pointlift.data.config import DataConfig
from pointlift.data.dataset import CloudDataset
from pointlift.data.loading import dataset_from_config
from pointlift.data.pipeline import build_transform
from pointlift.data.sets import few_shot as published
from pointlift.data.sets.few_shot_draw import draw_folds, fold_dataset
from pointlift.engine import distributed, run_folder
from pointlift.engine.precision import resolve_precision
from pointlift.models.base import PointModel
from pointlift.tasks.classification import Scores
from pointlift.tasks.config import FewShotConfig, FinetuneConfig, SvmConfig, finetune_config
from pointlift.tasks.evaluate import describe_voting
from pointlift.tasks.feature_cache import MemoryCache, RowCache
from pointlift.tasks.finetune import finetune
from pointlift.tasks.inputs import data_config_of
from pointlift.tasks.linear_svm import fit_svm, frozen_tables, svm_logits
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
from pointlift.tasks.run import has_run

OFFICIAL = "modelnet40_few_shot"
FAMILIES = ("point_mae", "point_bert", "point_m2ae")
# What a finished fold leaves beside its record is as large as the network, forty times over.
_LARGE = ("checkpoints", "model")


@dataclass(frozen=True)
class FoldResult:
    """One fold: its classes, its scores (fractions), and what was decided on the way (C, epoch)."""

    fold: int
    classes: tuple[str, ...]
    metrics: dict[str, float]
    chosen: dict[str, Any]


# A fold's data set -> scores and choices. The two ways of learning from a fold are functions of this kind.
Learn = Callable[[CloudDataset, int], tuple[dict[str, float], dict[str, Any]]]


@dataclass
class _Job:
    """What all settings share."""

    model: PointModel
    config: DataConfig
    few_shot: FewShotConfig
    seed: int
    # The labelled set that folds are drawn from; None where folds are read.
    source: CloudDataset | None


def evaluate_few_shot(
    model: PointModel,
    dataset: CloudDataset | None = None,
    *,
    few_shot: FewShotConfig | None = None,
    svm: SvmConfig | None = None,
    data: Mapping[str, Any] | None = None,
    cache: RowCache | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    out: str | Path | None = None,
    resume: bool = False,
    command: str | None = None,
    training: Mapping[str, Any] | None = None,
    on_fold: Callable[[int, int, FoldResult], None] | None = None,
) -> list[Record]:
    """Score a network by what it learns from few clouds; one record per setting.

    Folds are read where the data set is a folder of folds (`ModelNetFewshot`, or what `pointlift prepare few-shot`
    wrote); else they are drawn from the training and test parts of a labelled set, the same for the same seed.

    Args:
        model: Any network; its head is not used, and it is left as it was.
        dataset: A labelled set to draw folds from; read as `data` says when None.
        few_shot: Settings, folds, and how a fold is learned.
        svm: How the SVM's C is chosen.
        data: Overrides of the data configuration that came with the model.
        cache: Where frozen features are kept; within this call they are computed once in any case.
        seed: Draws the folds, and seeds the training on them.
        device: "auto", "cpu", "cuda", …
        precision: Of the training: "auto", "fp32", "bf16", "fp16".
        out: With `how: finetune`, a folder that keeps configuration, log and record of every fold, not its weights;
            None keeps nothing.
        resume: Go on in `out`; finished folds are not trained again.
        command: The command line, for the records.
        training: How the weights came about, for the records.
        on_fold: Called with (way, shot, result) after every fold.

    Raises:
        UsageError: No such folds, too few classes with enough clouds, several processes, or options that do not go
            together.
    """
    few_shot, svm = few_shot or FewShotConfig(), svm or SvmConfig()
    _check_call(model, few_shot, svm, out)
    config = data_config_of(model, data)
    target = resolve_device(device)
    if dataset is None and not _has_folds(config):
        dataset = dataset_from_config(config)
    job = _Job(model.to(target), config, few_shot, seed, dataset)
    remembered = MemoryCache(cache)
    records = []
    with ExitStack() as stack:
        place = None
        number_format = "fp32"  # of the pass that gives an SVM its features
        if few_shot.how == "finetune":
            place = _place(stack, out, resume)
            number_format = resolve_precision(precision, target).name
        for way, shot in few_shot.pairs:
            begun, started = time.perf_counter(), datetime.now(UTC)
            if place is None:
                learn, said = _by_svm(job, svm, remembered)
            else:
                where = place / f"{way}w{shot}s"
                learn, said = _by_finetuning(job, way, data, device, precision, where, kept=out is not None)
            results, about = _all_folds(job, way, shot, learn, on_fold)
            records.append(
                _record(
                    *(job, way, shot, results, about),
                    said(),
                    {
                        "command": None
                        if command is None
                        else f"{command} --few_shot.way {way} --few_shot.shot {shot}",
                        "training": None if training is None else dict(training),
                        "device": describe_device(target, number_format),
                        "time": {
                            "started": started.isoformat(timespec="seconds"),
                            "evaluate_seconds": round(time.perf_counter() - begun, 3),
                        },
                    },
                )
            )
            if out is not None and place is not None:
                records[-1].write(place / f"{way}w{shot}s")
    return records


def _check_call(model: PointModel, few_shot: FewShotConfig, svm: SvmConfig, out: str | Path | None) -> None:
    model.check_not_adapted()
    if distributed.launched_size() > 1:
        raise UsageError(f"{distributed.launched_size()} processes", "one: folds are small")
    if few_shot.how == "finetune":
        if svm != SvmConfig():
            raise UsageError(f"svm.C {svm.C} with few_shot.how finetune, which fits no SVM", "--few_shot.how svm")
    else:
        if out is not None:
            raise UsageError("--out with few_shot.how svm, which takes seconds", "--few_shot.how finetune")
        if svm.C == "official":
            raise UsageError("svm.C official under few-shot", "search, or a number", "nobody published one")
        if svm.C == "search" and any(shot < 2 for _, shot in few_shot.pairs):
            raise UsageError(
                "one cloud per class: nothing can be held out to choose C", "--svm.C 0.1, or another number"
            )


def _place(stack: ExitStack, out: str | Path | None, resume: bool) -> Path:
    """Where the runs of the folds lie: a locked folder, or one that goes at the end."""
    if out is not None:
        return stack.enter_context(run_folder.claim(Path(out), resume=resume))
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pointlift-few-shot-")))


def _has_folds(config: DataConfig) -> bool:
    if config.name != "auto":
        return config.name == OFFICIAL
    return config.root is not None and Path(config.root).is_dir() and published.detect(Path(config.root))


@dataclass(frozen=True)
class _About:
    """What a record says of the data of a setting."""

    dataset: dict[str, Any]
    origin: str
    transform: dict[str, Any]


def _all_folds(
    job: _Job, way: int, shot: int, learn: Learn, on_fold: Callable[[int, int, FoldResult], None] | None
) -> tuple[list[FoldResult], _About]:
    results: list[FoldResult] = []
    hashes: list[str] = []
    first: CloudDataset | None = None
    for number, fold in enumerate(_folds(job, way, shot)):
        first = first or fold
        hashes.append(fold.content_hash())
        metrics, chosen = learn(fold, number)
        results.append(FoldResult(number, fold.meta.classes, metrics, chosen))
        if on_fold is not None:
            on_fold(way, shot, results[-1])
    assert first is not None  # a configuration has at least one fold
    described = describe_dataset(first, first.splits) | {
        "variant": f"{way}-way {shot}-shot, {len(results)} folds",
        "content_hash": hashlib.sha256("".join(hashes).encode()).hexdigest(),
        "classes": [],  # those of each fold stand with its score
    }
    origin = "as published or prepared" if job.source is None else f"drawn here with seed {job.seed}"
    return results, _About(described, origin, describe_transform(build_transform(job.config, first.meta, "test")))


def _folds(job: _Job, way: int, shot: int) -> Iterator[CloudDataset]:
    count = job.few_shot.folds
    if job.source is not None:
        drawn = draw_folds(job.source, way, shot, count, job.seed, test_shot=job.few_shot.test_shot)
        for number, fold in enumerate(drawn):
            yield fold_dataset(job.source, fold, number)
        return
    for number in range(count):
        options = {**job.config.options, "way": way, "shot": shot, "fold": number}
        try:
            yield dataset_from_config(replace(job.config, name=OFFICIAL, options=options))
        except UsageError as error:
            fix = f"--few_shot.folds {number}" if number else "--few_shot.way 5 --few_shot.shot 10"
            raise UsageError(error.given, error.expected, fix) from error


def _by_svm(job: _Job, svm: SvmConfig, cache: RowCache) -> tuple[Learn, Callable[[], dict[str, Any]]]:
    """Learn a fold by a linear SVM on features; and what a record says of that, once all folds are done."""
    described: list[dict[str, Any]] = []

    def learn(fold: CloudDataset, number: int) -> tuple[dict[str, float], dict[str, Any]]:
        train, test = fold.train, fold.part("test")
        frozen = frozen_tables(job.model, (train, test), job.config, cache)
        described.append(frozen.described)
        learned, asked = frozen.tables
        fitted = fit_svm(learned, train.class_labels(), svm, arch=job.model.arch, data=fold.meta.name)
        logits = svm_logits(fitted.classifier, asked, len(fold.meta.classes))
        metrics = Scores(logits, test.class_labels(), np.arange(len(test))).metrics()
        return _accuracies(metrics), {"C": fitted.C}

    def said() -> dict[str, Any]:
        counts = {key: sum(d[key] for d in described) for key in ("computed", "cached")}
        return {
            "svm": {"C": svm.C, "chosen": "given" if svm.C != "search" else "held-out fifth of each fold's train"},
            "features": described[0] | counts,
            "adaptation": "linear SVM",
        }

    return learn, said


def _by_finetuning(
    job: _Job, way: int, data: Mapping[str, Any] | None, device: str, precision: str, place: Path, *, kept: bool
) -> tuple[Learn, Callable[[], dict[str, Any]]]:
    """Learn a fold by a fine-tuning run of its own; and what a record says of that."""
    few_shot = job.few_shot
    recipe = few_shot.recipe or _recipe_of(job.model)
    config = _run_config(job, recipe, data, device, precision)
    headless = copy.deepcopy(job.model).cpu()
    headless.reset_classifier(0)

    def learn(fold: CloudDataset, number: int) -> tuple[dict[str, float], dict[str, Any]]:
        folder = place / f"fold_{number}"
        run = finetune(
            config,
            out=folder,
            resume=has_run(folder),
            model=copy.deepcopy(headless),
            dataset=fold,
            recipe=recipe,
        )
        record = run.record.data
        for name in _LARGE if kept else ():
            shutil.rmtree(folder / name, ignore_errors=True)
        if not kept:
            shutil.rmtree(folder)
        return _accuracies(record["metrics"]), {"epoch": record["epoch"]}

    def said() -> dict[str, Any]:
        probe = copy.deepcopy(headless)
        probe.reset_classifier(way)
        adapt_model(probe, config.adaptation.name, **config.adaptation.options)
        return {
            "recipe": recipe,
            "points": config.data.points,
            "config": to_dict(config),
            "epoch_rule": "best on test" if few_shot.select == "test" else "last",
            "epochs": config.epochs,
            "adaptation": config.adaptation.name,
            "trainable": describe_model(probe).get("trainable"),
        }

    return learn, said


def _recipe_of(model: PointModel) -> str:
    family = next((name for name in FAMILIES if model.arch.startswith(name)), FAMILIES[0])
    return f"{family}/modelnet40_few_shot"


def _run_config(job: _Job, recipe: str, data: Mapping[str, Any] | None, device: str, precision: str) -> FinetuneConfig:
    """The recipe's configuration, with clouds treated as the model's weights ask for, and then as the user does."""
    few_shot = job.few_shot
    own = {key: value for key, value in job.model.preprocess.items() if value is not None}
    given = {key: value for key, value in (data or {}).items() if key not in ("name", "root", "options", "variant")}
    overrides: dict[str, Any] = {
        "seed": job.seed,
        "device": device,
        "precision": precision,
        "select": few_shot.select,
        "keep_clouds": 0,
        "data": merge(merge(own, given), {"val_fraction": 0.0, "limit": None}),
    }
    if few_shot.epochs is not None:
        overrides["epochs"] = few_shot.epochs
    if few_shot.adaptation is not None:
        overrides["adaptation"] = few_shot.adaptation
    return finetune_config(recipe, overrides)


def _accuracies(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: metrics[name] for name in ("overall_accuracy", "mean_class_accuracy")}


def summary(results: Sequence[FoldResult]) -> dict[str, float]:
    """Means over folds, and the spread of the overall accuracy.

    `overall_accuracy_std` is the sample standard deviation (divided by n - 1), absent for a single fold; papers do not
    say which they print. `overall_accuracy_std_population` (divided by n) stands beside it.
    """
    found = {name: float(np.mean([r.metrics[name] for r in results])) for name in results[0].metrics}
    accuracies = [r.metrics["overall_accuracy"] for r in results]
    if len(results) > 1:
        found["overall_accuracy_std"] = float(np.std(accuracies, ddof=1))
        found["overall_accuracy_std_population"] = float(np.std(accuracies))
    return found


def _record(
    job: _Job,
    way: int,
    shot: int,
    results: Sequence[FoldResult],
    about: _About,
    said: Mapping[str, Any],
    run: Mapping[str, Any],
) -> Record:
    adapted = {key: said[key] for key in ("adaptation", "trainable") if key in said}
    return Record(
        {
            "schema": SCHEMA,
            "task": "classification",
            "protocol": "few-shot",
            "dataset": about.dataset,
            "split": "test",
            "metrics": summary(results),
            "few_shot": {
                "way": way,
                "shot": shot,
                "how": job.few_shot.how,
                "origin": about.origin,
                "std": "sample (n - 1)",
                "folds": [asdict(r) | {"classes": list(r.classes)} for r in results],
            },
            "points": job.config.points,
            **about.transform,
            **{key: value for key, value in said.items() if key not in adapted},
            "seed": job.seed,
            "voting": describe_voting(None),
            "model": {**describe_model(job.model), "pretrained": job.model.origin, **adapted},
            "quirks": describe_quirks(job.model),
            "versions": versions(),
            **run,
        }
    )
