"""A fine-tuning run: its folder, its record, what it may learn from and choose by."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import CLASSES, MODEL, tiny_config, write_data

import pointlift as pl
from pointlift.core.errors import DataError, UsageError
from pointlift.data.loading import load_dataset
from pointlift.engine.logs import read_metrics
from pointlift.tasks import job as module
from pointlift.tasks.evaluate import evaluate
from pointlift.tasks.finetune import finetune
from pointlift.tasks.run import Run, data_of_run, read_run_config
from pointlift.weights.hashing import file_sha256

RECORD = {
    "schema", "task", "protocol", "command", "recipe", "dataset", "split", "metrics", "validation", "points",
    "augmentation", "seed", "voting", "epoch_rule", "epoch", "epochs", "samples_seen", "model", "quirks",
    "checkpoint_sha256", "versions", "device", "time",
}  # fmt: skip


def test_record_says_everything(finished: Path, data: Path) -> None:
    record = json.loads((finished / "record.json").read_text())
    assert record.keys() >= RECORD
    assert record["schema"] == 1
    assert record["dataset"]["splits"] == {"train": 16, "val": 8, "test": 12}
    assert record["dataset"]["classes"] == list(CLASSES)
    assert record["dataset"]["content_hash"] == load_dataset(data).content_hash()
    assert record["samples_seen"] == 3 * 16
    assert record["epochs"] == 3
    assert 0 <= record["epoch"] < 3
    assert record["epoch_rule"] == "best on validation"
    assert record["voting"] == {"rounds": 0, "votes": 0, "pool": "none"}
    assert any("farthest-point samples" in note for note in record["notes"])
    assert not any("vote" in note for note in record["notes"])
    assert record["model"]["adaptation"] == "full"
    assert record["model"]["pretrained"] is None
    assert record["model"]["trainable_without_head"] < record["model"]["trainable"] == record["model"]["parameters"]
    assert record["checkpoint_sha256"] == file_sha256(finished / "model" / "weights.safetensors")
    assert {"pointlift", "python", "torch", "numpy"} <= record["versions"].keys()
    assert {"name", "threads", "precision"} <= record["device"].keys()
    assert {"started", "train_seconds", "evaluate_seconds"} <= record["time"].keys()
    assert record["command"] == "pointlift finetune tiny.yaml"
    assert record["recipe"] == "tiny.yaml"


def test_folder_is_whole_and_agrees_with_itself(finished: Path) -> None:
    files = {p.relative_to(finished).as_posix() for p in finished.rglob("*") if p.is_file()}
    assert {"config.yaml", "origin.json", "record.json", "metrics.jsonl", "predictions.npz"} <= files
    assert {"model/model.json", "model/weights.safetensors"} <= files
    run = Run(finished)
    with np.load(finished / "predictions.npz", allow_pickle=False) as saved:
        arrays = dict(saved)
    assert arrays["logits"].shape == (12, 4)
    assert arrays["logits"].dtype == np.float32
    assert arrays["index"].tolist() == list(range(12))
    assert arrays["label"].tolist() == [i % 4 for i in range(12)]
    right = (arrays["logits"].argmax(1) == arrays["label"]).mean()
    assert run.record.metrics["overall_accuracy"] == pytest.approx(right, abs=1e-12)
    # The weights that are saved are the ones that were scored.
    again = pl.evaluate(run.model, data={"root": run.config.data.root})
    np.testing.assert_allclose(again.scores.logits, arrays["logits"], atol=1e-5)
    assert again.metrics["overall_accuracy"] == run.record.metrics["overall_accuracy"]


def test_selected_epoch_is_the_best_on_validation(finished: Path) -> None:
    record = Run(finished).record.data
    lines = [line for line in read_metrics(finished / "metrics.jsonl") if line["event"] == "epoch"]
    values = [(line["val"]["overall_accuracy"], -line["val"]["loss"]) for line in lines]
    assert all("test" not in line for line in lines)
    assert record["epoch"] == values.index(max(values))  # of equal accuracies the lower loss
    assert record["validation"] == pytest.approx(lines[record["epoch"]]["val"])


class Seen:
    """Which clouds of the training file the model was trained on, by their contents."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trained: set[int] = set()
        self.evaluated: dict[str, int] = {}
        make = module.make_loader

        def spy(split, *args, **kwargs):
            if kwargs.get("shuffle"):
                self.trained |= set(split.rows.tolist())
                self.store = split.store
            return make(split, *args, **kwargs)

        monkeypatch.setattr(module, "make_loader", spy)


