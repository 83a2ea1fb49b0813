from __future__ import annotations

import math

import pytest
import torch
from engine_toy import Batches, config, losses, network
from torch import Tensor, nn

from pointlift.core.errors import DataError, PointLiftError
from pointlift.engine.config import FitConfig, OptimConfig, ScheduleConfig
from pointlift.engine.precision import resolve_precision
from pointlift.engine.training import Trainer, batch_size, to_device

CPU = torch.device("cpu")


class Fixed:
    """The same samples every epoch, cut into batches of these sizes."""

    def __init__(self, sizes: list[int]) -> None:
        whole = next(iter(Batches([sum(sizes)], shuffle=False)))
        self.batches = [
            dict(zip(whole, parts, strict=True))
            for parts in zip(*(v.split(sizes) for v in whole.values()), strict=True)
        ]
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


def trained(sizes: list[int], *, accumulate: int, epochs: int = 3, **optim: object) -> tuple[nn.Module, list]:
    module = network(dropout=0, batchnorm=False)
    run = FitConfig(
        epochs,
        precision="fp32",
        optim=OptimConfig(**{"lr": 0.1, "accumulate": accumulate, **optim}),  # type: ignore[arg-type]
        schedule=ScheduleConfig("constant"),
    )
    trainer = Trainer(module, losses, Fixed(sizes), run, resolve_precision("fp32", CPU))
    totals = [trainer.run_epoch(epoch, lambda: None) for epoch in range(epochs)]
    return module, totals


