"""Pre-training: from clouds without labels to a run folder with a backbone and a record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pointlift.core.config import to_dict
from pointlift.core.errors import DataError, UsageError
from pointlift.core.seeds import derive, seed_everything
from pointlift.data.dataset import CloudDataset, CloudSplit, stratified_split
from pointlift.data.loader import Loader, make_loader
from pointlift.data.loading import dataset_from_config, load_dataset
from pointlift.data.pipeline import build_transform
from pointlift.engine import distributed
from pointlift.engine.loop import FitResult, Loaders, fit
from pointlift.engine.meter import Meter
from pointlift.engine.training import batch_size
from pointlift.models.base import PointModel
from pointlift.pretrain.objective import Objective
from pointlift.pretrain.registry import OBJECTIVES, create_objective
from pointlift.tasks.config import MonitorConfig, PretrainConfig
from pointlift.tasks.evaluate import evaluation_loader
from pointlift.tasks.frozen import frozen_features
from pointlift.tasks.linear_svm import svm_accuracy
from pointlift.tasks.predict import preprocess_of
from pointlift.tasks.reconstructions import with_default_rule, write_reconstructions
from pointlift.tasks.record import (
    SCHEMA,
    Record,
    describe_dataset,
    describe_device,
    describe_quirks,
    describe_transform,
    versions,
)
from pointlift.tasks.resolve import resolve_device
from pointlift.tasks.run import Origin, Run
from pointlift.tasks.start import begin_or_check, claim_run, is_finished
from pointlift.weights.hashing import file_sha256, state_hash
from pointlift.weights.modelfile import TENSORS, describe, write_model_folder

OBJECTIVE = "objective"  # folder with all that was learned, the decoder too, beside `model/` with the backbone


def pretrain(
    config: PretrainConfig,
    *,
    out: str | Path,
    resume: bool = False,
    dataset: CloudDataset | None = None,
    recipe: str | None = None,
    command: str | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> Run:
    """Train an objective on clouds; labels, where the set has some, are not looked at.

    Args:
        config: The whole configuration; with `resume`, that of the run.
        out: The run folder; new or empty, unless `resume`.
        resume: Go on with the run in `out`.
        dataset: A data set in memory instead of the one `config.data` names.
        recipe: What to call the recipe in the record.
        command: The command line, for the record.
        on_epoch: Called with every epoch line.

    Raises:
        UsageError: `out` is not empty, a wrong device, or a run to resume that was started otherwise.
        PointLiftError: Whatever goes wrong with files or the loss.
    """
    out = Path(out)
    with ExitStack() as stack:
        device = stack.enter_context(distributed.process_group(resolve_device(config.device)))
        distributed.from_main(lambda: claim_run(stack, out, resume=resume))
        # No test part is held out: whoever scores the backbone does so on labelled sets.
        dataset = dataset or dataset_from_config(replace(config.data, test_fraction=0.0))
        job = _prepare(config, dataset, stack)
        now = _origin(job, recipe, command)
        origin = distributed.from_main(lambda: begin_or_check(out, config, now, resume=resume))
        if resume and is_finished(out):
            return Run(out)
        result = fit(
            job.objective,
            objective_losses,
            Loaders(job.train, {} if job.val is None else {"val": job.val}),
            config.fit_config(metric="loss", mode="min"),
            out,
            evaluate=job.evaluate,
            resume=resume,
            device=device,
            on_epoch=on_epoch,
        )
        distributed.from_main(lambda: _write_results(job, out, origin, result, device))
    return Run(out)


def objective_losses(objective: nn.Module, batch: Mapping[str, Tensor], progress: float) -> dict[str, Tensor]:
    """One training step's losses for `engine.fit`; chance comes from torch's stream, which the engine seeds."""
    assert isinstance(objective, Objective)
    noise = objective.draw(batch, _stream(batch["xyz"].device))
    losses = objective(batch, noise, progress)
    return {"loss": losses.total, **losses.terms}


def _stream(device: torch.device) -> torch.Generator:
    """torch's own stream on a device; noise is drawn where it is used."""
    return torch.cuda.default_generators[device.index or 0] if device.type == "cuda" else torch.default_generator


