"""One cloud to a label, whatever file, batch or unit it comes in."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import CLASSES, MODEL, cloud

import pointlift as pl
from pointlift.core.errors import DataError, FileFormatError, UsageError
from pointlift.data.files import FORMATS
from pointlift.tasks.inputs import data_config_of
from pointlift.tasks.predict import features_many, predict, predict_many
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
    assert "at one place" in found.notes[0]


def test_three_million_points_in_bounded_memory(model) -> None:
    """Above the cloud itself (36 MB as float32): one float64 copy to normalise, and the model's points."""
    xyz = np.random.default_rng(0).random((3_000_000, 3), dtype=np.float32)
    predict(model, xyz[:100])
    tracemalloc.start()
    found = predict(model, pl.PointCloud(xyz))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0 < found.probability <= 1
    assert peak < 250e6


@pytest.mark.parametrize("count", [1, 2, 7])
def test_fewer_points_than_groups_are_repeated_and_said(model, count: int) -> None:
    xyz = np.random.default_rng(0).random((count, 3))
    found = predict(model, xyz)
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert f"The cloud has {count} point" in found.notes[0]
    same(predict(model, 1000 * xyz + 5), found, 1e-4)
    assert predict(model, np.random.default_rng(0).random((8, 3))).notes == ()


def test_a_model_that_wants_enough_points_gets_them(model) -> None:
    import copy

    strict = copy.deepcopy(model)
    strict.preprocess = {**model.preprocess, "resample": {**model.preprocess["resample"], "pad": "error"}}
    with pytest.raises(DataError, match="a cloud of 7 points"):
        predict(strict, np.random.default_rng(0).random((7, 3)))
    (only,) = predict_many(strict, [np.zeros((7, 3))])
    assert "a cloud of 7 points" in only.error


def test_bad_files_do_not_stop_the_others(model, files: list[Path]) -> None:
    files[2].write_bytes(b"junk")
    nan = np.load(files[4])
    nan[3] = np.nan
    np.save(files[4], nan)
    nowhere = files[0].with_name("nowhere.npy")
    found = list(predict_many(model, [*files[:5], nowhere, *files[5:]], batch_size=2))
    assert [p.path for p in found] == [*files[:5], nowhere, *files[5:]]
    assert [p.error is not None for p in found] == [False, False, True, False, True, True, False, False]
    for p in found:
        if p.error is None:
            same(p, predict(model, p.path))
        else:
            assert p.path.name in p.error
            assert (p.label, p.index, p.probability, p.probabilities) == ("", -1, 0.0, {})
            said = p.to_dict()
            assert (said["label"], said["index"], said["probability"]) == (None, None, None)
            assert said["error"] == p.error
    rows = [row for _, row in features_many(model, files)]
    assert [row is None for row in rows] == [False, False, True, False, True, False, False]


def test_nothing_readable_at_all(model, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = list(predict_many(model, [tmp_path / "empty", tmp_path / "*.ply", np.zeros((0, 3))]))
    assert [p.error is not None for p in found] == [True] * 3


def test_folders_below_a_folder_are_read(model, files: list[Path]) -> None:
    below = files[0].parent / "more" / "still more"
    below.mkdir(parents=True)
    np.save(below / "last.npy", np.load(files[0]))
    assert [p.path for p in predict_many(model, [files[0].parent])] == sorted([*files, below / "last.npy"])


def test_answers_come_batch_by_batch(model, files: list[Path]) -> None:
    asked: list[Path] = []

    def sources():
        for path in files:
            asked.append(path)
            yield path

    answers = predict_many(model, sources(), batch_size=2)
    next(answers)
    assert len(asked) == 2


def test_every_writable_format_gives_the_same_answer(model, tmp_path: Path) -> None:
    xyz = cloud(2, np.random.default_rng(3), 500)
    source = pl.PointCloud(xyz, {"colors": np.zeros((500, 3), np.uint8)})
    expected = predict(model, source)
    written = [ending for ending in FORMATS if FORMATS.get(ending).write is not None]
    assert {".ply", ".npz", ".npy", ".xyz"} <= set(written)
    for ending in written:
        same(predict(model, pl.write(source, tmp_path / f"cloud{ending}")), expected, 1e-3)


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
    assert [item.path for item, _ in found] == files
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
