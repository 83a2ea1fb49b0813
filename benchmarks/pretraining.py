"""Samples per second of a whole pre-training step on one CPU thread: ours against the released formulation.

    python -m benchmarks.pretraining [--quick] [--only NAME] [--json docs/results/pretraining_speed.json]

A step is augmentation, grouping, forward pass, backward pass and optimiser, in fp32. `benchmarks/released` re-creates
the released formulation from the method cards, in plain PyTorch (the released CUDA extensions have no CPU build). Both
sides have the same weights and sizes and ours has the released quirks: before anything is timed, the losses of one
batch under the same masks, noise and drop path must agree within 1e-4. The two take turns within each round; numbers
are medians of CPU time (other processes may run beside).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.ops import machine
from benchmarks.released.parts import group, scale_and_translate
from benchmarks.released.point_bert import GROUPS, SIZE, DiscreteVAE, PointBERT, block_mask
from benchmarks.released.point_m2ae import PointM2AE
from benchmarks.released.point_mae import PointMAE
from pointlift.data.batches import collate
from pointlift.data.config import AugmentConfig
from pointlift.data.pipeline import CloudTransform
from pointlift.engine.config import OptimConfig
from pointlift.engine.optim import build_optimizer
from pointlift.pretrain.objective import Objective
from pointlift.pretrain.registry import create_objective
from pointlift.weights.load import load_state
from pointlift.weights.upstream import point_bert, point_m2ae, point_mae
from pointlift.weights.upstream.base import Renamed

AGREE = 1e-4
GOALS = {"Point-MAE": 1.6}


@dataclass
class Case:
    """One objective at one size, in both formulations."""

    name: str
    batch: int
    points: int
    released: Callable[[], nn.Module]
    ours: Callable[[], Objective]
    rename: Callable[[dict[str, Tensor]], Renamed]
    lr: float
    weight_decay: float = 0.05


@dataclass
class Row:
    """Medians, in samples per second of CPU time."""

    name: str
    batch: int
    points: int
    rounds: int
    released: float
    ours: float
    ratio: float
    goal: float | None
    losses: tuple[float, float]


def cases(scale: int) -> Iterator[Case]:
    """All cases; `scale` divides the batch sizes."""
    yield Case(
        "Point-MAE",
        8 // scale,
        1024,
        PointMAE,
        lambda: create_objective("masked", "point_mae_base", quirks="upstream"),
        point_mae.rename_pretrain,
        1e-3,
    )
    yield Case(
        "Point-MAE, point_mae_tiny",
        32 // scale,
        1024,
        lambda: PointMAE(64, 16, 192, 4, 3, 2, 3, (32, 64, 128), 64),
        lambda: create_objective("masked", "point_mae_tiny", quirks="upstream", decoder_depth=2, decoder_heads=3),
        point_mae.rename_pretrain,
        1e-3,
    )
    yield Case(
        "Point-M2AE",
        4 // scale,
        2048,
        PointM2AE,
        lambda: create_objective("hierarchical", quirks="upstream", predicted_points=16),
        point_m2ae.rename_pretrain,
        1e-3,
    )
    yield Case(
        "Point-BERT, dVAE",
        4 // scale,
        1024,
        DiscreteVAE,
        lambda: create_objective("dvae", quirks="upstream"),
        point_bert.rename_dvae,
        5e-4,
        5e-4,
    )
    yield Case(
        "Point-BERT",
        4 // scale,
        1024,
        PointBERT,
        lambda: create_objective("bert", quirks="upstream"),
        point_bert.rename_pretrain,
        5e-4,
    )


def clouds(count: int, points: int) -> Tensor:
    """Random ellipsoids (B, N, 3) within the unit sphere."""
    xyz = torch.nn.functional.normalize(torch.randn(count, points, 3), dim=-1)
    return xyz * (0.3 + 0.7 * torch.rand(count, 1, 3))


class Pair:
    """Both formulations of a case with the same weights, each with its optimiser and the same clouds."""

    def __init__(self, case: Case) -> None:
        self.case, self.xyz = case, clouds(case.batch, case.points)
        self.released, self.ours = case.released().train(), case.ours()
        load_state(self.ours, case.rename(self.released.state_dict()).state)
        self.ours.train()
        learned = [p for p in self.released.parameters() if p.requires_grad]
        decayed = [p for p in learned if p.ndim > 1]
        groups = [{"params": decayed, "weight_decay": case.weight_decay}]
        groups.append({"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0})
        self.released_optimizer = torch.optim.AdamW(groups, lr=case.lr)
        self.optimizer = build_optimizer(self.ours, OptimConfig(lr=case.lr, weight_decay=case.weight_decay))
        self.samples = [{"xyz": xyz.numpy()} for xyz in self.xyz]
        self.transform = CloudTransform(case.points, "train", normalize="none", augment=AugmentConfig())
        self.rng = np.random.default_rng(0)

    @torch.no_grad()
    def losses(self) -> tuple[float, float]:
        """Of one batch under the same masks and noise, and the same seed for drop path."""
        given = self.released.draw(len(self.xyz))
        if isinstance(self.released, PointBERT):
            center = group(self.xyz, GROUPS, SIZE)[1]
            given |= {f"mask_{name}": block_mask(center) for name in ("query", "mixed", "key")}
        torch.manual_seed(1)
        released = self.released(self.xyz, **given)
        torch.manual_seed(1)
        ours = self.ours({"xyz": self.xyz}, {}, 0.0, given=given).total
        return float(released), float(ours)

    def released_step(self) -> None:
        xyz = scale_and_translate(self.xyz.clone())
        self.released(xyz, **self.released.draw(len(xyz))).backward()
        self.released_optimizer.step()
        self.released.zero_grad()

    def step(self) -> None:
        batch = collate([self.transform.draw(sample, self.rng) for sample in self.samples])
        noise = self.ours.draw(batch, torch.default_generator)
        self.ours(batch, noise, 0.0).total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(case: Case, most: int, budget: float) -> Row:
    """`most` rounds, fewer (but two) where they take `budget` CPU seconds."""
    torch.manual_seed(0)
    pair = Pair(case)
    losses = pair.losses()
    if abs(losses[0] - losses[1]) > AGREE:
        raise SystemExit(f"{case.name}: the released formulation's loss is {losses[0]}, ours {losses[1]}")
    pair.released_step()  # the first steps compile and allocate
    pair.step()
    taken: list[tuple[float, float]] = []
    while len(taken) < most and (len(taken) < 2 or sum(map(sum, taken)) < budget):
        taken.append((seconds(pair.released_step), seconds(pair.step)))
    released, ours = (statistics.median(times) for times in zip(*taken, strict=True))
    return Row(
        name=case.name,
        batch=case.batch,
        points=case.points,
        rounds=len(taken),
        released=case.batch / released,
        ours=case.batch / ours,
        ratio=released / ours,
        goal=GOALS.get(case.name),
        losses=losses,
    )


def show(row: Row) -> None:
    goal = f"  (goal {row.goal:g}x)" if row.goal else ""
    print(
        f"{row.name:<27}{row.batch:>4} x {row.points:<6}{row.released:>9.2f}{row.ours:>9.2f}{row.ratio:>7.2f}x{goal}",
        flush=True,
    )


def main() -> None:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller batches, two rounds")
    parser.add_argument("--only", default="", help="only objectives whose name contains this")
    parser.add_argument("--json", type=Path, help="write the record here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'objective':<27}{'batch':>4}   {'points':<6}{'released':>9}{'ours':>9}   ratio")
    rows = []
    for case in cases(2 if options.quick else 1):
        if options.only.lower() in case.name.lower():
            rows.append(measure(case, *((2, 0.0) if options.quick else (7, 40.0))))
            show(rows[-1])
    record: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.pretraining", *sys.argv[1:]]),
        "what": "samples per second of one pre-training step (CPU time, fp32, one thread), medians; 'released' is the "
        "released formulation re-created in plain PyTorch: its CUDA extensions have no CPU build",
        "rows": [asdict(row) for row in rows],
        "machine": machine(),
    }
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
