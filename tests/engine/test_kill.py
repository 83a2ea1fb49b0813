"""A run killed with SIGKILL again and again ends bit for bit as one that was never killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from pointlift.engine.checkpoint import Checkpoints
from pointlift.engine.logs import read_metrics, without_times

KILLS = 20


def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    driver = Path(__file__).with_name("kill_driver.py")
    done = subprocess.run(
        [sys.executable, str(driver), str(tmp_path), str(KILLS)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout.splitlines()[-1])
    assert sum(kills.values()) == KILLS
    assert min(kills.values()) >= 3  # at random moments, and at every moment of a write

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert (whole / "result.json").read_text() == (killed / "result.json").read_text()
    _same_tensors(torch.load(whole / "final.pt"), torch.load(killed / "final.pt"))
    _same_checkpoints(whole / "checkpoints", killed / "checkpoints")
    lines = [[without_times(line) for line in read_metrics(run / "metrics.jsonl")] for run in (whole, killed)]
    assert lines[0] == lines[1]
    assert not list((killed / "checkpoints").glob(".writing-*"))


def _same_tensors(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert a
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


def _same_checkpoints(a: Path, b: Path) -> None:
    assert Checkpoints(a).epochs() == Checkpoints(b).epochs()
    for epoch in Checkpoints(a).epochs():
        one, other = Checkpoints(a).load(epoch), Checkpoints(b).load(epoch)
        _same_tensors(one.model, other.model)
        _same_tensors(one.optimizer, other.optimizer)
        timed = {"train_seconds", "metrics_bytes"}  # the log's length differs by digits of its times
        assert {k: v for k, v in one.state.items() if k not in timed} == {
            k: v for k, v in other.state.items() if k not in timed
        }
