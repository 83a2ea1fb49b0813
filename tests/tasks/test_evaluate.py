"""Evaluation: plain and voting, splits, and labels by class name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import CLASSES, MODEL, write_data

import pointlift as pl
from pointlift.core.errors import DataError, UsageError
from pointlift.data.loading import load_dataset
from pointlift.engine.precision import resolve_precision
from pointlift.tasks.classification import with_model_classes
from pointlift.tasks.config import VoteConfig
from pointlift.tasks.evaluate import evaluate, evaluation_loader, plain_scores, vote_scores
from pointlift.tasks.inputs import data_config_of
from pointlift.tasks.run import Run, data_of_run, training_of_run

FP32 = resolve_precision("fp32", torch.device("cpu"))


def test_plain_is_the_score_of_the_run(finished: Path, data: Path) -> None:
    run = Run(finished)
    found = evaluate(run.model, data={"root": str(data)})
    assert found.metrics == pytest.approx(run.record.metrics)
    record = found.record.data
    assert record["split"] == "test"
    assert record["protocol"] == "plain"
    assert record["voting"]["rounds"] == 0
    assert record["dataset"]["splits"] == {"test": 12}
    assert record["model"]["hash"] == run.record.data["model"]["hash"]
    assert record["augmentation"] == {}
    assert record["quirks"] == {}
    assert found.names == tuple(f"test/{i}" for i in range(12))


def test_val_is_what_the_run_held_out(finished: Path) -> None:
    run = Run(finished)
    found = evaluate(run.model, data=data_of_run(finished, {}), split="val")
    assert found.metrics == pytest.approx(run.record.data["validation"])
    assert len(evaluate(run.model, data=data_of_run(finished, {}), split="train").names) == 16


def test_all_scores_every_cloud_once(finished: Path, data: Path) -> None:
    found = evaluate(Run(finished).model, data=data_of_run(finished, {}), split="all")
    count = sum(load_dataset(data).splits.values())
    assert found.record.data["dataset"]["splits"] == {"all": count}
    assert len(set(found.names)) == count


def test_clouds_without_labels_cannot_be_scored(finished: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(100, 3)))
    with pytest.raises(UsageError, match=r"without labels.*one folder per class"):
        evaluate(Run(finished).model, load_dataset(tmp_path), split="all")


def test_vote_is_the_mean_of_logits(finished: Path, data: Path) -> None:
    model = Run(finished).model
    config = data_config_of(model, {"root": str(data)})
    dataset = load_dataset(data)
    assert dataset.test is not None
    loader = evaluation_loader(dataset.test, config, dataset.meta, stage="vote", seed=3)
    voted, metrics = vote_scores(model, loader, VoteConfig(rounds=2, votes=3), FP32)
    passes = []
    for epoch in range(6):
        loader.set_epoch(epoch)
        passes.append(plain_scores(model, loader, FP32).logits.astype(np.float64))
    assert not np.array_equal(passes[0], passes[1])
    np.testing.assert_allclose(voted.logits, np.mean(passes[3:], axis=0), rtol=1e-6)
    accuracy = [float((np.mean(p, axis=0).argmax(1) == voted.label).mean()) for p in (passes[:3], passes[3:])]
    assert metrics["overall_accuracy"] == pytest.approx(np.mean(accuracy))
    assert metrics["overall_accuracy_max"] == pytest.approx(max(accuracy))
    assert metrics["overall_accuracy_std"] == pytest.approx(np.std(accuracy))


def test_vote_depends_on_the_seed_alone(finished: Path, data: Path) -> None:
    model = Run(finished).model
    vote = VoteConfig(rounds=1, votes=2)

    def logits(seed: int = 0, **options: object) -> np.ndarray:
        found = evaluate(model, data={"root": str(data), **options}, protocol="vote", vote=vote, seed=seed)
        assert found.record.data["voting"] == {"rounds": 1, "votes": 2, "pool": "mean of 1"}
        return found.scores.logits

    first = logits()
    np.testing.assert_array_equal(first, logits())
    np.testing.assert_array_equal(first, logits(workers=2))
    np.testing.assert_allclose(first, logits(batch_size=3), atol=1e-5)
    assert np.abs(first - logits(seed=1)).max() > 1e-3


def test_labels_go_by_class_name(finished: Path, tmp_path: Path) -> None:
    """The same clouds under another order of classes, and only two of them, score the same."""
    model = Run(finished).model
    root = write_data(tmp_path / "data")
    whole = evaluate(model, data={"root": str(root)})
    with np.load(root / "test.npz") as saved:
        arrays = dict(saved)
    order = [2, 0]  # disc, ball
    chosen = np.flatnonzero(np.isin(arrays["label"], order))
    for part in ("train", "test"):
        label = np.array([order.index(k) for k in arrays["label"][chosen]])
        classes = np.array([CLASSES[k] for k in order])
        np.savez(tmp_path / f"{part}.npz", points=arrays["points"][chosen], label=label, classes=classes)
    found = evaluate(model, data={"root": str(tmp_path)})
    assert found.scores.label.tolist() == whole.scores.label[chosen].tolist()
    np.testing.assert_allclose(found.scores.logits, whole.scores.logits[chosen], atol=1e-5)


def test_unknown_classes_are_refused(finished: Path, data: Path) -> None:
    model = Run(finished).model
    model.classes = ("ball", "box", "disc", "cone")
    with pytest.raises(DataError, match="does not know: rod"):
        evaluate(model, data={"root": str(data)})


def test_model_without_names_needs_as_many_classes(data: Path) -> None:
    dataset = load_dataset(data)
    model = pl.create_model(MODEL["name"], num_classes=9, **MODEL["options"])
    with pytest.raises(DataError, match="4 classes, the model 9"):
        with_model_classes(dataset.train, dataset.meta, model)
    model.reset_classifier(4)
    assert with_model_classes(dataset.train, dataset.meta, model) is dataset.train


def test_wrong_calls(finished: Path, data: Path) -> None:
    model = Run(finished).model
    where = {"root": str(data)}
    with pytest.raises(UsageError, match=r"no classifier head.*svm"):
        evaluate(pl.create_model(MODEL["name"], **MODEL["options"]), data=where)
    with pytest.raises(UsageError, match="protocol 'best'"):
        evaluate(model, data=where, protocol="best")
    with pytest.raises(UsageError, match="split 'tets'"):
        evaluate(model, data=where, split="tets")
    with pytest.raises(UsageError, match="val_fraction is 0"):
        evaluate(model, data={**where, "val_fraction": 0.0}, split="val")
    with pytest.raises(UsageError, match="4 points cannot make 8 groups"):
        evaluate(model, data={**where, "points": 4})


def test_no_test_part_is_not_made_up(finished: Path, tmp_path: Path) -> None:
    root = write_data(tmp_path, test=0)
    with pytest.raises(UsageError, match="no test part"):
        evaluate(Run(finished).model, load_dataset(root))


def test_data_of_a_run(finished: Path, data: Path, tmp_path: Path) -> None:
    own = data_of_run(finished, {})
    assert own["root"] == str(data)
    assert data_of_run(finished, {"root": str(data), "batch_size": 3}) == {**own, "batch_size": 3}
    other = data_of_run(finished, {"root": str(tmp_path)})
    assert other["root"] == str(tmp_path)
    assert "name" not in other  # a generator's name would go before the folder
    assert "limit" not in other
    for key in ("points", "val_fraction", "test_fraction", "split_seed"):
        assert other[key] == own[key]


def test_evaluation_of_a_run_says_how_its_epoch_was_chosen(finished: Path) -> None:
    said = training_of_run(finished)
    assert said["epoch_rule"] == "best on validation"
    assert said["dataset"]["splits"] == {"train": 16, "val": 8, "test": 12}
    found = evaluate(Run(finished).model, data=data_of_run(finished, {}), training=said)
    assert found.record.data["training"] == said
