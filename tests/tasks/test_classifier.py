"""`PointClassifier` keeps scikit-learn's customs, on anything that holds clouds."""

from __future__ import annotations

import copy
import io
import logging
import pickle
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from tiny_runs import CLASSES, MODEL, cloud

import pointlift as pl
from pointlift.core.errors import CheckpointError, DataError, DatasetNotFoundError, FileFormatError, UsageError
from pointlift.data.dataset import CloudSplit
from pointlift.data.stores import FileStore
from pointlift.tasks import classifier, frozen
from pointlift.tasks.classifier import PointClassifier
from pointlift.tasks.cloud_input import encode_labels


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = pl.create_model(MODEL["name"], **MODEL["options"])
    made.preprocess = {"points": 64}
    return made


@pytest.fixture
def make(model, tmp_path: Path):
    """Classifiers with a cache of their own and one C, so that fits are quick."""

    def made(**options) -> PointClassifier:
        return PointClassifier(**{"model": model, "cache": tmp_path / "cache", "C": 1.0, **options})

    return made


@pytest.fixture(scope="module")
def clouds() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [cloud(i % 4, rng, 60 + 3 * i) for i in range(48)]


@pytest.fixture(scope="module")
def names() -> list[str]:
    return [CLASSES[i % 4] for i in range(48)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, clouds, names) -> Path:
    """`train/<class>/*.npy` and `test/<class>/*.npy`, 36 and 12 clouds."""
    root = tmp_path_factory.mktemp("clouds")
    for i, (xyz, name) in enumerate(zip(clouds, names, strict=True)):
        place = root / ("train" if i < 36 else "test") / name
        place.mkdir(parents=True, exist_ok=True)
        np.save(place / f"{i:02}.npy", xyz)
    return root


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many clouds went through the trunk, call by call."""
    counted: list[int] = []
    real = frozen._pooled
    monkeypatch.setattr(frozen, "_pooled", lambda m, b, how: (counted.append(len(b["xyz"])), real(m, b, how))[1])
    return counted


# ------------------------------------------------------------------------------------------------ what goes in


def test_class_folders(make, folder: Path) -> None:
    clf = make().fit(folder / "train")
    assert clf.classes_.tolist() == list(CLASSES)
    accuracy = clf.score(folder / "test")
    assert accuracy >= 0.9
    assert clf.score_["clouds"] == 12
    assert clf.score_["accuracy"] == accuracy == np.mean(clf.predict(folder / "test") == truth(folder / "test"))
    assert clf.score_["also_in_training"] == 0


def truth(folder: Path) -> list[str]:
    data = pl.load_dataset(folder)
    return [data.meta.classes[k] for k in data.train.labels]


def test_folder_with_parts_is_fitted_on_train_and_scored_on_test(make, folder: Path) -> None:
    clf = make().fit(folder)
    assert clf.record_["clouds"] == 36
    assert clf.score(folder) == make().fit(folder / "train").score(folder / "test")
    assert len(clf.predict(folder)) == 12
    assert clf.record_["data_hash"] == pl.load_dataset(folder).content_hash()


def test_the_same_clouds_in_every_form(make, folder: Path, clouds, names) -> None:
    data = pl.load_dataset(folder)
    order = np.argsort(names[:36], kind="stable")
    paths = sorted(path for path in (folder / "train").rglob("*.npy"))
    forms = {
        "folder": (folder, None),
        "data set": (data, None),
        "split": (data.train, [CLASSES[k] for k in data.train.labels]),
        "paths": (paths, [p.parent.name for p in paths]),
        "text": ([str(p) for p in paths], [p.parent.name for p in paths]),
        "arrays": ([clouds[i] for i in order], [names[i] for i in order]),
        "clouds": ([pl.PointCloud(clouds[i]) for i in order], [names[i] for i in order]),
        "samples": ([data.train[i] for i in range(36)], [CLASSES[k] for k in data.train.labels]),
        "tensors": ([torch.from_numpy(clouds[i]) for i in order], np.array([names[i] for i in order])),
    }
    expected = make().fit(folder).predict_proba(clouds[36:])
    for form, (X, y) in forms.items():
        found = make(cache=False).fit(X, y).predict_proba(clouds[36:])
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=form)


def test_one_array(make) -> None:
    rng = np.random.default_rng(0)
    X = np.stack([cloud(i % 4, rng) for i in range(24)])
    clf = make().fit(X, np.arange(24) % 4)
    assert clf.classes_.dtype.kind == "i"
    assert clf.predict(X).shape == (24,)
    np.testing.assert_array_equal(clf.predict([*X]), clf.predict(X))


def test_splits_keep_the_class_names_of_their_set(make, folder: Path) -> None:
    data = pl.load_dataset(folder)
    whole, part = make().fit(data), make().fit(data.train)
    assert part.classes_.tolist() == whole.classes_.tolist() == list(CLASSES)
    assert whole.score(data.test) == part.score(data) == whole.score(data) >= 0.9


def test_split_without_names_has_its_numbers_as_labels(make, folder: Path) -> None:
    train = pl.load_dataset(folder).train
    assert make().fit(train.described(None)).classes_.tolist() == [0, 1, 2, 3]
    assert make().fit(train.relabelled(train.labels + 7)).classes_.tolist() == [7, 8, 9, 10], "no names for these"


def test_labels_that_are_all_unknown_are_refused(make, folder: Path, clouds) -> None:
    clf = make().fit(folder)
    with pytest.raises(UsageError, match=r"none of the 12 labels is known: 0, 1, 2, … Expected: .*'ball', "):
        clf.score(clouds[36:], [i % 4 for i in range(12)])


def test_unlabelled_folder_is_predicted(make, folder: Path, clouds, tmp_path: Path) -> None:
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", clouds[i])
    clf = make().fit(folder)
    np.testing.assert_array_equal(clf.predict(tmp_path), clf.predict(clouds[:3]))
    np.testing.assert_array_equal(clf.predict(tmp_path / "1.npy"), clf.predict(clouds[1:2]))
    with pytest.raises(UsageError, match="without labels"):
        clf.score(tmp_path)


@pytest.mark.parametrize("labels", [(True, False), (3, 7), (0.5, 2.0), (("a", 1), ("b", 2)), ("a", 1), (None, "x")])
def test_labels_of_any_kind(make, clouds, labels) -> None:
    X = [clouds[i] for i in range(0, 48, 2)]  # two classes in turn
    y = [labels[i % 2] for i in range(24)]
    clf = make().fit(X, y)
    assert set(clf.classes_.tolist()) == set(labels)
    assert clf.predict(X).tolist() == y
    assert clf.score(X, y) == 1


def test_what_cannot_be_fitted(make, clouds, folder: Path, tmp_path: Path) -> None:
    fit = make().fit
    for X, y, words in [
        (clouds, None, "without labels"),
        (clouds, [0, 1], "2 labels for 48 clouds"),
        (clouds, [0] * 48, "one class only"),
        (clouds, [[0]] * 48, "hashable"),
        (clouds, [float("nan"), *[1] * 47], "NaN"),
        ([], [], "no training clouds"),
        (clouds[0], [0], r"shape \(60, 3\)"),
        (pl.PointCloud(clouds[0]), [0], "into a list"),
        ([1, 2], [0, 1], "a int as cloud 0"),
    ]:
        with pytest.raises(UsageError, match=words):
            fit(X, y)
    with pytest.raises(DataError, match=r"no file '.*a\.npy'"):
        fit([tmp_path / "a.npy", tmp_path / "b.npy"], [0, 1])
    with pytest.raises(FileFormatError, match="cloud 1: 1 of"):
        fit([clouds[0], np.full((1, 3), np.nan)], [0, 1])
    with pytest.raises(DatasetNotFoundError):
        fit(tmp_path / "nowhere")
    for options in ({"C": 0}, {"C": "best"}, {"C": []}, {"size": 3}, {"pooling": "maxx"}, {"batch_size": 0}):
        with pytest.raises(UsageError):
            make(**options).fit(folder)


def test_encoding_is_sorted_where_labels_can_be() -> None:
    classes, codes = encode_labels(np.array(["b", "a", "b"]))
    assert classes.tolist() == ["a", "b"]
    assert codes.tolist() == [1, 0, 1]
    assert encode_labels([2, "a", 2])[0].tolist() == [2, "a"]


# ------------------------------------------------------------------------------------------- scikit-learn customs


def test_parameters_clone_and_fitted(make, clouds, names) -> None:
    clf = make(C=0.5, pooling="max")
    assert is_classifier(clf)
    again = clone(clf)
    assert again.get_params()["C"] == 0.5
    assert again.set_params(C=2.0, pooling="mean") is again
    for call in (clf.predict, clf.predict_proba, clf.decision_function, clf.score, clf.features):
        with pytest.raises(NotFittedError):
            call(clouds[:2])
    before = clf.get_params()
    assert clf.fit(clouds, names) is clf
    assert clf.get_params() == before
    assert "PointClassifier" in repr(clf)


def test_probabilities_and_decisions(make, clouds, names) -> None:
    clf = make().fit(clouds[:36], names[:36])
    proba, decision, said = (f(clouds[36:]) for f in (clf.predict_proba, clf.decision_function, clf.predict))
    assert proba.shape == decision.shape == (12, 4)
    np.testing.assert_allclose(proba.sum(1), 1, atol=1e-6)
    for scores in (proba, decision):
        np.testing.assert_array_equal(clf.classes_[scores.argmax(1)], said)


@pytest.mark.parametrize("dump", ["pickle", "joblib"])
def test_saved_and_loaded(make, clouds, names, dump: str) -> None:
    clf = make().fit(clouds[:36], names[:36])
    buffer = io.BytesIO()
    (pickle if dump == "pickle" else joblib).dump(clf, buffer)
    buffer.seek(0)
    loaded = (pickle.load if dump == "pickle" else joblib.load)(buffer)
    np.testing.assert_allclose(loaded.predict_proba(clouds[36:]), clf.predict_proba(clouds[36:]), atol=1e-6)


def test_saved_one_is_small_and_knows_its_trunk(folder: Path, tmp_path: Path, monkeypatch) -> None:
    """By name, the trunk is not in the file; another one under that name is refused."""
    clf = PointClassifier("point_mae_tiny", cache=tmp_path, C=1.0).fit(folder)
    saved = pickle.dumps(clf)
    assert len(saved) < 400_000
    loaded = pickle.loads(saved)  # noqa: S301  made here
    np.testing.assert_array_equal(loaded.predict(folder), clf.predict(folder))
    other = pickle.loads(saved)  # noqa: S301
    other.set_params(model="point_mae_small")
    with pytest.raises(CheckpointError, match="fitted with"):
        other.predict(folder)


def test_trunk_that_learned_on_is_refused(clouds, names, tmp_path: Path, model) -> None:
    own = copy.deepcopy(model)
    clf = PointClassifier(own, cache=tmp_path, C=1.0).fit(clouds, names)
    with torch.no_grad():
        next(own.parameters()).add_(1)
    with pytest.raises(CheckpointError, match="fitted with"):
        clf.predict(clouds)


def test_cross_validation_goes_through_the_trunk_once(make, clouds, names, passes) -> None:
    scores = cross_val_score(make(), clouds, names, cv=3)
    assert scores.mean() >= 0.9
    assert sum(passes) == 48
    assert set(cross_val_predict(make(), clouds, names, cv=3)) <= set(CLASSES)
    search = GridSearchCV(make(), {"C": [0.01, 1.0], "size": [False, True]}, cv=2).fit(clouds, names)
    assert search.best_params_["C"] in (0.01, 1.0)
    assert sum(passes) == 48


@pytest.mark.slow
def test_two_processes(folder: Path, clouds, names, tmp_path: Path) -> None:
    clf = PointClassifier("point_mae_tiny", cache=tmp_path, C=1.0)
    one = cross_val_score(clf, clouds[:24], names[:24], cv=2)
    np.testing.assert_array_equal(cross_val_score(clf, clouds[:24], names[:24], cv=2, n_jobs=2), one)


def test_pipeline(make, clouds, names) -> None:
    larger = FunctionTransformer(lambda X: [1000 * xyz for xyz in X])
    pipe = Pipeline([("unit", larger), ("clf", make())]).fit(clouds[:36], names[:36])
    assert pipe.score(clouds[36:], names[36:]) >= 0.9
    assert pipe.set_params(clf__C=0.1).get_params()["clf__C"] == 0.1
    assert cross_val_score(pipe, clouds, names, cv=2).mean() > 0.8


def test_another_head(make, clouds, names, passes) -> None:
    make().fit(clouds, names)
    computed = sum(passes)
    clf = make(head=KNeighborsClassifier(1)).fit(clouds, names)
    assert sum(passes) == computed
    assert clf.score(clouds, names) == 1
    assert clf.predict_proba(clouds).shape == (48, 4)
    assert not hasattr(clf, "decision_function")
    assert clf.record_["C"] is None


# --------------------------------------------------------------------------------------------- what it stands on


def test_second_fit_computes_nothing(make, folder: Path, model, passes) -> None:
    model.train()
    first = make().fit(folder)
    assert model.training  # left as it was
    assert (first.record_["computed"], first.record_["cached"]) == (36, 0)
    again = make(C="auto").fit(folder)
    assert (again.record_["computed"], again.record_["cached"]) == (0, 36)
    assert sum(passes) == 36
    make(pooling="max").fit(folder)
    assert sum(passes) == 72
    make(cache=False).fit(folder)
    assert sum(passes) == 108


def test_cache_knows_weights_and_preparation(make, clouds, names, model, passes) -> None:
    make().fit(clouds, names)
    torch.manual_seed(1)
    other = pl.create_model(MODEL["name"], **MODEL["options"])
    other.preprocess = {"points": 64}
    make(model=other).fit(clouds, names)
    assert sum(passes) == 96
    other.load_state_dict(model.state_dict())
    make(model=other).fit(clouds, names)
    assert sum(passes) == 96
    other.preprocess = {"points": 32}
    make(model=other).fit(clouds, names)
    assert sum(passes) == 144


def test_files_of_the_same_names_and_sizes_are_told_apart(make, clouds, names, tmp_path: Path, passes) -> None:
    """Stores whose hash covers names and sizes only, as large sets have them."""
    for folder, shift in (("one", 0), ("two", 12)):
        (tmp_path / folder / "a").mkdir(parents=True)
        for i in range(12):
            np.save(tmp_path / folder / "a" / f"{i}.npy", clouds[i + shift][:60])

    def split(folder: str) -> CloudSplit:
        paths = [tmp_path / folder / "a" / f"{i}.npy" for i in range(12)]
        return CloudSplit(FileStore(paths, hash_bytes=False), np.arange(12) % 4)

    one, two = make().fit(split("one")), make().fit(split("two"))
    assert sum(passes) == 24
    assert not np.array_equal(one.features(split("one")), two.features(split("two")))
    one.score(split("two"))
    assert one.score_["also_in_training"] == 0


def test_the_same_clouds_are_known_whatever_they_lie_in(make, clouds, names, tmp_path: Path, passes) -> None:
    clf = make().fit(clouds[:12], names[:12])
    offsets = np.cumsum([0, *map(len, clouds[:12])])
    (tmp_path / "packed").mkdir()
    np.savez(
        tmp_path / "packed" / "train.npz",
        points=np.concatenate(clouds[:12]).astype(np.float32),
        offset=offsets,
        label=np.arange(12) % 4,
        classes=np.array(CLASSES),
    )
    paths = [tmp_path / f"{i}.npy" for i in range(12)]
    for path, xyz in zip(paths, clouds, strict=False):
        np.save(path, xyz)
    folder = tmp_path / "folders"
    for i in range(12):
        (folder / names[i]).mkdir(parents=True, exist_ok=True)
        (folder / names[i] / f"{i}.npy").write_bytes(paths[i].read_bytes())
    for X, y in ((paths, names[:12]), (folder, None), (tmp_path / "packed", None)):
        clf.score(X, y)
        assert clf.score_["also_in_training"] == 12
    assert sum(passes) == 12


def test_changed_file_is_computed_anew(make, tmp_path: Path, clouds, names, passes) -> None:
    paths = [tmp_path / f"{i}.npy" for i in range(12)]
    for path, xyz in zip(paths, clouds, strict=False):
        np.save(path, xyz)
    make().fit(paths, names[:12])
    np.save(paths[3], clouds[20])
    make().fit(paths, names[:12])
    assert sum(passes) == 13


def test_damaged_cache_is_computed_anew(make, folder: Path, tmp_path: Path, caplog) -> None:
    expected = make().fit(folder).predict_proba(folder)
    for path in (tmp_path / "cache").rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:-50])
    clf = make().fit(folder)
    assert "damaged" in caplog.text
    assert clf.record_["computed"] == 36
    np.testing.assert_allclose(clf.predict_proba(folder), expected, atol=1e-6)


def test_features_are_those_of_the_model_alone_and_in_batches(make, clouds, names, model) -> None:
    clf = make(pooling="cls+max").fit(clouds, names)
    from pointlift.tasks.predict import features_many

    expected = np.stack([row for _, row in features_many(model, clouds, pooling="cls+max")])
    np.testing.assert_allclose(clf.features(clouds), expected, atol=1e-5)
    one = make(pooling="cls+max", batch_size=1, cache=False).fit(clouds, names).features(clouds)
    np.testing.assert_allclose(one, expected, atol=1e-5)
    assert clf.features(clouds).dtype == np.float32


def test_random_weights_are_said(folder: Path, tmp_path: Path, caplog) -> None:
    classifier._say_untrained.cache_clear()
    with caplog.at_level(logging.WARNING):
        clf = PointClassifier("point_bert_tiny", cache=tmp_path, C=1.0).fit(folder)
    assert "no trained weights" in caplog.text
    assert clf.record_["trained"] is False
    assert clf.score(folder) >= 0.9


def test_the_default_has_trained_weights(folder: Path, tmp_path: Path, caplog) -> None:
    classifier._say_untrained.cache_clear()
    with caplog.at_level(logging.WARNING):
        clf = PointClassifier(cache=tmp_path, C=1.0).fit(folder)
    assert "no trained weights" not in caplog.text
    assert clf.record_["trained"] is True
    assert clf.record_["from"] == "point_mae_tiny.procedural"


def test_scoring_the_training_clouds_is_said(make, folder: Path, caplog) -> None:
    clf = make().fit(folder)
    clf.score(folder)
    assert "fitted on" not in caplog.text
    clf.score(folder / "train")
    assert clf.score_["also_in_training"] == 36
    assert "36 of the 36 clouds scored were fitted on" in caplog.text


def test_unknown_classes_count_as_wrong(make, clouds, names) -> None:
    clf = make().fit(clouds[:36], names[:36])
    right = clf.score(clouds[36:], names[36:])
    assert clf.score(clouds[36:], ["?" if n == "rod" else n for n in names[36:]]) <= right - 0.2
    assert clf.score_["of_unknown_class"] == 3


def test_c_is_chosen_on_training_clouds(make, clouds, names) -> None:
    clf = make(C="auto").fit(clouds[:36], names[:36])
    tried = clf.record_["C_tried"]
    assert str(clf.record_["C"]) in tried
    assert clf.record_["held_out_accuracy"] == max(tried.values())
    assert make(C=[0.1, 1.0]).fit(clouds, names).record_["C"] in (0.1, 1.0)
    lonely = make(C="auto").fit(clouds[:4], names[:4])  # one cloud per class: nothing can be held out
    assert lonely.record_["C"] == 1.0
    assert lonely.record_["C_tried"] == {}


def test_random_state_is_a_number_or_none(make, clouds, names) -> None:
    drawn = make(C="auto", random_state=None).fit(clouds, names).record_["seed"]
    again = make(C="auto", random_state=drawn).fit(clouds, names)
    assert again.record_["seed"] == drawn
    state = np.random.RandomState(0)
    seeds = {make(random_state=state).fit(clouds, names).record_["seed"] for _ in range(2)}
    assert len(seeds) == 2
    with pytest.raises(UsageError, match="random_state 'x'"):
        make(random_state="x").fit(clouds, names)


# ------------------------------------------------------------------------------------------------------- size


@pytest.fixture(scope="module")
def sized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Balls of one metre and of ten: only size tells them apart."""
    root, rng = tmp_path_factory.mktemp("sized"), np.random.default_rng(0)
    for part in ("train", "test"):
        points = np.stack([cloud(0, rng) * (1 + 9 * (i % 2)) for i in range(24)])
        np.savez(root / f"{part}.npz", points=points, label=np.arange(24) % 2, classes=np.array(["small", "large"]))
    return root


