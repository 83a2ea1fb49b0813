"""Helper process of test_distributed.py, started twice by torchrun: runs every case and writes what it saw."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import engine_toy
import torch
from engine_toy import Batches, config, evaluate, losses, network
from torch import Tensor, nn

from pointlift.core.errors import PointLiftError
from pointlift.engine import FitConfig, Loaders, distributed, fit
from pointlift.engine.config import OptimConfig, ScheduleConfig

EPOCHS = 3


def equal_config(**changes: object) -> FitConfig:
    """SGD, so that a rounding difference in a gradient stays one in the weights."""
    optim = OptimConfig("sgd", lr=0.1, accumulate=2, grad_clip=0.5)
    return config(EPOCHS, optim=optim, schedule=ScheduleConfig("constant"), **changes)


class Branches(nn.Module):
    """`never` gets no gradient; `sometimes` gets one from the first batch of a step only."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network(dropout=0, batchnorm=False)
        self.never = nn.Linear(3, 3)
        torch.manual_seed(5)
        self.sometimes = nn.Linear(3, 3)

    def head(self, x: Tensor, *, extra: bool) -> Tensor:
        """Not `forward`: losses may call what they like."""
        x = self.net(x)
        return x + self.sometimes(x) if extra else x


def branch_losses(module: nn.Module, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
    # Five batches per epoch in steps of two: the sizes tell them apart in every process.
    logits = module.head(batch["x"], extra=bool(batch["first"].any()))
    return {"loss": nn.functional.cross_entropy(logits, batch["label"])}


class Marked(Batches):
    """Says of every other batch that it is the first of a step."""

    def __iter__(self):
        for i, batch in enumerate(super().__iter__()):
            yield {**batch, "first": torch.full((len(batch["x"]),), i % 2 == 0)}


def share() -> dict[str, int]:
    return {"rank": distributed.rank(), "world_size": distributed.world_size()}


def plain(out: Path) -> dict[str, object]:
    return _trained(network(dropout=0, batchnorm=False), out, losses, engine_toy.loaders(**share()))


def batchnorm(out: Path) -> dict[str, object]:
    return _trained(network(dropout=0), out, losses, engine_toy.loaders(**share()))


def branches(out: Path) -> dict[str, object]:
    loaders = Loaders(Marked([8, 8, 8, 8, 5], **share()))
    return _trained(Branches(), out, branch_losses, loaders, select="last")


def _trained(module: nn.Module, out: Path, losses: Callable, loaders: Loaders, **changes: object) -> dict[str, object]:
    seen: list[int] = []
    result = fit(
        module,
        losses,
        loaders,
        equal_config(**changes),
        out,
        evaluate=evaluate,
        on_epoch=lambda line: seen.append(line["epoch"]),
    )
    return {
        "weights": module.state_dict(),
        "epoch": result.epoch,
        "samples": result.samples_seen,
        "metrics": result.metrics,
        "train": [line["train"] for line in result.history],
        "shown": seen,
    }


def uneven(out: Path) -> dict[str, object]:
    """One process has a batch less: no one may wait for it."""
    loaders = Loaders(Batches([8] * (4 - distributed.rank())))
    module = network()
    result = fit(module, losses, loaders, equal_config(select="last"), out, evaluate=evaluate)
    return {"weights": module.state_dict(), "samples": result.samples_seen}


def own_batchnorm(out: Path) -> dict[str, object]:
    """Plain BatchNorms see other batches in each process; all end with the main one's."""
    module = network()
    run = equal_config(sync_batchnorm=False, select="last")
    fit(module, losses, engine_toy.loaders(**share()), run, out, evaluate=evaluate)
    return {"weights": module.state_dict()}


def resumed(out: Path) -> dict[str, object]:
    """Stopped after the first epoch in every process, and resumed, with dropout."""

    def run(folder: Path, *, stop: bool = False, resume: bool = False) -> dict[str, Tensor]:
        def losses_until(net: nn.Module, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
            if stop and progress >= 1 / EPOCHS:
                raise InterruptedError
            return losses(net, batch, progress)

        module = network(dropout=0.3)
        loaders = engine_toy.loaders(**share())
        fit(module, losses_until, loaders, equal_config(), folder, evaluate=evaluate, resume=resume)
        return {name: tensor.clone() for name, tensor in module.state_dict().items()}

    whole = run(out / "whole")
    try:
        run(out / "parts", stop=True)
    except InterruptedError:
        distributed.barrier()
    parts = run(out / "parts", resume=True)
    return {"same": all(torch.equal(whole[name], parts[name]) for name in whole)}


def refused(out: Path) -> dict[str, object]:
    """What the main process finds wrong is raised in all of them."""
    out.mkdir(exist_ok=True)
    (out / "metrics.jsonl").touch()
    distributed.barrier()
    try:
        engine_toy.run(out)
    except PointLiftError as error:
        return {"error": str(error)}
    return {"error": ""}


def evaluation(out: Path) -> dict[str, object]:
    module = network(seed=3).eval()
    with torch.no_grad():
        return {"metrics": evaluate(module, engine_toy.loaders(**share()).evals["val"])}


CASES = [plain, batchnorm, branches, uneven, own_batchnorm, resumed, refused, evaluation]


def main(out: Path) -> None:
    torch.set_num_threads(1)
    before = (distributed.rank(), distributed.world_size())
    with distributed.process_group("cpu") as device:
        rank = distributed.rank()
        seen: dict[str, object] = {
            "before": before,
            "world": (distributed.world_size(), distributed.is_main(), device.type),
            "from_environment": int(os.environ["RANK"]),
        }
        for case in CASES:
            seen[case.__name__] = case(out / case.__name__)
            distributed.barrier()
        torch.save(seen, out / f"rank{rank}.pt")
    assert not distributed.is_initialized()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
