"""How a run is configured: optimiser, schedule, loop. No torch here, so the command line reads it quickly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser, weight decay, clipping and accumulation."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    """Optimiser; every one runs fused where the device has a fused kernel."""
    lr: float = 5e-4
    """Peak learning rate; the schedule says how it is reached and left."""
    weight_decay: float = 0.05
    """Decay of the parameters that `no_weight_decay` does not exempt."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Averages of gradient and squared gradient (adam, adamw)."""
    momentum: float = 0.9
    """Momentum (sgd)."""
    grad_clip: float | None = 10.0
    """Largest norm of the whole gradient, after unscaling; None does not clip."""
    accumulate: int = 1
    """Loader batches per optimiser step; k batches of n weigh like one of k·n."""
    no_weight_decay: Literal["released", "standard"] = "standard"
    """`standard`: biases, 1-D tensors and what a module lists in `no_weight_decay()` are exempt; `released`:
    biases, 1-D tensors and every name that contains "token", the rule of the Point-BERT family."""
    lr_scales: dict[str, float] = field(default_factory=dict)
    """Factor on the learning rate per parameter-name prefix; the longest prefix wins."""

    def __post_init__(self) -> None:
        _require(self.lr > 0, f"lr must be above 0, not {self.lr}")
        _require(self.weight_decay >= 0, f"weight_decay must be 0 or more, not {self.weight_decay}")
        _require(all(0 <= b < 1 for b in self.betas), f"betas must be in [0, 1), not {self.betas}")
        _require(0 <= self.momentum < 1, f"momentum must be in [0, 1), not {self.momentum}")
        _require(
            self.grad_clip is None or self.grad_clip > 0,
            f"grad_clip must be above 0, or none to not clip; not {self.grad_clip}",
        )
        _require(self.accumulate >= 1, f"accumulate must be 1 or more batches, not {self.accumulate}")
        for prefix, scale in self.lr_scales.items():
            _require(scale >= 0, f"lr_scales of {prefix!r} must be 0 or more, not {scale}")


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate moves over the run; `engine.schedules` holds the formulas."""

    name: Literal["cosine", "released_cosine", "constant"] = "cosine"
    """`cosine`: per step, ends at `min_lr`; `released_cosine`: per epoch and one late, as released."""
    warmup_epochs: float = 10
    """Linear warm-up (not for `constant`); `cosine` caps it at half of the run, so that short runs decay."""
    warmup_lr: float = 1e-6
    """Rate at the first step of the warm-up."""
    min_lr: float = 1e-6
    """Rate at the end of the cosine."""
    t_initial: int | None = None
    """Length of the released cosine in epochs; None is `epochs - 1`: upstream trains one pass more."""

    def __post_init__(self) -> None:
        _require(self.warmup_epochs >= 0, f"warmup_epochs must be 0 or more, not {self.warmup_epochs}")
        _require(self.warmup_lr >= 0, f"warmup_lr must be 0 or more, not {self.warmup_lr}")
        _require(self.min_lr >= 0, f"min_lr must be 0 or more, not {self.min_lr}")
        _require(
            self.t_initial is None or self.t_initial >= 1,
            f"t_initial must be 1 or more epochs, or none; not {self.t_initial}",
        )


@dataclass(frozen=True)
class FitConfig:
    """One training run."""

    epochs: int = 300
    """Passes over the training split."""
    seed: int = 0
    """All randomness of the run is derived from it."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto`: bf16 where the device computes it natively, else fp32."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Learning rate over time."""
    select: Literal["validation", "last", "test"] = "validation"
    """Which weights the run ends with: best on the held-out validation split, the last ones, or (only when
    asked for, and recorded so) best on the test split."""
    metric: str = "overall_accuracy"
    """Evaluation metric that `select` compares; of equal values the one with the lower loss is taken."""
    mode: Literal["max", "min"] = "max"
    """Whether a higher or a lower metric is better."""
    eval_every: int = 1
    """Evaluate after every n-th epoch, and after the last."""
    checkpoint_every: int = 1
    """Checkpoint after every n-th epoch, after the last, and after each new best."""
    sync_batchnorm: bool = True
    """Several processes: BatchNorm statistics over the batches of all of them."""
    tensorboard: bool = False
    """Write TensorBoard files besides `metrics.jsonl` (extra `log`)."""

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, f"epochs must be 1 or more, not {self.epochs}")
        _require(self.eval_every >= 1, f"eval_every must be 1 or more epochs, not {self.eval_every}")
        _require(
            self.checkpoint_every >= 1,
            f"checkpoint_every must be 1 or more epochs, not {self.checkpoint_every}",
        )
        _require(bool(self.metric), "metric must name a number that the evaluation gives")
