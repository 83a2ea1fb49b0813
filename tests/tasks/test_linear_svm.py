"""The linear SVM protocol: what chooses C, what is scored, and what the record says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import MODEL, cli, refused

import pointlift as pl
from pointlift.core.config import to_dict
from pointlift.core.errors import UsageError
from pointlift.tasks.config import SvmConfig
from pointlift.tasks.feature_cache import FeatureCache
from pointlift.tasks.linear_svm import evaluate_svm, fit_svm, svm_accuracy, svm_pooling
from pointlift.tasks.strength import GRID, best_of, try_strengths
from pointlift.weights.modelfile import describe, write_model_file


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


@pytest.mark.parametrize(
    ("accuracies", "tried", "best"),
    [
        ([0.5, 0.5, 0.6, 0.4, 0.9], 4, 0.1),  # an equal one does not end the search, a worse one does
        ([0.5, 0.6, 0.6, 0.6, 0.6], 5, 0.01),  # of equal ones the strongest penalty
        ([0.7, 0.6, 0.8, 0.9, 0.9], 2, 0.001),
    ],
)
def test_when_the_search_ends(accuracies: list[float], tried: int, best: float) -> None:
    found = try_strengths(np.arange(40) % 4, lambda C, *_: accuracies[GRID.index(C)], purpose="test")
    assert list(found) == list(GRID[:tried])
    assert best_of(found) == best


@pytest.mark.parametrize(("clouds", "splits"), [(2999, 3), (3000, 1)])
def test_few_clouds_are_split_three_times(clouds: int, splits: int) -> None:
    seen: list[tuple[int, ...]] = []

    def trial(C: float, split: int, rest: np.ndarray, held: np.ndarray) -> float:
        assert len(np.intersect1d(rest, held)) == 0
        assert len(rest) + len(held) == clouds
        seen.append(tuple(held))
        return 0.5

    try_strengths(np.arange(clouds) % 10, trial, grid=(1.0,), purpose="test")
    assert len(set(seen)) == splits


@pytest.mark.parametrize(
    ("arch", "data", "variant", "kind", "C"),
    [
        ("point_m2ae_base", "modelnet40", None, "svc", 0.012),
        ("point_m2ae_base", "modelnet40", "ply_hdf5_2048", "svc", 0.012),
        ("point_m2ae_base", "scanobjectnn", "OBJ_BG", "svc", 0.042),
        ("point_bert_base", "modelnet40", None, "linear_svc", 1.0),
    ],
)
def test_official_c_is_that_of_the_card(arch: str, data: str, variant: str | None, kind: str, C: float) -> None:
    features, labels = blobs()
    fitted = fit_svm(features, labels, SvmConfig(C="official"), arch=arch, data=data, variant=variant)
    assert (fitted.kind, fitted.C, fitted.standardised) == (kind, C, False)
    assert fitted.classifier[-1].C == C
    assert {"svc": "SVC", "linear_svc": "LinearSVC"}[kind] == type(fitted.classifier[-1]).__name__
    assert "chosen on the test split" in fitted.how


@pytest.mark.parametrize(
    ("arch", "data", "variant"),
    [
        ("point_mae_tiny", "modelnet40", None),
        ("point_m2ae_base", "scanobjectnn", "PB_T50_RS"),
        ("point_bert_base", "scanobjectnn", "OBJ_BG"),
    ],
)
def test_nobody_published_a_c_for_others(arch: str, data: str, variant: str | None) -> None:
    features, labels = blobs()
    with pytest.raises(UsageError, match=r"point_m2ae on modelnet40.*point_m2ae on scanobjectnn \(obj_bg\)"):
        fit_svm(features, labels, SvmConfig(C="official"), arch=arch, data=data, variant=variant)


def test_a_class_token_that_was_never_trained_is_not_read(tmp_path: Path) -> None:
    new = pl.create_model(MODEL["name"], **MODEL["options"])
    assert (new.config.pooling, svm_pooling(new)) == ("cls+max", "mean+max")
    assert svm_pooling(pl.create_model(MODEL["name"], **MODEL["options"], pooling="max")) == "max"
    trained = pl.create_model(MODEL["name"], **MODEL["options"])
    trained.origin = "somewhere"
    assert svm_pooling(trained) == "cls+max"


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


def test_features_are_computed_once(data: Path, tmp_path: Path) -> None:
    model = pl.create_model(MODEL["name"], **MODEL["options"])
    cache = FeatureCache(tmp_path)
    first, second = (evaluate_svm(model, pl.load_dataset(data), cache=cache, device="cpu") for _ in range(2))
    assert [f.record.data["features"]["computed"] for f in (first, second)] == [36, 0]
    assert second.record.data["features"]["cached"] == 36
    assert first.metrics == second.metrics


def test_a_name_with_and_without_weights(data: Path, tmp_path: Path) -> None:
    words = ("evaluate", "point_mae_tiny", "--protocol", "svm", "--data.root", data, "--data.points", "64", "--json")
    small = ("--model.options.depth", "1", "--model.options.embed_dim", "24")
    random = cli(*words, "--model.pretrained", "false", *small)
    assert random.code == 0, random.err
    assert "random" in random.err
    record = json.loads(random.out)["record"]
    assert record["model"]["pretrained"] is None
    assert record["features"]["pooling"] == "mean+max"
    assert (record["model"]["config"]["depth"], record["model"]["config"]["embed_dim"]) == (1, 24)
    assert "--model.pretrained false" in record["command"]
    weights = pl.create_model("point_mae_tiny", depth=1, embed_dim=24)
    state = weights.state_dict()
    about = describe(weights.arch, to_dict(weights.config), state, classes=None, preprocess={"points": 64})
    path = write_model_file(tmp_path / "own.safetensors", state, about)
    own = cli(*words, "--model.pretrained", path)
    assert own.code == 0, own.err
    assert json.loads(own.out)["record"]["model"]["pretrained"] == str(path)
    refused(cli("evaluate", path, *words[2:], "--model.pretrained", "false"), "its own weights", code=2)
    refused(cli(*words, "--model.name", "x"), "--model.pretrained", code=2)
    refused(cli(*words, "--model.options.dept", "3"), "depth", code=2)


def test_the_command_line(data: Path) -> None:
    words = ("evaluate", "point_mae_tiny", "--protocol", "svm", "--data.root", data, "--data.points", "64")
    ended = cli(*words, "--svm.C", "0.1")
    assert ended.code == 0, ended.err
    assert "protocol svm" in ended.out
    refused(cli(*words, "--vote.rounds", "2"), "--protocol vote", code=2)
    refused(cli(*words, "--split", "val"), "it learns on train", code=2)
    refused(cli(*words, "--svm.C", "official"), "official", "point_m2ae", code=2)
    refused(cli(*words, "--svm.C", "-1"), "above 0", code=2)