def test_validation_clouds_are_never_trained_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch)
    finetune(tiny_config(data, epochs=1), out=tmp_path / "run")
    train, held = load_dataset(data).hold_out(0.25, 0)
    assert held is not None
    assert seen.trained == set(train.rows.tolist())
    assert not seen.trained & set(held.rows.tolist())
    assert len(seen.trained) + len(held) == 24


def test_test_split_is_not_touched_before_the_end(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the test labels are, training and selection come out the same."""
    other = write_data(tmp_path / "other")
    with np.load(other / "test.npz") as saved:
        arrays = dict(saved)
    arrays["label"] = (arrays["label"] + 1) % 4
    np.savez(other / "test.npz", **arrays)
    runs = [finetune(tiny_config(root), out=tmp_path / f"run{i}") for i, root in enumerate((data, other))]
    weights = [(run.out / "model" / "weights.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1]
    assert runs[0].record.data["epoch"] == runs[1].record.data["epoch"]


@pytest.mark.parametrize(
    ("select", "rule", "key"),
    [("test", "best on test", "test"), ("last", "last", "val"), ("validation", "best on validation", "val")],
)
def test_selection_is_recorded(data: Path, tmp_path: Path, select: str, rule: str, key: str) -> None:
    run = finetune(tiny_config(data, select=select), out=tmp_path / "run")
    record = run.record.data
    lines = [line for line in read_metrics(run.out / "metrics.jsonl") if line["event"] == "epoch"]
    assert record["epoch_rule"] == rule
    assert all(key in line for line in lines)
    scores = [(line[key]["overall_accuracy"], -line[key]["loss"]) for line in lines]
    expected = 2 if select == "last" else scores.index(max(scores))
    assert record["epoch"] == expected
    if select == "test":
        assert record["metrics"] == pytest.approx(lines[expected]["test"], abs=1e-6)


def test_select_on_test_needs_one(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data", test=0)
    with pytest.raises(UsageError, match="no test part"):
        finetune(tiny_config(root, select="test", data={"test_fraction": 0.0}), out=tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_without_a_test_part_one_is_held_out(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data", test=0)
    record = finetune(tiny_config(root, epochs=1), out=tmp_path / "run").record.data
    assert record["split"] == "test"
    assert record["dataset"]["splits"] == {"train": 16, "val": 4, "test": 4}
    assert "held out" in record["dataset"]["note"]


def test_neither_test_nor_validation_scores_train_and_says_so(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data", test=0)
    config = tiny_config(root, epochs=1, select="last", data={"test_fraction": 0.0, "val_fraction": 0.0})
    record = finetune(config, out=tmp_path / "run").record.data
    assert record["split"] == "train"
    assert record["validation"] is None
    assert record["dataset"]["splits"] == {"train": 24}


def test_same_seed_same_run_other_seed_another(data: Path, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run = finetune(tiny_config(data, epochs=1, seed=seed), out=tmp_path / name)
        weights.append((run.out / "model" / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(data: Path, finished: Path, tmp_path: Path, workers: int) -> None:
    run = finetune(tiny_config(data, data={"workers": workers}), out=tmp_path / "run")
    weights = "model/weights.safetensors"
    assert (run.out / weights).read_bytes() == (finished / weights).read_bytes()
    assert run.record.metrics == Run(finished).record.metrics


@pytest.mark.parametrize("adaptation", ["linear", "mlp3"])
def test_frozen_trunk_stays_frozen(data: Path, tmp_path: Path, adaptation: str) -> None:
    model = pl.create_model(MODEL["name"], num_classes=4, **MODEL["options"])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    run = finetune(tiny_config(data, epochs=1, adaptation=adaptation), out=tmp_path / "run", model=model)
    after = run.model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items() if not k.startswith("head."))
    assert run.record.data["model"]["trainable_without_head"] == 0
    assert run.record.data["model"]["adaptation"] == adaptation
    assert run.config.adaptation.name == adaptation


def test_vote_stands_beside_the_plain_score(data: Path, tmp_path: Path) -> None:
    run = finetune(tiny_config(data, epochs=1, vote={"rounds": 2, "votes": 2}), out=tmp_path / "run")
    metrics = run.record.metrics
    plain = pl.evaluate(run.model, data={"root": str(data)}).metrics
    assert metrics["overall_accuracy"] == plain["overall_accuracy"]
    assert metrics["vote_overall_accuracy_max"] >= metrics["vote_overall_accuracy"]
    assert run.record.data["voting"] == {"rounds": 2, "votes": 2, "pool": "mean of 2"}
    notes = run.record.data["notes"]
    assert len([note for note in notes if "farthest-point samples" in note]) == 1
    assert len([note for note in notes if "votes differ by augmentation only" in note]) == 1


def test_data_in_memory_is_recorded_so_that_no_training_cloud_becomes_a_test_cloud(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data", test=0)
    dataset = load_dataset(root)
    run = finetune(tiny_config(root, epochs=1, data={"root": None}), out=tmp_path / "run", dataset=dataset)
    kept = read_run_config(run.out).data
    assert kept.root == str(root)
    assert kept.test_fraction == 0.2
    assert run.record.data["split"] == "test"
    again = evaluate(run.model, data=data_of_run(run.out, {}))
    assert again.metrics == pytest.approx(run.record.metrics)


def test_test_part_in_memory_is_not_split_again(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    run = finetune(tiny_config(root, epochs=1, data={"root": None}), out=tmp_path / "run", dataset=load_dataset(root))
    assert read_run_config(run.out).data.test_fraction == 0.0
    assert run.record.data["dataset"]["splits"]["test"] == len(load_dataset(root).test)


def test_model_in_memory_is_recorded(data: Path, tmp_path: Path) -> None:
    model = pl.create_model(MODEL["name"], **MODEL["options"])
    run = finetune(
        tiny_config(data, epochs=1, model={"name": "point_mae_base", "options": {}}), out=tmp_path / "run", model=model
    )
    assert run.config.model.name == "point_transformer"
    assert run.config.model.options["embed_dim"] == 16
    assert "in memory" in run.record.data["model"]["pretrained"]


MISFITS = {
    "too few points": ({"data": {"points": 4}}, UsageError, "data.points is 4"),
    "batches of one": ({"data": {"batch_size": 1}}, DataError, "batches of one cloud"),
    "device": ({"device": "tpu"}, UsageError, "device 'tpu'"),
    "classes": ({"model": {"options": {"num_classes": 7}}}, UsageError, "num_classes is 7"),
    "option": ({"model": {"options": {"dept": 2}}}, UsageError, "Did you mean 'depth'"),
    "heads": ({"model": {"options": {"num_heads": 3}}}, UsageError, "embed_dim 16.* multiple of num_heads 3"),
    "model": ({"model": {"name": "point_transfomer"}}, UsageError, "Did you mean 'point_transformer'"),
    "adaptation": ({"adaptation": "liner"}, UsageError, "Did you mean 'linear'"),
    "weights": ({"model": {"pretrained": "nosuch"}}, UsageError, "nosuch"),
    "data": ({"data": {"root": "/no/such/folder"}}, DataError, "/no/such/folder"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_misfit_is_found_before_the_run_begins(data: Path, tmp_path: Path, name: str) -> None:
    changes, kind, words = MISFITS[name]
    out = tmp_path / "run"
    with pytest.raises(kind, match=words):
        finetune(tiny_config(data, **changes), out=out)
    # Once it is put right, the same command works.
    finetune(tiny_config(data, epochs=1), out=out)


def test_cloud_smaller_than_the_groups_is_named(tmp_path: Path) -> None:
    for i in range(8):
        path = tmp_path / "data" / CLASSES[i % 2] / f"{i}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.random.default_rng(i).random((3 if i == 6 else 70, 3), dtype=np.float32))
    with pytest.raises(DataError, match=r"6\.npy has 3 points.*at least 8"):
        finetune(tiny_config(tmp_path / "data"), out=tmp_path / "run")


def test_model_for_other_classes_is_refused(data: Path, tmp_path: Path) -> None:
    model = pl.create_model(MODEL["name"], num_classes=9, **MODEL["options"])
    with pytest.raises(UsageError, match="9 classes"):
        finetune(tiny_config(data), out=tmp_path / "run", model=model)


def test_resumed_run_must_be_the_same(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    finetune(tiny_config(data, epochs=1), out=out, recipe="a.yaml")
    config = read_run_config(out)
    with pytest.raises(UsageError, match="seed was 0 and is 1"):
        finetune(replace(config, seed=1), out=out, resume=True)
    with pytest.raises(UsageError, match=r"the recipe was a\.yaml and is b\.yaml"):
        finetune(config, out=out, resume=True, recipe="b.yaml")
    assert read_run_config(out) == config


def test_resume_refuses_changed_data(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    finetune(tiny_config(root, epochs=1), out=tmp_path / "run")
    write_data(root, seed=1)
    with pytest.raises(UsageError, match="another content"):
        finetune(tiny_config(root, epochs=1), out=tmp_path / "run", resume=True)


def test_resume_before_the_first_checkpoint_needs_the_same_weights(data: Path, tmp_path: Path) -> None:
    def stopped(line: object) -> None:
        raise KeyboardInterrupt

    model = pl.create_model(MODEL["name"], num_classes=4, **MODEL["options"])
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        finetune(tiny_config(data), out=out, model=model, on_epoch=stopped)
    config = read_run_config(out)
    for file in (out / "checkpoints").iterdir():
        file.unlink()
    with pytest.raises(UsageError, match="weights before training"):
        finetune(config, out=out, resume=True)


def test_record_of_a_resumed_run_says_how_it_was_started(data: Path, tmp_path: Path) -> None:
    def stopped(line: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        finetune(tiny_config(data), out=out, recipe="r", command="the first command", on_epoch=stopped)
    begun = json.loads((out / "origin.json").read_text())["started"]
    record = finetune(read_run_config(out), out=out, resume=True, command="the second").record.data
    assert record["command"] == "the first command"
    assert record["recipe"] == "r"
    assert record["time"]["started"] == begun


def test_resuming_a_finished_run_changes_nothing(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    finetune(tiny_config(data, epochs=1), out=out)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.rglob("*") if path.suffix}
    again = finetune(read_run_config(out), out=out, resume=True)
    assert again.record.metrics
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before


def test_a_frozen_base_that_was_never_trained_is_said(data: Path, tmp_path: Path) -> None:
    run = finetune(tiny_config(data, epochs=1, adaptation={"name": "lora"}), out=tmp_path / "frozen")
    assert any("lora freezes a base that was never trained" in note for note in run.record.data["notes"])
    assert not (run.out / "adapter.safetensors").exists()
    run = finetune(tiny_config(data, epochs=1), out=tmp_path / "full")
    assert not any("never trained" in note for note in run.record.data["notes"])