@pytest.mark.parametrize(
    ("sizes", "accumulate", "big"),
    [
        ([4, 4, 4], 3, [12]),
        ([4, 4, 3], 3, [11]),  # a short batch in the group
        ([4, 4, 4, 4, 2], 2, [8, 8, 2]),  # a short last group
        ([4, 4], 5, [8]),  # a group longer than the epoch
    ],
)
def test_accumulation_equals_the_big_batch(sizes: list[int], accumulate: int, big: list[int]) -> None:
    few, small = trained(sizes, accumulate=accumulate, name="sgd", grad_clip=0.5)
    one, large = trained(big, accumulate=1, name="sgd", grad_clip=0.5)
    for a, b in zip(few.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    for a, b in zip(small, large, strict=True):
        assert a.train == pytest.approx(b.train, rel=1e-5)
        assert a.samples == b.samples == sum(sizes)


def test_an_epoch_depends_on_seed_and_epoch_only() -> None:
    def third(before: int) -> Tensor:
        module = network(dropout=0.5)
        trainer = Trainer(module, losses, Batches([8, 8]), config(5), resolve_precision("fp32", CPU))
        start = {k: v.clone() for k, v in module.state_dict().items()}
        for epoch in range(before):
            trainer.run_epoch(epoch, lambda: None)
        fresh = Trainer(module, losses, Batches([8, 8]), config(5), resolve_precision("fp32", CPU))
        module.load_state_dict(start)
        fresh.run_epoch(2, lambda: None)
        return module[0].weight.detach().clone()

    assert torch.equal(third(0), third(2))


def test_rate_and_progress_move_per_step() -> None:
    seen: list[tuple[float, float]] = []
    module = network()

    def spy(net: nn.Module, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        seen.append((progress, trainer.optimizer.param_groups[0]["lr"]))
        return losses(net, batch, progress)

    run = FitConfig(2, optim=OptimConfig(lr=1.0, accumulate=2), schedule=ScheduleConfig(warmup_epochs=0, min_lr=0.0))
    trainer = Trainer(module, spy, Batches([4, 4, 4]), run, resolve_precision("fp32", CPU))
    steps: list[int] = []
    totals = [trainer.run_epoch(epoch, lambda: steps.append(1)) for epoch in range(2)]
    assert len(steps) == 4 == 2 * trainer.steps_per_epoch
    assert [progress for progress, _ in seen] == [0, 0, 0.25, 0.5, 0.5, 0.75]
    expected = [0.5 * (1 + math.cos(math.pi * s / 3)) for s in (0, 0, 1, 2, 2, 3)]
    assert [rate for _, rate in seen] == pytest.approx(expected)
    assert [t.lr for t in totals] == pytest.approx([expected[2], expected[-1]])


def test_the_module_decides_what_training_mode_means() -> None:
    class Frozen(nn.Sequential):
        def train(self, mode: bool = True) -> Frozen:
            super().train(mode)
            self[1].eval()
            return self

    module = Frozen(*network())
    mean = module[1].running_mean.clone()
    Trainer(module, losses, Batches([8]), config(1), resolve_precision("fp32", CPU)).run_epoch(0, lambda: None)
    assert torch.equal(module[1].running_mean, mean)
    assert module[3].training


@pytest.mark.parametrize(("step", "place"), [(0, "epoch 2, step 0"), (3, "epoch 2, step 3")])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_number_that_is_not_finite_stops_the_run(step: int, place: str, what: str) -> None:
    calls = 0

    def broken(net: nn.Module, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        nonlocal calls
        out = losses(net, batch, progress)
        if calls == step:
            # The square root of 0 is finite and its slope is not.
            bad = torch.sqrt(out["loss"] * 0) if what == "gradient" else out["loss"] * math.nan
            out["loss"] = out["loss"] + bad
        calls += 1
        return out

    run = config(4, optim=OptimConfig())
    trainer = Trainer(network(), broken, Batches([8] * 5), run, resolve_precision("fp32", CPU))
    match = f"{'the loss is nan' if what == 'loss' else 'the gradient norm is'}.* in {place}.*optim.lr"
    with pytest.raises(PointLiftError, match=match):
        trainer.run_epoch(2, lambda: None)


def fp16_trainer(overflow: set[int], steps: int) -> Trainer:
    calls = 0

    def overflowing(net: nn.Module, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        nonlocal calls
        out = losses(net, batch, progress)
        if calls in overflow:
            out["loss"] = out["loss"] * 1e36  # infinite once it is scaled
        calls += 1
        return out

    run = config(1, optim=OptimConfig(lr=1e-3))
    return Trainer(network(), overflowing, Batches([8] * steps), run, resolve_precision("fp16", CPU))


def test_fp16_skips_and_counts_overflows() -> None:
    trainer = fp16_trainer({1, 2}, 5)
    before = trainer.scaler.get_scale()
    totals = trainer.run_epoch(0, lambda: None)
    assert totals.skipped == 2
    assert trainer.scaler.get_scale() == before / 4
    assert all(torch.isfinite(p).all() for p in trainer.module.parameters())
    state = trainer.optimizer.state[trainer.module[0].weight]
    assert int(state["step"]) == 3
    assert math.isfinite(totals.train["grad_norm"])


def test_fp16_goes_on_while_steps_succeed_in_between() -> None:
    totals = fp16_trainer(set(range(0, 110, 2)), 110).run_epoch(0, lambda: None)
    assert totals.skipped == 55


def test_fp16_that_only_overflows_stops() -> None:
    with pytest.raises(PointLiftError, match=r"in 50 steps in a row.*precision fp32"):
        fp16_trainer(set(range(60)), 60).run_epoch(0, lambda: None)


def test_no_batch_is_an_error() -> None:
    with pytest.raises(DataError, match="no batch"):
        Trainer(network(), losses, Batches([]), config(1), resolve_precision("fp32", CPU))


def test_batch_size_counts_samples() -> None:
    assert batch_size({"xyz": torch.zeros(7, 3), "index": torch.arange(4)}) == 4
    assert batch_size({"xyz": torch.zeros(7, 3), "offsets": torch.tensor([0, 3, 7])}) == 2
    assert batch_size({"names": ["a"], "x": torch.zeros(5, 3)}) == 5


def test_only_tensors_move() -> None:
    moved = to_device({"x": torch.zeros(2), "names": ["a", "b"]}, torch.device("meta"))
    assert moved["x"].device.type == "meta"
    assert moved["names"] == ["a", "b"]