def test_size_is_used_where_the_unit_is_known(make, sized: Path) -> None:
    metric, unknown = pl.load_dataset(sized, unit="m", up_axis="z"), pl.load_dataset(sized)
    clf = make().fit(metric)
    assert clf.record_["size"] is True
    assert clf.score(metric) >= 0.9
    blind = make().fit(unknown)
    assert blind.record_["size"] is False
    assert blind.score(unknown) < 0.8
    assert clf.record_["features"] == blind.record_["features"] + 4
    assert make(size=True).fit(unknown).score(unknown) >= 0.9
    assert make(size=False).fit(metric).record_["size"] is False


def test_sizes_of_another_unit_are_refused(make, sized: Path) -> None:
    clf = make().fit(pl.load_dataset(sized, unit="m"))
    other = pl.load_dataset(sized, unit="mm")
    for clouds in (other, other.test):
        with pytest.raises(DataError, match="clouds in mm"):
            clf.score(clouds)


def test_size_features_follow_the_up_axis() -> None:
    geometry = np.array([[3.0, 1.0, 2.0, 4.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    upright, unknown = frozen.size_features(geometry, "z"), frozen.size_features(geometry, None)
    np.testing.assert_allclose(np.exp(upright[0]), [1, 3, 2, 4], rtol=1e-6)
    np.testing.assert_allclose(np.exp(unknown[0]), [1, 2, 3, 4], rtol=1e-6)
    assert np.isfinite(upright).all()


@pytest.mark.parametrize("count", [1, 3, 20_000])
def test_clouds_of_any_size_and_place(make, clouds, names, count: int) -> None:
    clf = make(size=False).fit(clouds, names)
    xyz = cloud(3, np.random.default_rng(5), count)
    assert clf.predict([xyz, np.full((9, 3), 2.0)]).shape == (2,)
    expected = clf.predict_proba([xyz])
    for moved in (xyz.astype(float) * 1000, xyz.astype(float) + 1e8):
        np.testing.assert_allclose(clf.predict_proba([moved]), expected, atol=2e-3)
