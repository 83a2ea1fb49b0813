"""Runs that are killed, interrupted, or out of disk: nothing lost, and the resumed run is the one never stopped."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import cli, command, refused, write_recipe

from pointlift.engine.checkpoint import Checkpoints
from pointlift.engine.logs import read_metrics, without_times

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def outcome(run: Path) -> dict[str, Any]:
    """Everything that a run came to, without times and its own place."""
    record = json.loads((run / "record.json").read_text())
    record.pop("time")
    with np.load(run / "predictions.npz") as saved:
        arrays = {key: (value.dtype.str, value.shape, value.tobytes()) for key, value in saved.items()}
    return {
        "weights": (run / "model" / "weights.safetensors").read_bytes(),
        "description": (run / "model" / "model.json").read_text(),
        "predictions": arrays,
        "metrics": [without_times(line) for line in read_metrics(run / "metrics.jsonl")],
        "config": (run / "config.yaml").read_text(),
        "record": record,
    }


def assert_same(whole: Path, other: Path) -> None:
    a, b = outcome(whole), outcome(other)
    for part in a:
        assert a[part] == b[part], part
    left = [p.name for p in other.rglob("*") if p.name.startswith(".writing-")]
    assert left == []


def messages(err: str) -> list[str]:
    """Lines of stderr that are neither progress nor notes on the data."""
    return [line for line in err.splitlines() if not line.startswith(("epoch ", "WARNING: "))]


def killed(recipe: Path, out: Path, moments: list[str]) -> list[str]:
    """Train `out/whole`, and `out/killed` through kills; returns the moments of the kills."""
    driver = Path(__file__).with_name("kill_driver.py")
    done = subprocess.run(
        [sys.executable, str(driver), str(recipe), str(out), *moments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_few_kills_change_nothing(recipe: Path, tmp_path: Path) -> None:
    moments = ["config.yaml:before", "epoch-:half", "record.json:before"]
    assert killed(recipe, tmp_path, moments) == moments
    assert_same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_twenty_kills_change_nothing(data: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "long.yaml", data)
    recipe.write_text(recipe.read_text().replace("epochs: 3", "epochs: 150"))
    start = ["origin.json:half", "config.yaml:half", "config.yaml:before", "config.yaml:after"]
    middle = ["clock", "epoch-:half", "epoch-:before", "epoch-:after"] * 3
    end = [":scoring", "weights.safetensors:after", "predictions.npz:half", "record.json:before", "report.html:before"]
    done = killed(recipe, tmp_path, moments := [*start, *middle, *end])
    assert len(done) >= 20
    assert done.count("clock") >= 2
    assert set(moments) == set(done)
    assert_same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_names_resume_and_loses_nothing(recipe: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "run"
    words = ("finetune", recipe, "--epochs", "200", "--out", out)
    process = subprocess.Popen(
        command(*words), env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while not list(out.glob("checkpoints/epoch-*.safetensors")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert stdout == ""
    assert messages(stderr) == [
        f"interrupted. Nothing is lost: pointlift finetune {recipe} --out {out} --resume goes on."
    ]
    assert not (out / "record.json").exists()
    epoch = Checkpoints(out / "checkpoints").newest()
    assert epoch is not None
    assert epoch.epoch < 199


def test_interrupted_run_resumes_to_the_same_end(recipe: Path, run: Path, tmp_path: Path) -> None:
    """Ctrl-C in an epoch's middle, in this process: the words that are printed do go on."""
    from pointlift.tasks import classification

    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        real, calls = classification.classification_losses, []

        def losses(*args: object) -> object:
            inner = real(*args)

            def once(*batch: object) -> object:
                calls.append(1)
                if len(calls) == 4:
                    raise KeyboardInterrupt
                return inner(*batch)

            return once

        patch.setattr(classification, "classification_losses", losses)
        ended = cli("finetune", recipe, "--out", out)
    assert ended.code == 1
    assert "--resume" in ended.err.splitlines()[-1]
    assert cli("finetune", recipe, "--out", out, "--resume").code == 0
    assert_same(run, out)


