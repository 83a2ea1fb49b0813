"""One cloud to a label, whatever file, batch or unit it comes in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_runs import CLASSES, MODEL, cloud

import pointlift as pl
from pointlift.core.errors import DataError, FileFormatError, UsageError
from pointlift.tasks.predict import data_config_of, features_many, predict, predict_many
from pointlift.tasks.run import Run


@pytest.fixture(scope="module")
def model(finished: Path):
    return Run(finished).model


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(8)
    paths = []
    for i in range(7):
        paths.append(tmp_path / f"{i}.npy")
        np.save(paths[-1], cloud(i % 4, rng, 40 + 30 * i))
    return paths


def same(a, b, tolerance: float = 1e-6) -> None:
    assert a.label == b.label
    assert a.probabilities == pytest.approx(b.probabilities, abs=tolerance)


def test_prediction_is_a_distribution_over_class_names(model, files: list[Path]) -> None:
    found = predict(model, files[0])
    assert tuple(found.probabilities) == CLASSES
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert found.label == CLASSES[found.index]
    assert found.probability == max(found.probabilities.values()) == found.probabilities[found.label]
    assert found.path == files[0]


def test_batch_equals_one_by_one(model, files: list[Path]) -> None:
    for batch_size in (2, 7):
        for together, path in zip(predict_many(model, files, batch_size=batch_size), files, strict=True):
            assert together.path == path
            same(together, predict(model, path))


def test_folder_stands_for_its_files(model, files: list[Path]) -> None:
    assert [p.path for p in predict_many(model, [files[0].parent])] == files
    with pytest.raises(FileFormatError, match="is a folder"):
        predict(model, files[0].parent)


def test_unit_place_and_kind_do_not_matter(model, files: list[Path]) -> None:
    xyz = np.load(files[3])
    expected = predict(model, xyz)
    same(predict(model, pl.PointCloud(xyz)), expected)
    same(predict(model, xyz.astype(np.float64) * 1000), expected, 1e-4)  # millimetres
    millions = xyz.astype(np.float64) + 1e8
    same(predict(model, millions), expected, 1e-3)


@pytest.mark.parametrize("count", [8, 300_000])
def test_few_and_many_points(model, count: int) -> None:
    found = predict(model, cloud(0, np.random.default_rng(1), count))
    assert 0 < found.probability <= 1


def test_identical_points(model) -> None:
    found = predict(model, np.full((50, 3), 3.5))
    assert sum(found.probabilities.values()) == pytest.approx(1)


@pytest.mark.parametrize("count", [1, 7])
def test_fewer_points_than_groups(model, count: int) -> None:
    with pytest.raises(DataError, match=f"has {count} points.*at least 8"):
        predict(model, np.random.default_rng(0).random((count, 3)))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((0, 3)), "no points"),
        (np.zeros((20, 2)), "shape"),
        (np.full((20, 3), np.nan), "NaN"),
        (np.full((20, 3), np.inf), "infinite"),
        (np.array([["a", "b", "c"]] * 9), "type"),
    ],
)
def test_arrays_that_are_no_clouds(model, array: np.ndarray, words: str) -> None:
    with pytest.raises(FileFormatError, match=words):
        predict(model, array)


def test_headless_model_names_features(files: list[Path]) -> None:
    with pytest.raises(UsageError, match="pointlift features"):
        predict(pl.create_model(MODEL["name"], **MODEL["options"]), files[0])


def test_features(model, files: list[Path]) -> None:
    found = list(features_many(model, files, batch_size=3))
    assert [c.path for c, _ in found] == files
    assert all(f.shape == (32,) for _, f in found)  # class token and maximum, 16 wide each
    alone = next(features_many(model, [files[5]]))[1]
    np.testing.assert_allclose(found[5][1], alone, atol=1e-5)
    assert next(features_many(model, files, pooling="mean"))[1].shape == (16,)
    with pytest.raises(UsageError, match="Did you mean 'max'"):
        next(features_many(model, files, pooling="maxx"))


def test_up_axis_of_the_training_data_is_not_forced_on_other_data(model) -> None:
    model.preprocess = {**model.preprocess, "up_axis": "y"}
    assert data_config_of(model).up_axis is None
    assert data_config_of(model, {"resample": {"pad": "error"}}).resample.test == "fps"
