"""The linear SVM protocol: what chooses C, what is scored, and what the record says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_runs import MODEL, cli, refused

import pointlift as pl
from pointlift.core.errors import UsageError
from pointlift.tasks.config import SvmConfig
from pointlift.tasks.linear_svm import GRID, evaluate_svm, fit_svm, svm_accuracy


def blobs(count: int = 120, classes: int = 3, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centers = np.random.default_rng(9).normal(size=(classes, 5)) * 3
    return centers[labels] + noise * rng.normal(size=(count, 5)), labels


def test_it_learns_what_a_plane_can_part_and_nothing_else() -> None:
    (train, y), (test, z) = blobs(seed=0), blobs(seed=1)
    assert svm_accuracy(train, y, test, z, C=0.1) > 0.9
    shuffled = np.random.default_rng(0).permutation(y)
    assert svm_accuracy(train, shuffled, test, z, C=0.1) < 0.6


def test_scale_of_a_column_does_not_matter() -> None:
    (train, y), (test, z) = blobs(seed=0, noise=2), blobs(seed=1, noise=2)
    scale = np.array([1e-3, 1, 1e3, 1, 1])
    assert svm_accuracy(train, y, test, z, C=0.1) == svm_accuracy(train * scale, y, test * scale, z, C=0.1)


def test_c_is_searched_on_train_alone() -> None:
    features, labels = blobs(noise=3)
    fitted = fit_svm(features, labels, SvmConfig(), arch="point_mae_tiny", data="set")
    assert fitted.how == "held-out fifth of train"
    assert fitted.C in fitted.tried
    assert list(fitted.tried) == list(GRID[: len(fitted.tried)])
    assert fitted.tried[fitted.C] == max(fitted.tried.values())
    assert fit_svm(features, labels, SvmConfig(C=0.5), arch="a", data="b").C == 0.5


def test_official_c_is_known_for_what_was_released() -> None:
    features, labels = blobs()
    fitted = fit_svm(features, labels, SvmConfig(C="official"), arch="point_m2ae_base", data="modelnet40")
    assert (fitted.kind, fitted.C, fitted.standardised) == ("svc", 0.012, False)
    with pytest.raises(UsageError, match="point_m2ae on modelnet40"):
        fit_svm(features, labels, SvmConfig(C="official"), arch="point_mae_tiny", data="modelnet40")


def test_the_record(data: Path) -> None:
    model = pl.create_model(MODEL["name"], **MODEL["options"])
    model.preprocess = {"points": 64}
    found = evaluate_svm(model, pl.load_dataset(data), svm=SvmConfig(C=1.0), device="cpu")
    record = found.record.data
    assert record["protocol"] == "svm"
    assert record["dataset"]["splits"] == {"train": 24, "test": 12}
    assert record["svm"] == {"C": 1.0, "chosen": "given", "tried": {}, "kind": "linear_svc", "standardised": True}
    assert "loss" not in record["metrics"]
    right = (found.scores.logits.argmax(1) == found.scores.label).mean()
    assert record["metrics"]["overall_accuracy"] == pytest.approx(right)
    assert right > 0.5  # four classes that their proportions give away
    again = evaluate_svm(model, pl.load_dataset(data), svm=SvmConfig(C=1.0), device="cpu")
    assert np.array_equal(found.scores.logits, again.scores.logits)


def test_the_command_line(data: Path) -> None:
    words = ("evaluate", "point_mae_tiny", "--protocol", "svm", "--data.root", data, "--data.points", "64")
    ended = cli(*words, "--svm.C", "0.1")
    assert ended.code == 0, ended.err
    assert "protocol svm" in ended.out
    refused(cli(*words, "--vote.rounds", "2"), "--protocol vote", code=2)
    refused(cli(*words, "--split", "val"), "it learns on train", code=2)
    refused(cli(*words, "--svm.C", "official"), "official", "point_m2ae", code=2)
    refused(cli(*words, "--svm.C", "-1"), "above 0", code=2)