@dataclass
class _Job:
    """Everything that one run is made of, once it is known to fit together."""

    config: PretrainConfig
    dataset: CloudDataset
    sizes: dict[str, int]
    objective: Objective
    train: Loader
    val: Loader | None
    monitor: _Monitor | None

    def evaluate(self, objective: nn.Module, loader: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """The loss on held-out clouds, under the same noise every time, and what the monitor says."""
        assert isinstance(objective, Objective)
        found = held_out_losses(objective, loader, self.config.seed)
        if self.monitor is not None and distributed.is_main():
            found["svm_accuracy"] = self.monitor(objective.backbone)
        return found


def held_out_losses(objective: Objective, loader: Iterable[Mapping[str, Any]], seed: int) -> dict[str, float]:
    """Mean losses over a loader; the noise depends on `seed` and the batch, so that epochs can be compared."""
    device = next(objective.parameters()).device
    meter = Meter(device)
    for number, batch in enumerate(loader):
        there = {k: v.to(device) for k, v in batch.items() if isinstance(v, Tensor)}
        generator = torch.Generator(device).manual_seed(derive(seed, "held out", number))
        noise = objective.draw(there, generator)
        losses = objective(there, noise, 1.0)
        for name, value in {"loss": losses.total, **losses.terms}.items():
            meter.add(name, value, batch_size(batch))
    return meter.means()


class _Monitor:
    """Accuracy of a linear SVM on frozen features of a labelled set's training part, some of it held out."""

    def __init__(self, config: MonitorConfig, seed: int) -> None:
        self.config = config
        root = str(config.data)
        made = not Path(root).exists() and root.isidentifier()
        dataset = load_dataset(name=root) if made else load_dataset(root)
        self.clouds: CloudSplit = dataset.train.take(config.limit)
        self.labels = self.clouds.class_labels()
        self.learned, self.held = stratified_split(self.labels, 0.2, seed, "svm")

    def __call__(self, backbone: PointModel) -> float:
        features = frozen_features(backbone, self.clouds, pooling=backbone.config.pooling).pooled.astype(np.float64)
        return svm_accuracy(
            features[self.learned],
            self.labels[self.learned],
            features[self.held],
            self.labels[self.held],
            C=self.config.C,
        )


def _prepare(config: PretrainConfig, dataset: CloudDataset, stack: ExitStack) -> _Job:
    train, val = dataset.hold_out(config.data.val_fraction, config.data.split_seed)
    seed_everything(derive(config.seed, "model"))
    choice = config.model
    options = dict(config.objective.options)
    _check_teacher(config.objective.name, options)
    objective = create_objective(
        config.objective.name,
        choice.name,
        pretrained=choice.pretrained,
        quirks=options.pop("quirks", choice.quirks),
        backbone_options=choice.options,
        **options,
    )
    backbone = objective.backbone
    data = with_default_rule(config.data)
    if data.points < backbone.min_points:
        raise DataError(
            f"data.points is {data.points}", f"at least {backbone.min_points}, as many as {backbone.arch} reads"
        )
    backbone.preprocess = preprocess_of(replace(data, up_axis=data.up_axis or dataset.meta.up_axis))
    whole = data.batch_size * distributed.world_size()
    loader = make_loader(
        train,
        build_transform(data, dataset.meta, "train"),
        batch_size=data.batch_size,
        seed=config.seed,
        shuffle=True,
        workers=data.workers,
        drop_last=len(train) >= whole,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
    )
    held = None if val is None else evaluation_loader(val, data, dataset.meta)
    for each in (loader, held):
        if each is not None:
            stack.callback(each.close)
    monitor = None if config.monitor.data is None else _Monitor(config.monitor, config.seed)
    sizes = {"train": len(train)} | ({} if val is None else {"val": len(val)})
    return _Job(replace(config, data=data), dataset, sizes, objective, loader, held, monitor)


def _check_teacher(objective: str, options: Mapping[str, Any]) -> None:
    """An objective that learns from a trained network is not started without one."""
    if "teacher" in {f.name for f in fields(OBJECTIVES.get(objective).config)} and not options.get("teacher"):
        raise UsageError(
            f"objective {objective} without a teacher: its targets would come from random weights",
            "a trained one",
            "--objective.options.teacher RUN, a run folder or a checkpoint",
        )


def _origin(job: _Job, recipe: str | None, command: str | None) -> Origin:
    return Origin(
        recipe=recipe,
        command=command,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        pretrained=job.objective.backbone.origin,
        weights=state_hash(job.objective.state_dict()),
        data=job.dataset.content_hash(),
    )


def _write_results(job: _Job, out: Path, origin: Origin, result: FitResult, device: torch.device) -> None:
    """Main process: model/, objective/, clouds to look at and, last, record.json: with it the run is finished."""
    backbone, config = job.objective.backbone, job.config
    learned = {"name": config.objective.name, "options": to_dict(job.objective.config)}
    common: dict[str, Any] = {"classes": None, "preprocess": backbone.preprocess, "objective": learned}
    values = to_dict(backbone.config)
    state = backbone.base_state()
    description = describe(backbone.arch, values, state, holds="backbone", **common)
    write_model_folder(out / "model", state, description)
    whole = job.objective.kept_state()
    write_model_folder(out / OBJECTIVE, whole, describe(backbone.arch, values, whole, holds="objective", **common))
    write_reconstructions(
        out,
        job.objective,
        job.dataset.hold_out(config.data.val_fraction, config.data.split_seed),
        config.data,
        job.dataset.meta,
        keep_clouds=config.keep_clouds,
        seed=config.seed,
    )
    _record(job, out, origin, result, device).write(out)


def _record(job: _Job, out: Path, origin: Origin, result: FitResult, device: torch.device) -> Record:
    config, backbone = job.config, job.objective.backbone
    return Record(
        {
            "schema": SCHEMA,
            "task": config.task,
            "protocol": "pre-training",
            "command": origin.command,
            "recipe": origin.recipe,
            "dataset": describe_dataset(job.dataset, job.sizes),
            "split": "val",
            "metrics": result.metrics,
            "points": config.data.points,
            **describe_transform(job.train.transform),
            "objective": {"name": config.objective.name, **to_dict(job.objective.config)},
            "monitor": asdict(config.monitor) if job.monitor is not None else None,
            "seed": config.seed,
            "epoch_rule": result.epoch_rule,
            "epoch": result.epoch,
            "epochs": result.epochs,
            "samples_seen": result.samples_seen,
            "model": {
                "arch": backbone.arch,
                "config": to_dict(backbone.config),
                "parameters": sum(p.numel() for p in backbone.parameters()),
                "trainable": sum(p.numel() for p in job.objective.parameters() if p.requires_grad),
                "hash": state_hash(backbone.base_state()),
                "pretrained": origin.pretrained,
                "initial_hash": origin.weights,
            },
            "quirks": describe_quirks(backbone),
            "checkpoint_sha256": file_sha256(out / "model" / TENSORS),
            "versions": versions(),
            "device": describe_device(device, result.precision),
            "processes": distributed.world_size(),
            "time": {"started": origin.started, "train_seconds": round(result.train_seconds, 3)},
            "note": config.note,
        }
    )
