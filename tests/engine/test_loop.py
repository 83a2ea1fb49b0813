from __future__ import annotations

import logging
import math
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import engine_toy
import pytest
import torch
from engine_toy import Batches, config, evaluate, loaders, losses, network
from torch import Tensor, nn

from pointlift.core.errors import CheckpointError, CheckpointMismatchError, PointLiftError, UsageError
from pointlift.engine import FitResult, Loaders, files, fit
from pointlift.engine.checkpoint import Checkpoints
from pointlift.engine.config import OptimConfig, ScheduleConfig
from pointlift.engine.logs import read_metrics, without_times


def scripted(values: list[float]) -> Callable[[nn.Module, object], dict[str, float]]:
    """An evaluation that gives these numbers, one per call."""
    left = iter(values)
    return lambda module, loader: {"loss": 0.0, "overall_accuracy": next(left)}


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def after_each_epoch(out: Path, **changes: object) -> tuple[list[dict[str, Tensor]], nn.Module, object]:
    """A run of scripted scores, with the weights that the module had after every epoch."""
    seen: list[dict[str, Tensor]] = []
    module = network()
    scores = changes.pop("scores")
    result = fit(
        module,
        losses,
        loaders(),
        config(len(scores), **changes),
        out,
        evaluate=scripted(scores),
        on_epoch=lambda line: seen.append(weights(module)),
    )
    return seen, module, result


@pytest.mark.parametrize(
    ("select", "mode", "scores", "epoch", "rule"),
    [
        ("validation", "max", [0.2, 0.6, 0.6, 0.5], 1, "best on validation"),  # the first of equals
        ("validation", "min", [0.2, 0.6, 0.1, 0.5], 2, "best on validation"),
        ("validation", "max", [math.nan, 0.1, math.nan, math.inf], 1, "best on validation"),
        ("test", "max", [0.9, 0.6, 0.7, 0.8], 0, "best on test"),
        ("last", "max", [0.9, 0.6, 0.7, 0.8], 3, "last"),
    ],
)
def test_the_module_ends_with_the_selected_weights(
    tmp_path: Path, select: str, mode: str, scores: list[float], epoch: int, rule: str
) -> None:
    seen, module, result = after_each_epoch(tmp_path, scores=scores, select=select, mode=mode)
    assert (result.epoch, result.epochs, result.epoch_rule) == (epoch, 4, rule)
    assert result.metrics["overall_accuracy"] == scores[epoch]
    assert same(weights(module), seen[epoch])
    assert not same(seen[epoch], seen[epoch - 1])
    assert not module.training
    split = "test" if select == "test" else "val"
    assert all((split in line) and ({"val", "test"} - {split}).isdisjoint(line) for line in result.history)
    assert same(Checkpoints(tmp_path / "checkpoints").load(epoch).model, weights(module))
    assert result.checkpoint.is_file()


def test_of_equal_scores_the_lower_loss_is_taken(tmp_path: Path) -> None:
    found = iter([(0.9, 0.5), (0.9, 0.2), (0.9, 0.3), (0.8, 0.1)])

    def evaluate(module: nn.Module, loader: object) -> dict[str, float]:
        accuracy, loss = next(found)
        return {"loss": loss, "overall_accuracy": accuracy}

    result = fit(network(), losses, loaders(), config(4), tmp_path, evaluate=evaluate)
    assert (result.epoch, result.metrics["loss"]) == (1, 0.2)


def test_metrics_and_result_say_what_happened(tmp_path: Path) -> None:
    lines_seen: list[dict] = []
    module = network()
    result = fit(module, losses, loaders(), config(3), tmp_path, evaluate=evaluate, on_epoch=lines_seen.append)
    start, *epochs, end = read_metrics(tmp_path / "metrics.jsonl")
    assert epochs == result.history == lines_seen
    assert [(e["epoch"], e["step"], e["samples_seen"]) for e in epochs] == [(0, 3, 37), (1, 6, 74), (2, 9, 111)]
    assert set(epochs[0]["train"]) == {"loss", "accuracy", "grad_norm"}
    assert {"seconds", "samples_per_second", "lr"} <= epochs[0].keys()
    assert result.samples_seen == 111
    assert result.train_seconds > 0
    assert (start["event"], start["steps_per_epoch"], start["trainable"]) == ("start", 3, 195)
    assert (end["event"], end["epoch"], end["metrics"]) == ("end", result.epoch, result.metrics)
    # The numbers of the chosen epoch are those of the weights that the module has.
    assert evaluate(module, loaders().evals["val"]) == result.metrics


