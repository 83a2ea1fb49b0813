"""Feature vectors of files and data sets, their labels, and colours of points."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import CLASSES, MODEL, cloud, write_data

from pointlift.core.errors import DataError, UsageError
from pointlift.models.registry import create_model
from pointlift.tasks.features import cloud_features, one_of_each, point_colours, sources_of
from pointlift.tasks.predict import features_many


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = create_model(MODEL["name"], **MODEL["options"], num_classes=4).eval()
    made.preprocess = {"points": 64, "normalize": "unit_sphere"}
    return made


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Class folders under train/ and test/, and a file that belongs to no class."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("test", 2)):
        for k in (0, 2):
            place = tmp_path / "set" / part / CLASSES[k]
            place.mkdir(parents=True)
            for i in range(count):
                np.save(place / f"{i}.npy", cloud(k, rng))
    np.save(tmp_path / "set" / "loose.npy", cloud(1, rng))
    return tmp_path / "set"


def test_class_folders_give_labels_and_loose_files_none(folders: Path) -> None:
    found = sources_of([str(folders)])
    assert found.classes == ("ball", "disc")
    assert len(found.names) == 11
    said = {
        Path(name).relative_to(folders).as_posix(): int(k) for name, k in zip(found.names, found.labels, strict=True)
    }
    assert said["train/disc/1.npy"] == said["test/disc/0.npy"] == 1
    assert said["test/ball/0.npy"] == 0
    assert said["loose.npy"] == -1
    part = sources_of([str(folders)], part="test")
    assert part.labels.tolist() == [0, 0, 1, 1]
    with pytest.raises(UsageError, match="no part val"):
        sources_of([str(folders)], part="val")


def test_a_bad_file_of_a_class_folder_is_left_out(model, folders: Path) -> None:
    (folders / "test" / "ball" / "0.npy").write_bytes(b"noise")
    told = []
    found = cloud_features(model, sources_of([str(folders)], part="test"), said=lambda item, name: told.append(name))
    assert (found.failed, found.labels.tolist()) == (1, [0, 1, 1])
    assert [Path(name).parts[-2:] for name in told] == [("ball", "0.npy")]
    assert Path(found.names[0]).parts[-2:] == ("ball", "1.npy")


def test_a_data_set_in_arrays(model, tmp_path: Path) -> None:
    root = write_data(tmp_path / "set")
    found = cloud_features(model, sources_of([str(root)], part="test"), keep_clouds=True)
    assert found.classes == CLASSES
    assert found.labels.tolist() == [0, 1, 2, 3] * 3
    with np.load(root / "test.npz") as saved:
        expected = [row for _, row in features_many(model, list(saved["points"]))]
    np.testing.assert_allclose(found.features, np.stack(expected), atol=1e-5)
    assert [xyz.shape for xyz in found.clouds] == [(64, 3)] * 12
    assert len(sources_of([str(root)]).names) == 36


def test_a_limit_is_spread_over_the_classes(folders: Path, tmp_path: Path) -> None:
    root = write_data(tmp_path / "arrays")
    assert sorted(sources_of([str(root)], limit=8).labels.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert sorted(sources_of([str(folders)], part="train", limit=4).labels.tolist()) == [0, 0, 1, 1]
    files = [str(path) for path in sorted(folders.rglob("*.npy"))]
    assert sources_of(files, limit=3).names == [files[0], files[3], files[7]]


def test_made_data_need_no_folder() -> None:
    found = sources_of(["shapes"], part="test", limit=16)
    assert len(set(found.labels.tolist())) == 16
    assert found.up_axis == "z"


def test_files_have_no_parts(folders: Path) -> None:
    with pytest.raises(UsageError, match="split test"):
        sources_of([str(folders / "loose.npy")], part="test")


def test_like_places_have_like_colours(model) -> None:
    rng = np.random.default_rng(1)
    rod, ball = cloud(3, rng), cloud(0, rng)
    clouds = [rod / np.abs(rod).max(), ball, ball.copy()]
    colours = point_colours(model, clouds, batch_size=2)
    assert [c.shape for c in colours] == [(64, 3)] * 3
    assert all(c.dtype == np.uint8 for c in colours)
    assert np.abs(colours[1].astype(int) - colours[2]).max() <= 1, "the same cloud, whatever batch it is in"
    assert (colours[0].mean(axis=0) - colours[1].mean(axis=0)).any()
    assert min(c.min() for c in colours) == 0
    assert max(c.max() for c in colours) == 255


def test_colours_of_unsound_weights_are_refused(model) -> None:
    broken = copy.deepcopy(model)
    next(broken.trunk.parameters()).data.fill_(torch.nan)
    with pytest.raises(DataError, match="not finite"):
        point_colours(broken, [cloud(0, np.random.default_rng(1))])


def test_one_of_each_class_before_the_second() -> None:
    labels = np.array([2, 2, 0, 0, 0, 1])
    assert one_of_each(labels, 3) == [2, 5, 0]
    assert one_of_each(labels, 5) == [2, 5, 0, 3, 1]
    assert one_of_each(np.full(10, -1), 4) == [0, 2, 5, 7]
    assert one_of_each(np.full(2, -1), 4) == [0, 1]
