"""A problem that trains in milliseconds: a small network with BatchNorm and dropout on random vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from pointlift.core.seeds import derive
from pointlift.engine import FitConfig, FitResult, Loaders, OptimConfig, ScheduleConfig, fit
from pointlift.engine.distributed import all_reduce_sum
from pointlift.engine.training import to_device

CLASSES, WIDTH = 3, 6


class Batches:
    """Seeded batches of one rank's share; the last batch may be short.

    Args:
        sizes: Samples per batch, over all ranks.
        rank: This process: it gets the samples `rank::world_size` of every batch.
        world_size: Number of processes.
        shuffle: Whether every epoch has other samples.
    """

    def __init__(
        self, sizes: list[int], *, seed: int = 0, rank: int = 0, world_size: int = 1, shuffle: bool = True
    ) -> None:
        self.sizes, self.seed, self.rank, self.world_size, self.shuffle = sizes, seed, rank, world_size, shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch if self.shuffle else 0

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for i, size in enumerate(self.sizes):
            generator = torch.Generator().manual_seed(derive(self.seed, self.epoch, i))
            x = torch.randn(size, WIDTH, generator=generator)
            batch = {"x": x, "label": x[:, :CLASSES].argmax(1), "index": torch.arange(size)}
            yield {key: value[self.rank :: self.world_size] for key, value in batch.items()}


def network(*, dropout: float = 0.2, batchnorm: bool = True, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    norm = nn.BatchNorm1d(16) if batchnorm else nn.LayerNorm(16)
    return nn.Sequential(nn.Linear(WIDTH, 16), norm, nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, CLASSES))


def losses(module: nn.Module, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
    logits = module(batch["x"]).float()
    return {
        "loss": nn.functional.cross_entropy(logits, batch["label"]),
        "accuracy": (logits.argmax(1) == batch["label"]).float().mean(),
    }


def evaluate(module: nn.Module, loader: Batches) -> dict[str, float]:
    """Loss and accuracy over the samples of all processes."""
    sums = torch.zeros(3, dtype=torch.float64)
    device = next(module.parameters()).device
    for batch in (to_device(batch, device) for batch in loader):
        logits = module(batch["x"]).float()
        loss = nn.functional.cross_entropy(logits, batch["label"], reduction="sum")
        right = (logits.argmax(1) == batch["label"]).sum()
        sums += torch.tensor([loss.item(), right.item(), len(logits)], dtype=torch.float64)
    loss, right, total = all_reduce_sum(sums).tolist()
    return {"loss": loss / total, "overall_accuracy": right / total}


def config(epochs: int = 4, **changes: object) -> FitConfig:
    optim = OptimConfig(lr=1e-2, accumulate=2, grad_clip=1.0)
    values: dict[str, object] = {
        "epochs": epochs,
        "precision": "fp32",
        "optim": optim,
        "schedule": ScheduleConfig(warmup_epochs=1),
    }
    return FitConfig(**{**values, **changes})  # type: ignore[arg-type]


def loaders(*, rank: int = 0, world_size: int = 1) -> Loaders:
    """Four batches of 8 and one of 5; validation and test are fixed. The parts are those of one process."""
    share = {"rank": rank, "world_size": world_size}
    return Loaders(
        Batches([8, 8, 8, 8, 5], **share),
        {
            "val": Batches([16, 9], seed=1, shuffle=False, **share),
            "test": Batches([16], seed=2, shuffle=False, **share),
        },
    )


def run(out: Path, *, resume: bool = False, epochs: int = 4, **changes: object) -> tuple[nn.Module, FitResult]:
    """One process's run of the toy; `changes` are fields of `FitConfig`."""
    module = network()
    result = fit(module, losses, loaders(), config(epochs, **changes), out, evaluate=evaluate, resume=resume)
    return module, result