def test_interrupt_before_the_run_began(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pointlift.tasks import finetune

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(finetune, "dataset_from_config", stop)
    ended = cli("finetune", recipe, "--out", tmp_path / "run")
    assert ended.code == 1
    assert ended.err == "interrupted. The run had not begun.\n"
    monkeypatch.undo()
    assert cli("finetune", recipe, "--epochs", "1", "--out", tmp_path / "run").code == 0


class FullDisk:
    """Fails after some bytes, as a full disk does, in files of one name."""

    def __init__(self, patch: pytest.MonkeyPatch, name: str) -> None:
        opened = Path.open

        def full(path: Path, *args: Any, **kwargs: Any) -> Any:
            file = opened(path, *args, **kwargs)
            if not (path.name.startswith(".writing-") and name in path.name):
                return file

            class Full:
                def __enter__(self) -> Full:
                    return self

                def __exit__(self, *_: object) -> None:
                    file.close()

                def write(self, part: bytes) -> int:
                    file.write(bytes(part)[:100])
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            return Full()

        patch.setattr(Path, "open", full)


@pytest.mark.parametrize(
    "name", ["origin.json", "config.yaml", "epoch-0000", "epoch-0001", "epoch-0002", "predictions.npz", "record.json"]
)
def test_disk_full(recipe: Path, run: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        FullDisk(patch, name)
        ended = cli("finetune", recipe, "--out", out)
    errors = messages(ended.err)
    assert ended.code == 1
    assert len(errors) == 1
    assert name in errors[0]
    assert "No space left on device" in errors[0]
    if name in ("epoch-0001", "epoch-0002"):
        before = Checkpoints(out / "checkpoints").newest()
        assert before is not None
        assert before.epoch == int(name[-1]) - 1
    if name not in ("origin.json", "config.yaml"):
        assert "--resume" in errors[0]
    assert cli("finetune", recipe, "--out", out, "--resume").code == 0
    assert_same(run, out)


def test_file_size_limit_of_the_system(recipe: Path, run: Path, tmp_path: Path) -> None:
    """The kernel itself refuses the bytes, in a process of its own."""
    out = tmp_path / "run"
    size = min(p.stat().st_size for p in (run / "checkpoints").glob("*.safetensors"))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    done = subprocess.run(
        command("finetune", recipe, "--out", out), env=ENVIRONMENT, preexec_fn=limit, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "epoch-0000" in done.stderr
    assert "--resume" in done.stderr
    assert cli("finetune", recipe, "--out", out, "--resume").code == 0
    assert_same(run, out)


def test_damaged_newest_checkpoint_costs_an_epoch(recipe: Path, run: Path, tmp_path: Path) -> None:
    from pointlift.tasks import finetune

    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "_score", lambda job: (_ for _ in ()).throw(KeyboardInterrupt))
        assert cli("finetune", recipe, "--out", out).code == 1
    newest = out / "checkpoints" / "epoch-0002.safetensors"
    newest.write_bytes(newest.read_bytes()[:-9])
    assert cli("finetune", recipe, "--out", out, "--resume").code == 0
    assert_same(run, out)


def test_two_processes_may_not_write_one_run(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    code = "; ".join(
        [
            "from pathlib import Path",
            "from pointlift.engine.run_folder import claim",
            f"held = claim(Path({str(out)!r}))",
            "held.__enter__()",
            "print('held', flush=True)",
            "input()",
        ]
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    refused(cli("finetune", recipe, "--out", out), "being written by process", code=2)
    holder.communicate("\n")


@pytest.mark.slow
def test_two_processes_through_torchrun(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29511", "-m"]
    done = subprocess.run(
        [*launch, "pointlift", "finetune", str(recipe), "--out", str(out), "--json"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)  # one document, from one process
    assert said["record"]["processes"] == 2
    assert said["record"]["samples_seen"] == 3 * 16
    alone = json.loads(cli("evaluate", out, "--json").out)
    assert alone["metrics"] == pytest.approx(said["metrics"], abs=1e-6)
    both = subprocess.run(
        [*launch, "pointlift", "evaluate", str(out), "--json"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert both.returncode == 0, both.stderr
    assert json.loads(both.stdout)["metrics"] == pytest.approx(alone["metrics"], abs=1e-6)

    wrong = subprocess.run(
        [*launch, "pointlift", "finetune", str(recipe), "--out", str(out)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert wrong.returncode != 0  # and no process waits for ever
    assert "is not empty" in wrong.stderr
