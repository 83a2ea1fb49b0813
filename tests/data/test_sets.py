"""Data-set layouts: what opens, and what is said when something is wrong."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from pointlift.core.errors import DataError, DatasetNotFoundError, FileFormatError, UnknownNameError, UsageError
from pointlift.data.cloud import PointCloud
from pointlift.data.config import DataConfig
from pointlift.data.files import write
from pointlift.data.loading import dataset_from_config, load_dataset, registered
from pointlift.data.sets.known import MODELNET40_CLASSES


def points(n: int, size: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (n, size, 3)).astype(np.float32)


def save_npz(path, n=6, classes=("bed", "cup"), **changes):
    arrays = {
        "points": points(n),
        "label": np.arange(n) % 2,
        "classes": classes and np.array(classes),
        "name": np.arange(n).astype(str),
    }
    arrays |= changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})


# npz folders -------------------------------------------------------------------------------------------------


def test_npz_folder(tmp_path):
    save_npz(tmp_path / "train.npz", 8)
    save_npz(tmp_path / "test_b.npz", 2)
    save_npz(tmp_path / "test_a.npz", 4)
    data = load_dataset(tmp_path, up_axis="z", unit="m")
    assert data.splits == {"train": 8, "test": 6}
    assert data.meta.classes == ("bed", "cup")
    assert (data.meta.name, data.meta.native_points, data.meta.up_axis, data.meta.unit) == (tmp_path.name, 16, "z", "m")
    np.testing.assert_array_equal(data.test[4]["xyz"], points(2)[0])
    assert data.test.names == ("0", "1", "2", "3", "0", "1")


def test_npz_scaled_integers_normals_parts_and_axis(tmp_path):
    whole = np.round(points(4) * 32767).astype(np.int16)
    normals = np.full((4, 16, 3), 127, np.int8)
    save_npz(
        tmp_path / "train.npz", 4, points=None, points_i16=whole, normals_i8=normals,
        part=np.ones((4, 16), np.uint8), up_axis=np.array("y"),
    )  # fmt: skip
    data = load_dataset(tmp_path)
    assert data.meta.up_axis == "y"
    assert data.test is None
    sample = data.train.with_fields("normals", "part")[3]
    np.testing.assert_allclose(sample["xyz"], points(4)[3], atol=2e-5)
    np.testing.assert_allclose(sample["normals"], 1)
    assert sample["part"].tolist() == [1] * 16


@pytest.mark.parametrize("key", ["offset", "offsets"])
def test_npz_packed(key, tmp_path):
    flat = np.arange(30, dtype=np.uint16).reshape(10, 3)
    save_npz(tmp_path / "train.npz", 3, points=None, points_cm=flat, **{key: np.array([0, 2, 3, 10])})
    data = load_dataset(tmp_path)
    assert data.meta.native_points is None
    assert data.meta.unit == "m"
    assert data.train.counts().tolist() == [2, 1, 7]
    np.testing.assert_allclose(data.train[1]["xyz"], [[0.06, 0.07, 0.08]], rtol=1e-6)


def test_npz_without_class_names_numbers_them(tmp_path):
    save_npz(tmp_path / "train.npz", 4, classes=None, label=np.array([0, 1, 1, 2]))
    assert load_dataset(tmp_path).meta.classes == ("0", "1", "2")


def test_words_in_the_names_of_npz_files_say_the_part(tmp_path):
    names = {"train": 6, "val": 2, "validation-2": 3, "test_b": 4, "test2": 1}
    for name, n in names.items():
        save_npz(tmp_path / f"{name}.npz", n)
    for name in ("values", "tests", "testimony", "training_log"):
        np.savez(tmp_path / f"{name}.npz", loss=np.zeros(3))
    assert load_dataset(tmp_path).splits == {"train": 6, "val": 5, "test": 5}


def test_only_a_test_part(tmp_path):
    save_npz(tmp_path / "test.npz", 4)
    assert load_dataset(tmp_path).splits == {"train": 0, "test": 4}


def test_modelnet40_is_recognised_by_its_classes(tmp_path):
    save_npz(tmp_path / "train.npz", 4, classes=MODELNET40_CLASSES)
    meta = load_dataset(tmp_path).meta
    assert (meta.name, meta.variant) == ("modelnet40", "npz, 16 points")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"label": np.array([0, 1, 5, 1])}, r"train\.npz: label 5 of cloud 2 is outside the 2 classes"),
        ({"label": np.array([0, 1])}, "2 labels for 4 clouds"),
        ({"label": np.array([0.0, 1.0, 1.0, 1.0])}, "labels of type float64"),
        ({"points": np.zeros((4, 16, 2))}, r"points of shape \(4, 16, 2\)"),
        ({"points": np.zeros((4, 0, 3))}, "no points"),
        ({"points": np.full((4, 5, 3), np.nan)}, "cloud 0: 5 of 5 points"),
        ({"points": np.array([[None] * 3] * 4)}, "pickle"),
        ({"points": None}, "points_i16"),
        ({"part": np.zeros((4, 5))}, r"'part' of shape \(4, 5\)"),
        ({"up_axis": np.array("up")}, "up_axis 'up'"),
        ({"name": np.array(["a"])}, "names"),
    ],
)  # fmt: skip
def test_wrong_npz(changes, says, tmp_path):
    save_npz(tmp_path / "train.npz", 4, **changes)
    with pytest.raises(DataError, match=says):
        load_dataset(tmp_path)


def test_train_and_test_with_different_classes(tmp_path):
    save_npz(tmp_path / "train.npz")
    save_npz(tmp_path / "test.npz", classes=("cup", "bed"))
    with pytest.raises(DataError, match=r"test\.npz and .*train\.npz name different classes"):
        load_dataset(tmp_path)


def test_a_cut_npz(tmp_path):
    save_npz(tmp_path / "train.npz")
    whole = (tmp_path / "train.npz").read_bytes()
    (tmp_path / "train.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match=r"train\.npz"):
        load_dataset(tmp_path)


# HDF5 --------------------------------------------------------------------------------------------------------


def save_h5(path, n=5, **changes):
    arrays = {"data": points(n), "label": (np.arange(n) % 3).astype(np.uint8)[:, None]} | changes
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            if value is not None:
                file[key] = value


def test_modelnet40_hdf5(tmp_path):
    for name, n in (("train1", 2), ("train0", 5), ("test0", 3)):
        save_h5(tmp_path / f"ply_data_{name}.h5", n)
    (tmp_path / "train_files.txt").write_text("data/ply_data_train0.h5\n")
    data = load_dataset(tmp_path)
    assert data.splits == {"train": 7, "test": 3}
    assert data.meta.classes == MODELNET40_CLASSES
    assert (data.meta.name, data.meta.up_axis) == ("modelnet40", "y")
    assert data.train.names[5] == "ply_data_train1/0"
    np.testing.assert_array_equal(data.train[5]["xyz"], points(2)[0])


def test_modelnet40_hdf5_in_its_customary_parent(tmp_path):
    (tmp_path / "modelnet40_ply_hdf5_2048").mkdir()
    save_h5(tmp_path / "modelnet40_ply_hdf5_2048" / "ply_data_test0.h5", 3)
    assert load_dataset(tmp_path).splits == {"train": 0, "test": 3}


def test_other_hdf5_takes_names_from_a_file(tmp_path):
    save_h5(tmp_path / "mine_train.h5", label=np.arange(5) % 3)
    assert load_dataset(tmp_path).meta.classes == ("0", "1", "2")
    (tmp_path / "classes.txt").write_text("arch\nbeam\ncrane\n")
    assert load_dataset(tmp_path).meta.classes == ("arch", "beam", "crane")
    assert load_dataset(tmp_path).test is None


def test_words_in_the_names_of_hdf5_files_say_the_part(tmp_path):
    names = {"latest_train": 4, "Train-2": 3, "contest_val0": 2, "testing.b": 1, "retest": 9, "pretrained": 9}
    for name, n in names.items():
        save_h5(tmp_path / f"{name}.h5", n, label=np.zeros(n, int))
    data = load_dataset(tmp_path)
    assert data.splits == {"train": 7, "val": 2, "test": 1}
    assert data.meta.note.startswith("2 file(s) of no part left out (pretrained.h5, retest.h5)")


def test_an_hdf5_file_of_two_parts(tmp_path):
    save_h5(tmp_path / "train.h5")
    save_h5(tmp_path / "train_test.h5")
    with pytest.raises(DataError, match=r"train_test\.h5: its name says train and test"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"label": None}, "datasets `data` and `label`"),
        ({"label": np.full(5, 77)}, "label 77 of cloud 0 is outside the 40"),
        ({"label": np.zeros(2, int)}, "2 labels for 5 clouds"),
        ({"data": np.zeros((5, 3))}, "points of shape"),
    ],
)
def test_wrong_hdf5(changes, says, tmp_path):
    save_h5(tmp_path / "ply_data_train0.h5", **changes)
    with pytest.raises(DataError, match=says) as info:
        load_dataset(tmp_path)
    assert "ply_data_train0.h5" in str(info.value)


def test_hdf5_garbage_and_unwritten_chunks(tmp_path):
    path = tmp_path / "ply_data_train0.h5"
    path.write_bytes(b"not hdf5 at all" * 100)
    with pytest.raises(FileFormatError, match="cannot be read as HDF5"):
        load_dataset(tmp_path)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", shape=(10**9, 2048, 3), dtype="f4", chunks=(1, 2048, 3))
        file["label"] = np.zeros(3, int)
    with pytest.raises(FileFormatError, match="at most"):
        load_dataset(tmp_path)


# Class folders -----------------------------------------------------------------------------------------------


def save_cloud(path, seed=0, size=16):
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(PointCloud(points(1, size, seed)[0]), path)


@pytest.fixture
def folders(tmp_path):
    root = tmp_path / "mine"
    for i, name in enumerate(["chair/b.ply", "chair/a.npy", "Bed/1.xyz", "Bed/2.npz", "Bed/3.txt", "table/x.csv"]):
        save_cloud(root / name, i)
    return root


def test_class_folders_with_mixed_formats(folders):
    data = load_dataset(folders)
    assert data.meta.classes == ("Bed", "chair", "table")
    assert data.train.names == ("Bed/1.xyz", "Bed/2.npz", "Bed/3.txt", "chair/a.npy", "chair/b.ply", "table/x.csv")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 2]
    assert data.meta.native_points == 16
    np.testing.assert_array_equal(data.train[4]["xyz"], points(1, seed=0)[0])
    assert data.test is None


@pytest.mark.parametrize("arrangement", ["{part}/{name}/{i}.npy", "{name}/{part}/{i}.npy"])
def test_train_and_test_folders(arrangement, tmp_path):
    for part, count in (("train", 3), ("test", 2)):
        for name in ("cup", "bowl"):
            for i in range(count):
                save_cloud(tmp_path / arrangement.format(part=part, name=name, i=i), i, size=16 + i)
    data = load_dataset(tmp_path)
    assert data.splits == {"train": 6, "test": 4}
    assert data.meta.classes == ("bowl", "cup")
    assert data.meta.native_points is None
    assert data.test.labels.tolist() == [0, 0, 1, 1]


def test_what_is_hidden_or_not_a_cloud_is_left_out(folders):
    (folders / ".git").mkdir()
    (folders / "__MACOSX" / "chair").mkdir(parents=True)
    (folders / "chair" / ".DS_Store").write_text("x")
    (folders / "chair" / "._b.ply").write_text("x")
    (folders / "chair" / "photo.jpg").write_text("x")
    (folders / "README.md").write_text("x")
    data = load_dataset(folders)
    assert len(data.train) == 6
    assert data.meta.note == "1 file(s) left out for their ending (1 x .jpg)"


def test_one_bad_file_is_named(folders):
    (folders / "chair" / "b.ply").write_text("ply\nnothing more")
    with pytest.raises(FileFormatError, match=r"chair/b\.ply is not a PLY file.*Repair or remove this file"):
        load_dataset(folders)
    (folders / "Bed" / "1.xyz").write_text("1 2 nan\n")
    with pytest.raises(FileFormatError, match=r"(?s)2 of 6 files.*Bed/1\.xyz.*chair/b\.ply"):
        load_dataset(folders)


def test_an_empty_class_folder(folders):
    (folders / "lamp").mkdir()
    (folders / "lamp" / "a.jpg").write_text("x")
    with pytest.raises(DataError, match=r"class folder .*lamp has no readable file \(1 x \.jpg\)"):
        load_dataset(folders)


def test_a_test_class_that_train_does_not_have(tmp_path):
    save_cloud(tmp_path / "train/cup/1.npy")
    save_cloud(tmp_path / "test/cap/1.npy")
    with pytest.raises(DataError, match="test has a class 'cap'"):
        load_dataset(tmp_path)


def test_folders_that_are_no_part_are_named(tmp_path):
    for part in ("training", "eval", "testing", "extra"):
        save_cloud(tmp_path / part / "cup" / "a.npy")
    data = load_dataset(tmp_path)
    assert (data.splits, data.meta.classes) == ({"train": 1, "test": 1}, ("cup",))
    assert data.meta.note == "2 folder(s) left out (eval/, extra/)"


def test_folders_that_are_no_part_of_a_class_are_named(tmp_path):
    for name in ("cup/train", "cup/test", "cup/holdout", "hat/train"):
        save_cloud(tmp_path / name / "a.npy")
    data = load_dataset(tmp_path)
    assert (data.splits, data.meta.classes) == ({"train": 2, "test": 1}, ("cup", "hat"))
    assert data.meta.note == "1 folder(s) left out (cup/holdout/)"


def test_large_folders_are_read_when_asked_for(folders, monkeypatch):
    monkeypatch.setattr("pointlift.data.sets.class_folders.READ_AHEAD_BYTES", 0)
    (folders / "chair" / "b.ply").write_text("ply\nnothing more")
    data = load_dataset(folders)
    assert data.meta.native_points is None
    with pytest.raises(FileFormatError, match=r"b\.ply"):
        data.train[4]


# Finding the right one ---------------------------------------------------------------------------------------


def test_nothing_there_says_where_what_and_how(tmp_path):
    (tmp_path / "modelnet40_ply_hdf5_2048.zip").write_text("x")
    with pytest.raises(DatasetNotFoundError) as info:
        load_dataset(tmp_path)
    text = str(info.value)
    assert str(tmp_path) in text
    for word in ("train.npz", "ply_data_train*.h5", "<class>/", "Unpack modelnet40_ply_hdf5_2048.zip first"):
        assert word in text
    assert len(text.splitlines()) < 20


def test_missing_folders_files_and_archives(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"no folder .*gone"):
        load_dataset(tmp_path / "gone")
    (tmp_path / "a.tar.gz").write_text("x")
    for name in ("auto", "scanobjectnn"):
        with pytest.raises(DatasetNotFoundError, match=r"no folder .*Unpack a\.tar\.gz first"):
            load_dataset(tmp_path / "a", name=name)
    with pytest.raises(DatasetNotFoundError, match=r"is an archive.*Unpack"):
        load_dataset(tmp_path / "a.tar.gz")
    save_npz(tmp_path / "train.npz")
    with pytest.raises(DatasetNotFoundError, match=r"is a file.*Give the folder"):
        load_dataset(tmp_path / "train.npz")
    with pytest.raises(UsageError, match=r"data\.root"):
        load_dataset()


def test_a_layout_can_be_named(folders):
    assert len(load_dataset(folders, name="class_folders").train) == 6
    with pytest.raises(DatasetNotFoundError, match=r"(?s)no npz in .*How to get it"):
        load_dataset(folders, name="npz")
    with pytest.raises(UnknownNameError, match="Did you mean 'class_folders'"):
        load_dataset(folders, name="class_folder")


def test_unknown_options_name_the_nearest(folders):
    with pytest.raises(UsageError, match=r"no option 'upaxis'.*Did you mean 'up_axis'"):
        load_dataset(folders, upaxis="z")


def test_from_a_config(folders):
    config = DataConfig(root=str(folders), up_axis="y", variant="first scan", test_fraction=0.4, limit=2)
    data = dataset_from_config(config)
    assert (data.meta.up_axis, data.meta.variant) == ("y", "first scan")
    assert data.splits == {"train": 2, "val": 1, "test": 2}
    assert "held out here" in data.meta.note


def test_every_entry_says_what_it_is():
    entries = dict(registered())
    assert {"npz", "modelnet40_hdf5", "class_folders"} <= set(entries)
    for entry in entries.values():
        assert entry.title
        assert entry.layout
        assert entry.get
        assert entry.terms


def test_an_axis_that_there_is_not(tmp_path):
    with pytest.raises(UsageError, match=r"up_axis 'q'.*x, y or z"):
        load_dataset(tmp_path, up_axis="q")