def test_training_learns(tmp_path: Path) -> None:
    module = network(dropout=0)
    run = config(30, optim=OptimConfig(lr=3e-2), metric="loss", mode="min")
    result = fit(
        module, losses, Loaders(Batches([32] * 8), {"val": Batches([64], seed=1)}), run, tmp_path, evaluate=evaluate
    )
    assert result.history[-1]["train"]["loss"] < 0.75 * result.history[0]["train"]["loss"]
    assert result.metrics["loss"] == min(line["val"]["loss"] for line in result.history)


def test_without_the_split_to_select_on_nothing_starts(tmp_path: Path) -> None:
    for select in ("validation", "test"):
        with pytest.raises(UsageError, match=f"the {select} split, and there is none"):
            fit(
                network(),
                losses,
                Loaders(Batches([8])),
                config(1, select=select),
                tmp_path / "a",
                evaluate=evaluate,
            )
    assert not (tmp_path / "a").exists()
    result = fit(network(), losses, Loaders(Batches([8])), config(1, select="last"), tmp_path, evaluate=evaluate)
    assert (result.epoch_rule, result.metrics) == ("last", {})


def test_a_metric_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'overall_accuracy'"):
        engine_toy.run(tmp_path, metric="accuracy_overall")


def test_no_finite_metric_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PointLiftError, match="was not finite after any epoch"):
        after_each_epoch(tmp_path, scores=[math.nan, math.nan])


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="device 'gpu'"):
        fit(network(), losses, loaders(), config(1), tmp_path, evaluate=evaluate, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="torch sees no GPU"):
            fit(network(), losses, loaders(), config(1), tmp_path, evaluate=evaluate, device="cuda")


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        engine_toy.run(tmp_path / "a")


def test_every_n_epochs_and_the_last(tmp_path: Path) -> None:
    module = network()
    written: list[list[int]] = []
    result = fit(
        module,
        losses,
        loaders(),
        config(6, eval_every=4, checkpoint_every=3),
        tmp_path,
        evaluate=scripted([0.5, 0.1]),
        on_epoch=lambda line: written.append(Checkpoints(tmp_path / "checkpoints").epochs()),
    )
    assert [line["epoch"] for line in result.history if "val" in line] == [3, 5]
    assert result.epoch == 3
    # Epochs 2 and 5 are due, 3 is a new best.
    assert written == [[], [], [2], [3, 2], [3, 2], [5, 3]]


class Stop(Exception):
    pass


def stopped_after(epoch: int, out: Path, *, resume: bool = False, **changes: object) -> None:
    def stop(line: dict) -> None:
        if line["epoch"] == epoch:
            raise Stop

    with pytest.raises(Stop):
        fit(
            network(),
            losses,
            loaders(),
            config(4, **changes),
            out,
            evaluate=evaluate,
            on_epoch=stop,
            resume=resume,
        )


def equal_runs(a: tuple, b: tuple, out_a: Path, out_b: Path) -> None:
    assert same(weights(a[0]), weights(b[0]))
    assert (a[1].epoch, a[1].metrics, a[1].samples_seen) == (b[1].epoch, b[1].metrics, b[1].samples_seen)
    lines = [[without_times(line) for line in read_metrics(out / "metrics.jsonl")] for out in (out_a, out_b)]
    assert lines[0] == lines[1]
    assert [without_times(x) for x in a[1].history] == [without_times(x) for x in b[1].history]
    last = [Checkpoints(out / "checkpoints").load(3) for out in (out_a, out_b)]
    assert same(last[0].model, last[1].model)
    assert same(last[0].optimizer, last[1].optimizer)


@pytest.mark.parametrize("select", ["validation", "last"])
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_resuming_equals_never_stopping(tmp_path: Path, select: str, every: int, name: str) -> None:
    changes = {"select": select, "checkpoint_every": every, "optim": OptimConfig(name, lr=1e-2, accumulate=2)}
    whole = engine_toy.run(tmp_path / "whole", **changes)
    stopped_after(0, tmp_path / "parts", **changes)
    stopped_after(2, tmp_path / "parts", resume=True, **changes)
    parts = engine_toy.run(tmp_path / "parts", resume=True, **changes)
    equal_runs(whole, parts, tmp_path / "whole", tmp_path / "parts")


