"""The loop on a GPU; these run only where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engine_toy import Batches, config, evaluate, loaders, losses, network
from torch import Tensor, nn

from pointlift.engine import FitResult, distributed, fit
from pointlift.engine.batchnorm import convert_sync_batchnorm
from pointlift.engine.checkpoint import Checkpoints
from pointlift.engine.config import OptimConfig
from pointlift.engine.precision import resolve_precision
from pointlift.engine.training import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def run(out: Path, *, precision: str, epochs: int = 4, resume: bool = False) -> FitResult:
    return fit(
        network(),
        losses,
        loaders(),
        config(epochs, precision=precision, optim=OptimConfig(lr=1e-2)),
        out,
        evaluate=evaluate,
        resume=resume,
        device="cuda",
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_trains_close_to_the_cpu(tmp_path: Path, precision: str) -> None:
    """Without dropout the arithmetic is the CPU's up to the number format."""
    found = []
    for device, name in (("cpu", "fp32"), ("cuda", precision)):
        module = network(dropout=0)
        optim = OptimConfig("sgd", lr=0.05, accumulate=2)
        run = config(3, precision=name, optim=optim)
        result = fit(module, losses, loaders(), run, tmp_path / device, evaluate=evaluate, device=device)
        found.append([line["train"]["loss"] for line in result.history])
    assert found[1] == pytest.approx(found[0], rel=1e-4 if precision == "fp32" else 3e-2)
    assert "peak_memory_mb" in result.history[0]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_finished_run_resumes_with_its_result(tmp_path: Path, precision: str) -> None:
    whole = run(tmp_path, precision=precision)
    again = run(tmp_path, precision=precision, resume=True)
    assert (again.epoch, again.metrics) == (whole.epoch, pytest.approx(whole.metrics))


def test_resuming_from_an_earlier_epoch(tmp_path: Path) -> None:
    whole = run(tmp_path, precision="fp32")
    Checkpoints(tmp_path / "checkpoints").path(3).unlink()
    again = run(tmp_path, precision="fp32", resume=True)
    assert again.samples_seen == whole.samples_seen
    losses_seen = [[line["train"]["loss"] for line in result.history] for result in (whole, again)]
    assert losses_seen[0] == pytest.approx(losses_seen[1], rel=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_no_step_waits_for_the_gpu(precision: str) -> None:
    device = torch.device("cuda")
    steps = 0

    def guarded(module: nn.Module, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        if steps == 2:  # the first steps set up the optimiser's state
            torch.cuda.set_sync_debug_mode("error")
        return losses(module, batch, progress)

    def on_step() -> None:
        nonlocal steps
        steps += 1
        if steps == 8:
            torch.cuda.set_sync_debug_mode("default")

    module = network().to(device)
    run = config(1, precision=precision, optim=OptimConfig(grad_clip=1.0))
    trainer = Trainer(
        module, losses=guarded, loader=Batches([8] * 8), config=run, precision=resolve_precision(precision, device)
    )
    try:
        trainer.run_epoch(0, on_step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert steps == 8


def test_own_batchnorm_runs_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from pointlift.engine import batchnorm

    monkeypatch.setattr(batchnorm, "world_size", lambda: 2)  # a world of one reduces to the identity
    plain, other = nn.BatchNorm1d(4).cuda(), convert_sync_batchnorm(nn.BatchNorm1d(4).cuda())
    x = torch.randn(64, 4, 9, device="cuda")
    torch.testing.assert_close(plain(x), other(x))
    torch.testing.assert_close(plain.running_var, other.running_var)


def test_one_process_group_carries_both_kinds_of_tensor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        for device in ("cpu", "cuda"):
            tensor = torch.ones(2, device=device)
            torch.distributed.all_reduce(tensor)
            assert tensor.tolist() == [1, 1]
        assert distributed.from_main(lambda: 1) == 1
    finally:
        distributed.finish()
