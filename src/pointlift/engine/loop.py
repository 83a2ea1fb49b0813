"""The loop: train, evaluate, choose, checkpoint, resume. `fit` is the whole of it."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pointlift.core.errors import CheckpointMismatchError, PointLiftError, UsageError, did_you_mean
from pointlift.core.seeds import derive, seed_everything
from pointlift.engine import distributed, run_folder
from pointlift.engine.batchnorm import convert_sync_batchnorm
from pointlift.engine.checkpoint import Checkpoint, Checkpoints
from pointlift.engine.config import FitConfig
from pointlift.engine.logs import MetricsLog, Progress, TensorBoard, finite, read_metrics
from pointlift.engine.optim import load_optimizer_tensors, optimizer_tensors
from pointlift.engine.precision import Precision, resolve_precision
from pointlift.engine.training import EpochTotals, Losses, Trainer, TrainLoader

logger = logging.getLogger(__name__)

Evaluate = Callable[[nn.Module, Any], dict[str, float]]

_SPLITS = {"validation": "val", "test": "test"}
_RULES = {"validation": "best on validation", "last": "last", "test": "best on test"}
_FREE_TO_CHANGE = ("checkpoint_every", "tensorboard")  # on resume; all else would make it another run


@dataclass
class Loaders:
    """Batches to train on, and batches to evaluate on by name: `val` and `test`."""

    train: TrainLoader
    evals: dict[str, Iterable[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class FitResult:
    """What a run came to.

    Attributes:
        epoch: Epoch (from 0) whose weights the module has now.
        epochs: Epochs trained.
        epoch_rule: How it was chosen: `best on validation`, `last` or `best on test`.
        metrics: The evaluation of that epoch; empty if nothing was evaluated.
        samples_seen: Samples trained on, over all epochs and processes.
        train_seconds: Time in training, over all parts of a resumed run.
        history: The epoch lines of `metrics.jsonl`.
        precision: fp32, bf16 or fp16, as resolved.
        skipped_steps: Optimiser steps left out because fp16 overflowed.
        checkpoint: The checkpoint file that holds the module's weights.
    """

    epoch: int
    epochs: int
    epoch_rule: str
    metrics: dict[str, float]
    samples_seen: int
    train_seconds: float
    history: list[dict[str, Any]]
    precision: str
    skipped_steps: int
    checkpoint: Path


@dataclass
class _State:
    """What a checkpoint holds besides tensors."""

    epoch: int = -1  # last finished
    step: int = 0
    samples_seen: int = 0
    train_seconds: float = 0.0
    skipped_steps: int = 0
    best_epoch: int | None = None
    best_value: float | None = None
    best_metrics: dict[str, float] = field(default_factory=dict)
    metrics_bytes: int = 0
    scaler: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    processes: int = 1


def fit(
    module: nn.Module,
    losses: Losses,
    loaders: Loaders,
    config: FitConfig,
    out: Path,
    *,
    evaluate: Evaluate,
    resume: bool = False,
    device: str | torch.device = "cpu",
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> FitResult:
    """Train `module` in place and leave it with the selected weights.

    A run that was interrupted, killed or out of disk goes on with `resume=True` from its last good
    checkpoint; on the CPU it ends bit for bit like one that never stopped. Ctrl-C and SIGTERM raise
    `KeyboardInterrupt` and lose at most what came after that checkpoint. Under torchrun every process calls
    this with its own loader, inside `distributed.process_group`; the main one writes. The global seeds of
    torch, numpy and Python are set.

    Args:
        module: What is trained; its own `train()` decides which layers stay in evaluation mode.
        losses: `losses(module, batch, progress)` gives `loss` (scalar, mean over the samples) and other
            scalars to log; `progress` in [0, 1) is the share of the run that is done.
        loaders: Training batches, and `val` or `test` ones for `config.select`.
        config: The run.
        out: Run folder; gets `metrics.jsonl` and `checkpoints/`.
        evaluate: `evaluate(module, loader)` gives metrics over all processes; called in evaluation mode
            without gradients under the run's precision.
        resume: Go on with the run in `out`; one without a checkpoint yet starts anew.
        device: Where to compute.
        on_epoch: Called in the main process with every epoch line.

    Raises:
        UsageError: `out` holds a run and `resume` is off, it belongs to another process or another
            configuration, or there is no split to select on.
        PointLiftError: Loss or gradient is not finite, or the disk is full.
        CheckpointError: No checkpoint of the run to resume can be read, or it is of another model.
    """
    device = distributed.check_device(device)
    _check(loaders, config)
    with ExitStack() as stack:
        stack.enter_context(_terminate_as_interrupt())
        run = _Run(module, losses, loaders, config, out, evaluate, device, stack)
        run.start(resume)
        with Progress(
            run.trainer.steps_per_epoch * config.epochs, done=run.state.step, show=distributed.is_main()
        ) as progress:
            for epoch in range(run.state.epoch + 1, config.epochs):
                line = run.epoch(epoch, progress.step)
                progress.epoch(line, config.epochs)
                if on_epoch is not None and distributed.is_main():
                    on_epoch(line)
        return run.finish()


class _Run:
    """The moving parts of one `fit`."""

    def __init__(
        self,
        module: nn.Module,
        losses: Losses,
        loaders: Loaders,
        config: FitConfig,
        out: Path,
        evaluate: Evaluate,
        device: torch.device,
        stack: ExitStack,
    ) -> None:
        self.module, self.loaders, self.config, self.out = module, loaders, config, out
        self.evaluate, self._stack = evaluate, stack
        self.precision: Precision = resolve_precision(config.precision, device)
        self.split = _SPLITS.get(config.select, "val")
        self.checkpoints = Checkpoints(out / "checkpoints")
        self.history: list[dict[str, Any]] = []
        self.state = _State()
        self._log: MetricsLog | None = None  # in the main process only, like the board
        self._board: TensorBoard | None = None
        module.to(device)
        if config.sync_batchnorm and distributed.world_size() > 1:
            convert_sync_batchnorm(module)
        self.trainer = Trainer(module, losses, loaders.train, config, self.precision)

    def start(self, resume: bool) -> None:
        """Lock the folder, take up the newest checkpoint, open the log."""
        checkpoint = distributed.from_main(lambda: self._claim(resume))
        if checkpoint is not None:
            self._restore(checkpoint)
        self.state.config = dataclasses.asdict(self.config)
        self.state.processes = distributed.world_size()
        self.history = distributed.from_main(self._open_logs)

    def epoch(self, epoch: int, on_step: Callable[[], None]) -> dict[str, Any]:
        """Train, evaluate, log and checkpoint one epoch; returns its line."""
        _reset_peak_memory(self.precision.device)
        begun = time.perf_counter()
        totals = self.trainer.run_epoch(epoch, on_step)
        seconds = time.perf_counter() - begun
        state = self.state
        state.epoch = epoch
        state.step += self.trainer.steps_per_epoch
        state.samples_seen += totals.samples
        state.skipped_steps += totals.skipped
        state.train_seconds += seconds
        begun = time.perf_counter()
        metrics = self._evaluate(epoch)
        improved = metrics is not None and self._is_best(epoch, metrics)
        line = self._line(totals, metrics, seconds, time.perf_counter() - begun)
        self.history.append(line)
        distributed.from_main(lambda: self._write(line, improved))
        return line

    def finish(self) -> FitResult:
        """Give the module the selected weights and close the run."""
        state, select = self.state, self.config.select
        if select == "last":
            chosen, metrics = state.epoch, self.history[-1].get(self.split, {}) if self.history else {}
        elif state.best_epoch is None:
            raise PointLiftError(
                f"{self.config.metric} was not finite after any epoch", "a number to choose the best epoch by"
            )
        else:
            chosen, metrics = state.best_epoch, state.best_metrics
            self._load(distributed.from_main(lambda: self.checkpoints.load(chosen)))
        self.module.eval()
        result = FitResult(
            epoch=chosen,
            epochs=self.config.epochs,
            epoch_rule=_RULES[select],
            metrics=dict(metrics),
            samples_seen=state.samples_seen,
            train_seconds=state.train_seconds,
            history=self.history,
            precision=self.precision.name,
            skipped_steps=state.skipped_steps,
            checkpoint=self.checkpoints.path(chosen),
        )
        if self._log is not None:
            self._log.write(
                "end",
                epoch=chosen,
                epoch_rule=result.epoch_rule,
                metrics=result.metrics,
                samples_seen=result.samples_seen,
                skipped_steps=result.skipped_steps,
                train_seconds=round(result.train_seconds, 3),
            )
        return result

    def _claim(self, resume: bool) -> Checkpoint | None:
        """Main process: lock the folder and find the checkpoint to go on from."""
        run_folder.make(self.out)
        self._stack.enter_context(run_folder.lock(self.out))
        if resume:
            return self.checkpoints.newest()
        if self.checkpoints.epochs() or (self.out / "metrics.jsonl").exists():
            raise UsageError(
                f"{self.out} holds a run already",
                "a new folder",
                "Choose another --out, or go on with --resume",
            )
        return None

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.state = _State(epoch=checkpoint.epoch, best_epoch=checkpoint.best_epoch, **checkpoint.state)
        _check_same(self.state.config, dataclasses.asdict(self.config), self.out)
        if self.state.processes != distributed.world_size():
            logger.warning(
                "the run in %s had %d processes and goes on with %d: its result will differ",
                self.out,
                self.state.processes,
                distributed.world_size(),
            )
        self._load(checkpoint)
        load_optimizer_tensors(self.trainer.optimizer, checkpoint.optimizer)
        if self.trainer.scaler.is_enabled() and self.state.scaler:
            self.trainer.scaler.load_state_dict(self.state.scaler)

    def _load(self, checkpoint: Checkpoint) -> None:
        shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.model.items()}
        expected = {name: tuple(tensor.shape) for name, tensor in self.module.state_dict().items()}
        wrong = sorted(n for n in shapes.keys() | expected.keys() if shapes.get(n) != expected.get(n))
        if wrong:
            first = wrong[0]
            raise CheckpointMismatchError(
                f"{len(wrong)} tensors of the checkpoint of epoch {checkpoint.epoch} in {self.out} do not fit the "
                f"model: {first} is {shapes.get(first, 'absent')}, not {expected.get(first, 'absent')}",
                "the model that the run was started with",
            )
        self.module.load_state_dict(checkpoint.model)

    def _open_logs(self) -> list[dict[str, Any]]:
        """Main process: cut the log back to the checkpoint, or begin it; returns its epoch lines."""
        path = self.out / "metrics.jsonl"
        self._log = MetricsLog(path, position=self.state.metrics_bytes)
        self._stack.callback(self._log.close)
        if self.config.tensorboard:
            self._board = TensorBoard(self.out, first_epoch=self.state.epoch + 1)
            self._stack.callback(self._board.close)
        if self._log.position == 0:
            self._write_start(self._log)
        return [line for line in read_metrics(path) if line["event"] == "epoch"]

    def _write_start(self, log: MetricsLog) -> None:
        parameters = list(self.module.parameters())
        log.write(
            "start",
            epochs=self.config.epochs,
            steps_per_epoch=self.trainer.steps_per_epoch,
            seed=self.config.seed,
            precision=self.precision.name,
            device=self.precision.device.type,
            processes=distributed.world_size(),
            epoch_rule=_RULES[self.config.select],
            metric=self.config.metric,
            parameters=sum(p.numel() for p in parameters),
            trainable=sum(p.numel() for p in parameters if p.requires_grad),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _evaluate(self, epoch: int) -> dict[str, float] | None:
        """Metrics after `epoch`, the same in every process; None when it is not evaluated."""
        last = epoch + 1 == self.config.epochs
        if self.split not in self.loaders.evals or not (last or (epoch + 1) % self.config.eval_every == 0):
            return None
        seed_everything(derive(self.config.seed, "evaluate", epoch, distributed.rank()))
        self.module.eval()
        with torch.no_grad(), self.precision.autocast():
            found = self.evaluate(self.module, self.loaders.evals[self.split])
        # The main process's numbers decide everywhere, so that no rounding splits the processes.
        return distributed.from_main(lambda: {name: float(value) for name, value in found.items()})

    def _is_best(self, epoch: int, metrics: dict[str, float]) -> bool:
        """Whether `epoch` is better than all before, and note it; of equals the lower loss wins, else the first."""
        if self.config.select == "last":
            return False
        name = self.config.metric
        if name not in metrics:
            raise UsageError(
                f"the evaluation gives no {name!r}",
                f"one of {', '.join(metrics)}",
                did_you_mean(name, metrics).strip(),
            )
        value, best = metrics[name], self.state.best_value
        sign = 1 if self.config.mode == "max" else -1
        if not math.isfinite(value) or (best is not None and sign * value < sign * best):
            return False
        if value == best and not metrics.get("loss", math.inf) < self.state.best_metrics.get("loss", math.inf):
            return False
        self.state.best_epoch, self.state.best_value, self.state.best_metrics = epoch, value, metrics
        return True

    def _line(
        self, totals: EpochTotals, metrics: dict[str, float] | None, seconds: float, evaluate_seconds: float
    ) -> dict[str, Any]:
        line: dict[str, Any] = {
            "event": "epoch",
            "epoch": self.state.epoch,
            "step": self.state.step,
            "lr": totals.lr,
            "train": totals.train,
        }
        if metrics is not None:
            line[self.split] = metrics
            line["evaluate_seconds"] = round(evaluate_seconds, 3)
        if self.trainer.scaler.is_enabled():
            line["skipped_steps"] = totals.skipped
        line["seconds"] = round(seconds, 3)
        line["samples_per_second"] = round(totals.samples / seconds, 1)
        line["samples_seen"] = self.state.samples_seen
        if self.precision.device.type == "cuda":
            line["peak_memory_mb"] = round(torch.cuda.max_memory_allocated(self.precision.device) / 2**20, 1)
        return finite(line)

    def _write(self, line: dict[str, Any], improved: bool) -> None:
        """Main process: log an epoch, and checkpoint it when it is due."""
        if self._log is None:
            return
        self._log.write(**line)
        if self._board is not None:
            self._board.epoch(line)
        epoch = self.state.epoch
        due = (epoch + 1) % self.config.checkpoint_every == 0 or epoch + 1 == self.config.epochs
        if not (due or improved):
            return
        self.state.metrics_bytes = self._log.sync()
        self.state.scaler = self.trainer.scaler.state_dict()
        state = dataclasses.asdict(self.state)
        self.checkpoints.save(
            Checkpoint(
                epoch=state.pop("epoch"),
                best_epoch=state.pop("best_epoch"),
                state=state,
                model=self.module.state_dict(),
                optimizer=optimizer_tensors(self.trainer.optimizer),
            )
        )


def _check(loaders: Loaders, config: FitConfig) -> None:
    """What can be known to be wrong before anything is touched."""
    wanted = _SPLITS.get(config.select)
    if wanted is not None and wanted not in loaders.evals:
        raise UsageError(
            f"the best epoch is to be chosen on the {config.select} split, and there is none",
            f"one of {', '.join(loaders.evals) or 'val, test'} to evaluate on",
            "Hold out a part of the training split, or set `select` to `last`",
        )
    if distributed.launched_size() > 1 and not distributed.is_initialized():
        raise UsageError(
            f"torchrun started {distributed.launched_size()} processes that have not joined",
            "a call inside `distributed.process_group(device)`",
        )


def _check_same(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    """Refuse to go on with another configuration: the result would be of neither."""
    kept, given = _flat(before), _flat(now)
    differ = [
        f"{key} was {kept.get(key)} and is {given.get(key)}"
        for key in sorted(kept.keys() | given.keys())
        if kept.get(key) != given.get(key) and key not in _FREE_TO_CHANGE
    ]
    if differ:
        raise UsageError(
            f"the run in {out} was started with another configuration: {'; '.join(differ)}",
            "the same one",
            "Resume without changes, or start a new run",
        )


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options as `a.b` → value, with the lists that JSON makes of tuples."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def _reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM (a batch system's notice) end the run like Ctrl-C, with files and locks closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def interrupt(number: int, frame: object) -> None:
        if os.getpid() != owner:  # a forked data-loader worker: end as by default
            os._exit(128 + number)
        raise KeyboardInterrupt("SIGTERM")

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