def test_resuming_fp16_takes_up_the_loss_scale(tmp_path: Path) -> None:
    def overflowing(net: nn.Module, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        out = losses(net, batch, progress)
        return {**out, "loss": out["loss"] * (1e36 if progress == 0 else 1)}

    def part(out: Path, *, stop: bool = False, resume: bool = False) -> tuple[nn.Module, FitResult]:
        def stop_after_one(line: dict) -> None:
            if stop and line["epoch"] == 1:
                raise Stop

        module, run = network(), config(4, precision="fp16", optim=OptimConfig(lr=1e-2))
        result = fit(
            module,
            overflowing,
            loaders(),
            run,
            out,
            evaluate=evaluate,
            resume=resume,
            on_epoch=stop_after_one,
        )
        return module, result

    whole = part(tmp_path / "whole")
    with pytest.raises(Stop):
        part(tmp_path / "parts", stop=True)
    scaler = Checkpoints(tmp_path / "parts" / "checkpoints").load(1).state["scaler"]
    assert (scaler["scale"], scaler["_growth_tracker"]) == (2.0**15, 9)
    parts = part(tmp_path / "parts", resume=True)
    equal_runs(whole, parts, tmp_path / "whole", tmp_path / "parts")
    last = [Checkpoints(out / "checkpoints").load(3).state for out in (tmp_path / "whole", tmp_path / "parts")]
    assert last[0]["scaler"] == last[1]["scaler"]
    assert parts[1].skipped_steps == 1


def test_resuming_a_finished_run_gives_its_result_again(tmp_path: Path) -> None:
    module, result = engine_toy.run(tmp_path)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    again_module, again = engine_toy.run(tmp_path, resume=True)
    assert again == result
    assert same(weights(module), weights(again_module))
    assert read_metrics(tmp_path / "metrics.jsonl") == lines


def test_resuming_before_the_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    whole = engine_toy.run(tmp_path / "whole")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "metrics.jsonl").write_text('{"event": "start"}\n{"ev')
    parts = engine_toy.run(tmp_path / "parts", resume=True)
    equal_runs(whole, parts, tmp_path / "whole", tmp_path / "parts")


def test_a_damaged_last_checkpoint_costs_an_epoch_and_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = engine_toy.run(tmp_path / "whole")
    stopped_after(2, tmp_path / "parts")
    newest = tmp_path / "parts" / "checkpoints" / "epoch-0002.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        parts = engine_toy.run(tmp_path / "parts", resume=True)
    assert "epoch-0002" in caplog.text
    equal_runs(whole, parts, tmp_path / "whole", tmp_path / "parts")


def test_full_disk_leaves_a_run_to_go_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = engine_toy.run(tmp_path / "whole")
    replace, calls = os.replace, []

    def full(source: object, target: object) -> None:
        calls.append(target)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", full)
        with pytest.raises(PointLiftError, match=r"epoch-0002.*No space left on device.*--resume"):
            engine_toy.run(tmp_path / "parts")
    parts = engine_toy.run(tmp_path / "parts", resume=True)
    equal_runs(whole, parts, tmp_path / "whole", tmp_path / "parts")


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    stopped_after(0, tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(UsageError, match=r"holds a run already.*--resume"):
        engine_toy.run(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_another_configuration_or_model_does_not_go_on(tmp_path: Path) -> None:
    stopped_after(1, tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    other = ScheduleConfig(warmup_epochs=2)
    with pytest.raises(UsageError, match=r"epochs was 4 and is 5; schedule.warmup_epochs was 1 and is 2"):
        engine_toy.run(tmp_path, epochs=5, schedule=other, resume=True)
    bigger = nn.Sequential(*network(), nn.Linear(3, 3))
    with pytest.raises(CheckpointMismatchError, match=r"2 tensors .* epoch 1 .*5\.bias is absent, not \(3,\)"):
        fit(bigger, losses, loaders(), config(4), tmp_path, evaluate=evaluate, resume=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    engine_toy.run(tmp_path, checkpoint_every=2, resume=True)  # how often to checkpoint may change


def test_no_readable_checkpoint_is_not_a_new_start(tmp_path: Path) -> None:
    stopped_after(0, tmp_path)
    Checkpoints(tmp_path / "checkpoints").path(0).write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        engine_toy.run(tmp_path, resume=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_a_run_to_go_on_with(tmp_path: Path, number: int) -> None:
    whole = engine_toy.run(tmp_path / "whole")
    before = signal.getsignal(signal.SIGTERM)

    def interrupting(net: nn.Module, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        if progress > 0.6:
            os.kill(os.getpid(), number)
        return losses(net, batch, progress)

    with pytest.raises(KeyboardInterrupt):
        fit(network(), interrupting, loaders(), config(4), tmp_path / "parts", evaluate=evaluate)
    assert signal.getsignal(signal.SIGTERM) is before
    assert Checkpoints(tmp_path / "parts" / "checkpoints").epochs()[0] == 1
    parts = engine_toy.run(tmp_path / "parts", resume=True)
    equal_runs(whole, parts, tmp_path / "whole", tmp_path / "parts")


def test_fit_works_outside_the_main_thread(tmp_path: Path) -> None:
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(engine_toy.run(tmp_path)[1]))
    thread.start()
    thread.join()
    assert len(results) == 1


def test_processes_that_have_not_joined_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UsageError, match="2 processes that have not joined"):
        engine_toy.run(tmp_path)
