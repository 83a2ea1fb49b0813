"""The layouts for one's own data: validation folders, meshes, files without labels, npz scenes and parts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pointlift.core.errors import DataError, UsageError
from pointlift.data.cloud import PointCloud
from pointlift.data.config import DataConfig
from pointlift.data.files import write
from pointlift.data.loading import dataset_from_config, load_dataset


def save(path, trees, seed=0, size=16, **feats):
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(PointCloud(trees.cloud(seed, size), feats), path)


# Class folders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["val", "valid", "validation"])
@pytest.mark.parametrize("arrangement", ["{part}/{name}/{i}.npy", "{name}/{part}/{i}.npy"])
def test_validation_folders(spelling, arrangement, trees, tmp_path):
    for part, count in (("train", 3), (spelling, 1), ("test", 2)):
        for name in ("bowl", "cup"):
            for i in range(count):
                save(tmp_path / arrangement.format(part=part, name=name, i=i), trees, i)
    data = load_dataset(tmp_path)
    assert data.splits == {"train": 6, "val": 2, "test": 4}
    assert data.hold_out(0.5)[1].names == data.val.names
    assert "validation part: the set's own" in data.meta.note


def test_a_validation_class_that_train_does_not_have(trees, tmp_path):
    for name in ("train/cup", "train/bowl", "val/cap"):
        save(tmp_path / name / "0.npy", trees)
    with pytest.raises(DataError, match="val has a class 'cap' that train does not have"):
        load_dataset(tmp_path)


def test_two_spellings_of_validation(trees, tmp_path):
    for part in ("train", "val", "validation"):
        save(tmp_path / part / "cup" / "0.npy", trees)
    with pytest.raises(DataError, match="one folder for val"):
        load_dataset(tmp_path)


def test_a_class_called_val_is_a_class(trees, tmp_path):
    for name in ("val", "cup"):
        save(tmp_path / name / "0.npy", trees)
    assert load_dataset(tmp_path).meta.classes == ("cup", "val")


CUBE = """\
v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 0 0 1\nv 1 0 1\nv 1 1 1\nv 0 1 1
f 1 2 3 4\nf 5 6 7 8\nf 1 2 6 5\nf 2 3 7 6\nf 3 4 8 7\nf 4 1 5 8
"""


def test_folders_of_meshes(trees, tmp_path):
    for name in ("box", "cube"):
        for i in range(2):
            path = tmp_path / name / f"{i}.obj"
            path.parent.mkdir(exist_ok=True)
            path.write_text(CUBE)
            (tmp_path / name / f"{i}.mtl").write_text("newmtl red\n")
    data = load_dataset(tmp_path)
    assert data.meta.native_points == 8192
    assert data.meta.note == ""
    sample = data.train.with_fields("normals")[0]
    on_side = np.isclose(sample["xyz"], 0, atol=1e-5) | np.isclose(sample["xyz"], 1, atol=1e-5)
    assert on_side.any(axis=1).all()
    assert np.bincount((sample["xyz"] * 1.999).astype(int) @ [4, 2, 1]).min() > 900  # all eight corners, evenly
    np.testing.assert_allclose(np.abs(sample["normals"]).max(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(load_dataset(tmp_path).train[0]["xyz"], sample["xyz"])
    other = load_dataset(tmp_path, mesh_points=500, mesh_seed=3)
    assert other.meta.native_points == 500
    assert other.content_hash() != data.content_hash()
    assert not np.array_equal(load_dataset(tmp_path, mesh_seed=3).train[0]["xyz"], sample["xyz"])


def test_what_all_files_hold_can_be_carried(trees, tmp_path):
    normals = trees.cloud(1, 16, 6)[:, 3:]
    for part in ("train", "test"):
        save(tmp_path / part / "cup" / "0.npz", trees, normals=normals, part=np.arange(16))
        save(tmp_path / part / "cup" / "1.ply", trees, normals=normals)
    data = load_dataset(tmp_path)
    assert data.train.store.fields == ("normals",)
    np.testing.assert_allclose(data.test.with_fields("normals")[1]["normals"], normals, atol=1e-6)


# Every cloud of a plain folder -----------------------------------------------------------------------------------


def test_a_plain_folder_can_be_scored_whole_or_in_parts(trees, tmp_path):
    for name in ("bowl", "cup"):
        for i in range(10):
            save(tmp_path / name / f"{i}.npy", trees, i)
    data = dataset_from_config(DataConfig(root=str(tmp_path), test_fraction=0.2, val_fraction=0.25))
    assert data.splits == {"train": 16, "test": 4}
    assert [len(data.part(p, 0.25)) for p in ("train", "val", "test", "all")] == [12, 4, 4, 20]
    assert len(set(data.part("all").names)) == 20


# Files without labels --------------------------------------------------------------------------------------------


def test_files_in_one_folder(trees, tmp_path):
    for i, name in enumerate(("b.ply", "a.npz", "c.xyz")):
        save(tmp_path / name, trees, i)
    data = load_dataset(tmp_path)
    assert data.splits == {"train": 3}
    assert data.train.names == ("a.npz", "b.ply", "c.xyz")
    assert data.train.labels is None
    assert data.meta.classes == ()
    np.testing.assert_array_equal(data.train[1]["xyz"], trees.cloud(0, 16))


def test_scenes_one_file_each(trees, tmp_path):
    for part, count in (("train", 2), ("val", 1), ("test", 1)):
        for i in range(count):
            save(
                tmp_path / part / f"s{i}.npz",
                trees,
                i,
                20 + i,
                semantic=np.arange(20 + i) % 3,
                intensity=np.ones(20 + i),
            )
    data = load_dataset(tmp_path)
    assert data.splits == {"train": 2, "val": 1, "test": 1}
    assert data.train[1]["semantic"].tolist() == [i % 3 for i in range(21)]
    assert data.train.counts().tolist() == [20, 21]
    assert "label" not in data.train[0]


def test_large_scenes_keep_their_fields_and_a_file_without_is_named(trees, tmp_path, monkeypatch):
    monkeypatch.setattr("pointlift.data.sets.class_folders.READ_AHEAD_BYTES", 0)
    for i in range(2):
        save(tmp_path / "train" / f"s{i}.npz", trees, i, semantic=np.arange(16), height=np.ones(16))
    save(tmp_path / "train" / "s2.npz", trees, 2)
    data = load_dataset(tmp_path)
    assert data.train.fields == ("semantic",)
    assert data.train.counts() is None  # the other files were not read for it
    assert data.train[1]["semantic"].tolist() == list(range(16))
    with pytest.raises(DataError, match=r"s2\.npz has no 'semantic'"):
        data.train[2]
    np.testing.assert_array_equal(data.train.store.points(2), trees.cloud(2, 16))


def test_large_class_folders_of_mixed_formats_need_no_common_fields(trees, tmp_path, monkeypatch):
    monkeypatch.setattr("pointlift.data.sets.class_folders.READ_AHEAD_BYTES", 0)
    save(tmp_path / "cup" / "0.npz", trees, normals=np.eye(3, dtype=np.float32)[np.zeros(16, int)])
    save(tmp_path / "cup" / "1.npy", trees)
    data = load_dataset(tmp_path)
    assert [set(data.train[i]) for i in range(2)] == [{"xyz", "label", "index"}] * 2
    assert data.train.with_fields("normals")[0]["normals"].shape == (16, 3)


def test_folders_beside_files_or_parts_are_named(trees, tmp_path):
    for name in ("train/a.npy", "eval/b.npy"):
        save(tmp_path / name, trees)
    assert load_dataset(tmp_path, name="cloud_files").meta.note == "1 folder(s) left out (eval/)"
    save(tmp_path / "a.npy", trees)
    assert load_dataset(tmp_path, name="cloud_files").meta.note == "2 folder(s) left out (eval/, train/)"


def test_class_folders_with_a_stray_text_file_stay_class_folders(trees, tmp_path):
    save(tmp_path / "cup" / "0.npy", trees)
    (tmp_path / "README.txt").write_text("mine")
    assert load_dataset(tmp_path).meta.classes == ("cup",)


# npz: scenes, parts, validation ----------------------------------------------------------------------------------


def test_npz_scenes(tmp_path):
    rng = np.random.default_rng(0)
    stored = rng.integers(-3000, 3000, (4, 30, 3)).astype(np.int16)
    semantic = (np.arange(120).reshape(4, 30) % 2).astype(np.uint8)
    for name in ("train", "test_a"):
        np.savez(
            tmp_path / f"{name}.npz", points_01mm=stored, semantic=semantic, instance=semantic + 1,
            rgb=np.full((4, 30, 3), 200, np.uint8), semantic_classes=np.array(["support", "object"]),
        )  # fmt: skip
    data = load_dataset(tmp_path)
    assert data.splits == {"train": 4, "test": 4}
    assert (data.meta.unit, data.meta.classes, data.meta.point_classes) == ("m", (), ("support", "object"))
    sample = data.test[2]
    assert "label" not in sample
    np.testing.assert_allclose(sample["xyz"], stored[2] / 1e4, rtol=1e-5)
    assert sample["semantic"].tolist() == semantic[2].tolist()
    assert data.train.with_fields("colors")[0]["colors"].dtype == np.uint8


def test_one_npz_scene(tmp_path):
    np.savez(tmp_path / "train.npz", points=np.ones((30, 3)), semantic=np.zeros(30, int))
    data = load_dataset(tmp_path)
    assert data.train.counts().tolist() == [30]
    assert data.train[0]["semantic"].shape == (30,)


def save_parts(folder, **changes) -> None:
    arrays = {"points": np.ones((4, 6, 3)), "label": np.arange(4) % 2, "classes": np.array(["cap", "mug"]),
              "part": np.tile([[0], [2]], (2, 6)).astype(np.uint8),
              "parts": np.array(["cap/brim", "cap/top", "mug/body"])}  # fmt: skip
    for name in ("train", "val", "test"):
        np.savez(folder / f"{name}.npz", **arrays | changes)


def test_npz_parts_and_validation(tmp_path):
    save_parts(tmp_path)
    assert load_dataset(tmp_path).meta.parts_of == {"cap": (0,), "mug": (2,)}  # those that occur
    (tmp_path / "category_parts.json").write_text(json.dumps({"cap": [0, 1], "mug": [2]}))
    data = load_dataset(tmp_path)
    assert data.splits == {"train": 4, "val": 4, "test": 4}
    assert data.meta.parts_of == {"cap": (0, 1), "mug": (2,)}
    assert data.meta.point_classes == ("cap/brim", "cap/top", "mug/body")
    assert data.train.fields == ()  # a classification set: parts on request
    assert data.train.with_fields("part")[0]["part"].shape == (6,)


def test_npz_parts_without_names_or_table(tmp_path):
    part = np.array([[0] * 6, [4] * 6, [1] * 6, [3] * 6])
    np.savez(tmp_path / "train.npz", points=np.ones((4, 6, 3)), label=np.arange(4) % 2, part=part)
    meta = load_dataset(tmp_path).meta
    assert meta.parts_of == {"0": (0, 1), "1": (3, 4)}
    assert meta.point_classes == ("0", "1", "2", "3", "4")


@pytest.mark.parametrize(
    ("part", "words"), [(7, r"cloud 1, of class mug, has part 7"), (-1, "has part -1"), (0.5, "parts of type float")]
)
def test_parts_that_are_none_of_their_class(part, words, tmp_path):
    given = np.tile([[0], [2]], (2, 6)).astype(type(part))
    given[1, 3] = part
    save_parts(tmp_path, part=given)
    with pytest.raises(DataError, match=words):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    "table", ['{"cap": [0, 3]}', '{"hat": [0]}', '{"cap": 1}', "[]", "{", '{"cap": [true]}', '{"cap": [0, 0]}']
)
def test_wrong_tables_of_parts(table, tmp_path):
    save_parts(tmp_path)
    (tmp_path / "category_parts.json").write_text(table)
    with pytest.raises(DataError, match=r"category_parts\.json"):
        load_dataset(tmp_path)


def test_files_that_name_other_parts(tmp_path):
    """Numbers that mean one thing in training and another in testing would be scored without a word."""
    save_parts(tmp_path)
    with np.load(tmp_path / "test.npz") as saved:
        arrays = dict(saved)
    np.savez(tmp_path / "test.npz", **arrays | {"parts": arrays["parts"][::-1]})
    with pytest.raises(DataError, match="name different parts"):
        load_dataset(tmp_path)
    np.savez(tmp_path / "test.npz", **{key: value for key, value in arrays.items() if key != "parts"})
    assert load_dataset(tmp_path).meta.point_classes == ("cap/brim", "cap/top", "mug/body")


def test_npz_labels_in_one_file_only(tmp_path):
    np.savez(tmp_path / "train.npz", points=np.ones((2, 6, 3)), label=np.arange(2), semantic=np.zeros((2, 6), int))
    np.savez(tmp_path / "test.npz", points=np.ones((2, 6, 3)), semantic=np.zeros((2, 6), int))
    with pytest.raises(DataError, match=r"only one of .*test\.npz and .*train\.npz has `label`"):
        load_dataset(tmp_path)


def test_an_npz_without_any_labels_says_what_it_lacks(tmp_path):
    np.savez(tmp_path / "train.npz", points=np.ones((2, 6, 3)))
    with pytest.raises(DataError, match=r"train\.npz: arrays points.*`label`"):
        load_dataset(tmp_path)


def test_an_unlabelled_set_has_no_classes_to_hold_a_test_part_of(trees, tmp_path):
    for i in range(10):
        save(tmp_path / f"{i}.npy", trees, i)
    data = dataset_from_config(DataConfig(root=str(tmp_path), test_fraction=0.2, limit=3))
    assert data.splits == {"train": 3, "val": 1, "test": 2}
    with pytest.raises(UsageError, match="without labels"):
        data.train.class_labels()
