"""One epoch of training: accumulation, autocast, clipping, loss scaling, several processes."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pointlift.core.errors import DataError
from pointlift.core.seeds import derive, seed_everything
from pointlift.engine import distributed
from pointlift.engine.config import FitConfig
from pointlift.engine.meter import Meter
from pointlift.engine.optim import build_optimizer, clip_gradients, set_learning_rate
from pointlift.engine.precision import Precision
from pointlift.engine.schedules import learning_rate

Batch = Mapping[str, Any]
Losses = Callable[[nn.Module, Any, float], dict[str, Tensor]]

_CHECK_EVERY = 50  # steps between two waits for the GPU; on the CPU a look at a number costs nothing


class TrainLoader(Protocol):
    """Batches of one epoch; the same ones for the same epoch."""

    def __iter__(self) -> Iterator[Any]: ...
    def __len__(self) -> int: ...
    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""


@dataclass(frozen=True)
class EpochTotals:
    """What one epoch did, over all processes."""

    lr: float
    train: dict[str, float]
    samples: int
    skipped: int


class Trainer:
    """A module with its optimiser and loss scaler.

    Args:
        module: What is trained; on `precision.device` already.
        losses: `losses(module, batch, progress)` with `loss` (scalar mean over the batch) and other scalars
            to log; `progress` in [0, 1) is the share of the run that is done.
        loader: Batches of this process.
        config: The run.
        precision: Number format and device.
    """

    def __init__(
        self, module: nn.Module, losses: Losses, loader: TrainLoader, config: FitConfig, precision: Precision
    ) -> None:
        self.module, self.loader, self.config, self.precision = module, loader, config, precision
        self.optimizer = build_optimizer(module, config.optim)
        self.scaler = precision.scaler()
        self._model = _wrap(_Losses(module, losses))
        # Processes must take the same number of steps, or the last ones wait for the others for ever.
        self._batches = distributed.all_reduce_min(len(loader))
        if self._batches == 0:
            raise DataError(
                "the training split gives no batch",
                "at least one",
                "Use a smaller batch size, or do not drop the last batch",
            )
        self.steps_per_epoch = -(-self._batches // config.optim.accumulate)

    def run_epoch(self, epoch: int, on_step: Callable[[], None]) -> EpochTotals:
        """Train one epoch; its randomness depends on seed, epoch and process, not on what ran before.

        Raises:
            PointLiftError: Loss or gradient is not finite.
        """
        seed_everything(derive(self.config.seed, "epoch", epoch, distributed.rank()))
        self.loader.set_epoch(epoch)
        self.module.train()
        device = self.precision.device
        meter = Meter(device, skips=self.scaler.is_enabled())
        every = 1 if device.type == "cpu" else _CHECK_EVERY
        samples = 0
        batches = itertools.islice(self.loader, self._batches)
        for step, group in enumerate(_groups(batches, self.config.optim.accumulate)):
            samples += self._step(epoch, step, group, meter)
            if (step + 1) % every == 0:
                meter.check(epoch, self.precision.name)
            on_step()
        meter.check(epoch, self.precision.name)
        distributed.broadcast_buffers(self.module)
        total = distributed.all_reduce_sum(torch.tensor(samples))
        lr = self._rate(epoch, self.steps_per_epoch - 1)
        return EpochTotals(lr, meter.means(), int(total), meter.skipped())

    def _step(self, epoch: int, step: int, group: list[Batch], meter: Meter) -> int:
        """One optimiser step over a group of batches; returns the samples of this process."""
        set_learning_rate(self.optimizer, self._rate(epoch, step))
        progress = (epoch + step / self.steps_per_epoch) / self.config.epochs
        sizes = [batch_size(batch) for batch in group]
        samples = _samples_per_process(sum(sizes), self.precision.device)
        loss: Tensor | float = 0.0
        for last, (batch, size) in _mark_last(zip(group, sizes, strict=True)):
            with self._reduce_gradients(last):
                with self.precision.autocast():
                    out = self._model(to_device(batch, self.precision.device), progress)
                self.scaler.scale(out["loss"] * (size / samples)).backward()
            for name, value in out.items():
                meter.add(name, value, size)
            loss = loss + out["loss"].detach() * (size / sum(sizes))
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.optimizer, self.config.optim.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        meter.step(step, torch.as_tensor(loss), norm)
        return sum(sizes)

    def _rate(self, epoch: int, step: int) -> float:
        return learning_rate(
            self.config.schedule,
            lr=self.config.optim.lr,
            epochs=self.config.epochs,
            steps_per_epoch=self.steps_per_epoch,
            epoch=epoch,
            step=step,
        )

    def _reduce_gradients(self, last: bool) -> AbstractContextManager[object]:
        """Gradients cross processes once per optimiser step, with its last batch."""
        if last or not isinstance(self._model, DistributedDataParallel):
            return nullcontext()
        return self._model.no_sync()


class _Losses(nn.Module):
    """Module and losses as one forward pass: DDP wraps this, and `losses` sees the module itself."""

    def __init__(self, module: nn.Module, losses: Losses) -> None:
        super().__init__()
        self.module, self.losses = module, losses
        # Nothing ever uses it: DDP warns when it is told to expect unused parameters and finds none.
        self.unused = nn.Parameter(torch.zeros(1, device=next(module.parameters()).device))

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        out = self.losses(self.module, batch, progress)
        # DDP takes parameters for used that any output leads to; only the loss is differentiated.
        return {name: value if name == "loss" else value.detach() for name, value in out.items()}


def _wrap(model: _Losses) -> nn.Module:
    """`model` under DDP if there are several processes; parameters without a gradient are allowed."""
    if distributed.world_size() == 1:
        return model
    # Buffers are not sent before every step: `run_epoch` does it once at the end. torch 2.13 renames the option.
    known = inspect.signature(DistributedDataParallel).parameters
    buffers: dict[str, Any] = {
        "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False
    }
    return DistributedDataParallel(model, find_unused_parameters=True, gradient_as_bucket_view=True, **buffers)


def _samples_per_process(samples: int, device: torch.device) -> Tensor | float:
    """Mean over processes of `samples`: a batch of n weighs n over it.

    DDP averages gradients over processes as if all had equally many samples; with these weights the loss is
    the mean over all samples of the step, also when the last batches differ in size.
    """
    world = distributed.world_size()
    if world == 1:
        return samples
    return distributed.all_reduce_sum(torch.full((), float(samples), device=device)) / world


def _groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    iterator = iter(batches)
    while group := list(itertools.islice(iterator, size)):
        yield group


def _mark_last(items: Iterable[Any]) -> Iterator[tuple[bool, Any]]:
    listed = list(items)
    return ((i == len(listed) - 1, item) for i, item in enumerate(listed))


def batch_size(batch: Batch) -> int:
    """Samples in a batch: rows of `index`, else segments of `offsets` (B+1,), else rows of the first tensor."""
    if "index" in batch:
        return len(batch["index"])
    if "offsets" in batch:
        return len(batch["offsets"]) - 1
    return next(len(value) for value in batch.values() if isinstance(value, Tensor))


def to_device(batch: Batch, device: torch.device) -> dict[str, Any]:
    """`batch` with its tensors on `device`; the copy does not wait if they are pinned."""
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value for key, value in batch.items()
    }
