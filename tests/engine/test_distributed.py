"""Two gloo processes under torchrun against one process at the same global batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchrun_worker as worker

from pointlift.core.errors import UsageError
from pointlift.engine import distributed
from pointlift.engine.logs import read_metrics

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of a torchrun launch, and what each of its two processes saw."""
    out = tmp_path_factory.mktemp("two")
    done = subprocess.run(
        [*LAUNCH, worker.__file__, str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return out, [torch.load(out / f"rank{rank}.pt") for rank in range(2)]


def close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5, msg=name)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("case", ["plain", "batchnorm", "branches"])
def test_training_equals_one_process_at_the_same_global_batch(two, tmp_path: Path, case: str) -> None:
    _, seen = two
    one = getattr(worker, case)(tmp_path)
    for rank in range(2):
        got = seen[rank][case]
        close(got["weights"], one["weights"])
        assert (got["epoch"], got["samples"]) == (one["epoch"], one["samples"])
        assert got["metrics"] == pytest.approx(one["metrics"], rel=1e-4)
        for two_line, one_line in zip(got["train"], one["train"], strict=True):
            assert two_line == pytest.approx(one_line, rel=1e-4)
    assert equal(seen[0][case]["weights"], seen[1][case]["weights"])


def test_parameters_without_a_gradient_stay_and_the_others_move(two) -> None:
    weights, start = two[1][0]["branches"]["weights"], worker.Branches().state_dict()
    assert not torch.equal(weights["sometimes.weight"], start["sometimes.weight"])
    assert not torch.equal(weights["net.0.weight"], start["net.0.weight"])


def test_uneven_processes_end_with_the_same_weights(two) -> None:
    _, seen = two
    assert equal(seen[0]["uneven"]["weights"], seen[1]["uneven"]["weights"])
    assert seen[0]["uneven"]["samples"] == seen[1]["uneven"]["samples"] == 3 * 2 * 24


def test_plain_batchnorms_end_with_the_same_statistics(two) -> None:
    _, seen = two
    assert equal(seen[0]["own_batchnorm"]["weights"], seen[1]["own_batchnorm"]["weights"])


def test_resuming_equals_never_stopping(two) -> None:
    assert [seen["resumed"]["same"] for seen in two[1]] == [True, True]


def test_an_error_of_the_main_process_reaches_all(two) -> None:
    for seen in two[1]:
        assert "holds a run already" in seen["refused"]["error"]


def test_evaluation_equals_one_process(two, tmp_path: Path) -> None:
    one = worker.evaluation(tmp_path)["metrics"]
    for seen in two[1]:
        assert seen["evaluation"]["metrics"] == pytest.approx(one, rel=1e-6)


def test_only_the_main_process_writes_and_shows(two) -> None:
    out, seen = two
    lines = read_metrics(out / "plain" / "metrics.jsonl")
    assert [line["event"] for line in lines] == ["start", *["epoch"] * worker.EPOCHS, "end"]
    assert lines[0]["processes"] == 2
    assert seen[0]["plain"]["shown"] == list(range(worker.EPOCHS))
    assert seen[1]["plain"]["shown"] == []


def test_ranks_come_from_torchrun(two) -> None:
    for rank, seen in enumerate(two[1]):
        assert seen["before"] == (0, 1)
        assert seen["world"] == (2, rank == 0, "cpu")
        assert seen["from_environment"] == rank


def test_one_process_needs_no_group() -> None:
    with distributed.process_group("cpu") as device:
        assert device == torch.device("cpu")
        assert not distributed.is_initialized()
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.from_main(lambda: 3) == 3
    assert distributed.all_reduce_min(4) == 4
    tensor = torch.ones(2)
    assert distributed.all_reduce_sum(tensor) is tensor
    distributed.barrier()


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="local process 1 has no GPU: there are 1"):
        distributed.initialize("cuda")
