"""Learning rates as pure functions of the position in the run. No torch, no state."""

from __future__ import annotations

import math

from pointlift.engine.config import ScheduleConfig


def learning_rate(
    schedule: ScheduleConfig, *, lr: float, epochs: int, steps_per_epoch: int, epoch: int, step: int
) -> float:
    """The rate of optimiser step `step` (from 0) of epoch `epoch` (from 0).

    Args:
        schedule: Which formula, with its warm-up and floor.
        lr: Peak rate.
        epochs: Epochs of the whole run.
        steps_per_epoch: Optimiser steps per epoch.
        epoch: Position of the epoch in the run.
        step: Position of the step in the epoch.
    """
    if schedule.name == "constant":
        return lr
    if schedule.name == "cosine":
        total = epochs * steps_per_epoch
        return cosine(
            epoch * steps_per_epoch + step,
            total,
            lr=lr,
            warmup_steps=min(round(schedule.warmup_epochs * steps_per_epoch), total // 2),
            warmup_lr=schedule.warmup_lr,
            min_lr=schedule.min_lr,
        )
    return _released_value(
        max(0, epoch - 1),
        lr=lr,
        warmup_epochs=schedule.warmup_epochs,
        warmup_lr=schedule.warmup_lr,
        min_lr=schedule.min_lr,
        t_initial=max(1, epochs - 1) if schedule.t_initial is None else schedule.t_initial,
    )


def cosine(step: int, total_steps: int, *, lr: float, warmup_steps: int, warmup_lr: float, min_lr: float) -> float:
    """Linear from `warmup_lr` to `lr` over `warmup_steps`, then half a cosine.

    Step `warmup_steps` runs at `lr` and the very last step at `min_lr`.
    """
    if step < warmup_steps:
        return warmup_lr + (lr - warmup_lr) * step / warmup_steps
    way = (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps)
    return min_lr + 0.5 * (lr - min_lr) * (1 + math.cos(math.pi * way))


def released_cosine(
    epochs: int, *, lr: float, warmup_epochs: float, warmup_lr: float, min_lr: float, t_initial: int
) -> list[float]:
    """The rate in force in each epoch of the released Point-BERT family runs.

    They use the cosine of timm 0.4.5, whose time is not restarted after the warm-up, and step it with `e`
    only after epoch `e`: epochs 0 and 1 both run at the initial rate and every later one is an epoch late.

    Args:
        epochs: Passes over the data; upstream runs one more than it says (301, 151).
        lr: Peak rate.
        warmup_epochs: Length of the linear warm-up.
        warmup_lr: Rate at its start.
        min_lr: Rate at the end of the cosine, and after it.
        t_initial: Length of the cosine in epochs, warm-up included.
    """
    return [
        _released_value(
            max(0, epoch - 1),
            lr=lr,
            warmup_epochs=warmup_epochs,
            warmup_lr=warmup_lr,
            min_lr=min_lr,
            t_initial=t_initial,
        )
        for epoch in range(epochs)
    ]


def _released_value(
    t: int, *, lr: float, warmup_epochs: float, warmup_lr: float, min_lr: float, t_initial: int
) -> float:
    """What the scheduler answers for time `t`: warm-up, one cosine cycle, then the floor."""
    if t < warmup_epochs:
        return warmup_lr + t * (lr - warmup_lr) / warmup_epochs
    if t >= t_initial:
        return min_lr
    return min_lr + 0.5 * (lr - min_lr) * (1 + math.cos(math.pi * t / t_initial))
