"""Published sets in their official layouts: every rule of their loaders, on tiny trees."""

from __future__ import annotations

import json
import pickle
import re
import shutil

import h5py
import numpy as np
import pytest

from pointlift.core.errors import DataError, DatasetNotFoundError, FileFormatError, UnknownNameError, UsageError
from pointlift.data.config import DataConfig
from pointlift.data.loader import make_loader
from pointlift.data.loading import dataset_from_config, load_dataset
from pointlift.data.pipeline import build_transform
from pointlift.data.sets.known import MODELNET40_CLASSES
from pointlift.data.stores import NAMES_AND_SIZES

# ModelNet40, text and cache --------------------------------------------------------------------------------------


@pytest.mark.parametrize("parent", ["", "modelnet40_normal_resampled", "ModelNet/modelnet40_normal_resampled"])
def test_modelnet_text(parent, trees, tmp_path):
    trees.modelnet(tmp_path / parent)
    data = load_dataset(tmp_path)
    assert (data.meta.name, data.meta.up_axis, data.meta.native_points) == ("modelnet40", "y", 10_000)
    assert data.meta.classes == trees.KINDS
    assert data.splits == {"train": 12, "test": 9}
    assert data.train.names[4] == "night_stand_0001"
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    sample = data.train.with_fields("normals")[4]
    np.testing.assert_allclose(sample["xyz"], trees.cloud(4, width=6)[:, :3], atol=1e-6)
    np.testing.assert_allclose(sample["normals"], trees.cloud(4, width=6)[:, 3:], atol=1e-6)
    assert "normals" not in data.train[4]


def test_modelnet10_uses_its_own_lists(trees, tmp_path):
    trees.modelnet(tmp_path)
    trees.modelnet(tmp_path, text=False, number=10)
    (tmp_path / "modelnet10_train.txt").write_text("bowl_0001\n\n")
    data = load_dataset(tmp_path, name="modelnet40", num_category=10)
    assert (data.meta.name, data.splits) == ("modelnet10", {"train": 1, "test": 9})


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_modelnet_cache_is_preferred_and_needs_no_text(protocol, trees, tmp_path):
    trees.modelnet(tmp_path, text=False)
    for part in ("train", "test"):
        trees.modelnet_cache(tmp_path, part, protocol=protocol)
    data = load_dataset(tmp_path)
    assert data.meta.variant == "normal_resampled, cache of 32 points"
    assert data.meta.native_points == 32
    assert data.train.names[4] == "night_stand_0001"
    assert data.test.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    sample = data.test.with_fields("normals")[5]
    np.testing.assert_array_equal(sample["xyz"], trees.cloud(105, 32, 6)[:, :3])
    np.testing.assert_array_equal(sample["normals"], trees.cloud(105, 32, 6)[:, 3:])
    transform = build_transform(DataConfig(points=16), data.meta, "train")
    batch = next(iter(make_loader(data.train.with_fields("normals"), transform, batch_size=4, seed=0, shuffle=True)))
    assert batch["normals"].shape == (4, 16, 3)
    (tmp_path / "modelnet40_shape_names.txt").unlink()
    assert load_dataset(tmp_path).meta.classes == MODELNET40_CLASSES


def test_modelnet_source_and_size_of_the_cache_can_be_chosen(trees, tmp_path):
    trees.modelnet(tmp_path)
    for part, points in (("train", 32), ("test", 32), ("train", 64), ("test", 64), ("train", 99)):
        trees.modelnet_cache(tmp_path, part, points)
    assert load_dataset(tmp_path).meta.native_points == 64  # 99 is there for one part only
    assert load_dataset(tmp_path, cache_points=32).meta.native_points == 32
    assert "text" in load_dataset(tmp_path, source="text").meta.variant
    with pytest.raises(DatasetNotFoundError, match=r"not both of modelnet40_train_16pts_fps\.dat"):
        load_dataset(tmp_path, cache_points=16)
    for wrong in ({"source": "dat"}, {"num_category": 41}):
        with pytest.raises(UsageError):
            load_dataset(tmp_path, **wrong)


def test_the_hash_of_caches_sees_points_and_that_of_texts_sizes(trees, tmp_path):
    trees.modelnet(tmp_path)
    before = load_dataset(tmp_path).content_hash()
    assert before == load_dataset(tmp_path).content_hash()
    path = tmp_path / "bowl" / "bowl_0001.txt"
    path.write_text(path.read_text() + "0,0,0,0,0,1\n")
    assert load_dataset(tmp_path).content_hash() != before
    for part in ("train", "test"):
        path = trees.modelnet_cache(tmp_path, part)
    before = load_dataset(tmp_path).content_hash()
    raw = bytearray(path.read_bytes())
    at = raw.find(trees.cloud(105, 32, 6).tobytes())
    raw[at + 2] ^= 1
    path.write_bytes(bytes(raw))
    assert load_dataset(tmp_path).content_hash() != before


def test_modelnet_lists_that_do_not_fit(trees, tmp_path):
    trees.modelnet(tmp_path)
    (tmp_path / "modelnet40_test.txt").write_text("bowl_0005\nlamp_0001\n")
    with pytest.raises(DataError, match=r"modelnet40_test\.txt: 'lamp_0001' on line 2"):
        load_dataset(tmp_path)
    (tmp_path / "modelnet40_test.txt").write_text("../../etc/passwd_1\n")
    with pytest.raises(DataError, match="inside the data set"):
        load_dataset(tmp_path)
    (tmp_path / "modelnet40_test.txt").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"(?s)no modelnet40_test\.txt.*How to get it.*Terms"):
        load_dataset(tmp_path)
    shutil.rmtree(tmp_path / "xbox")
    trees.modelnet(tmp_path, text=False)
    with pytest.raises(DatasetNotFoundError, match="no folder xbox"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("held", "says"),
    [
        ({"a": 1}, "two lists"),
        ([[1, 2], [0, 1]], "cloud 0 is of type int"),
        ([[np.zeros((32, 6))], []], "0 labels for 1 clouds"),
        ([[np.zeros((32, 6))], ["bowl"]], "label 0 of type str"),
        ([[np.zeros((32, 6))], [10**5000]], "below 2"),
        ([[np.zeros((32, 6))], [np.uint64([2**63])]], "below 2"),
        ([[np.zeros((32, 6))], [7]], "label 7 of cloud 0"),
        ([[np.zeros((32, 5))], [0]], r"cloud 0 of shape \(32, 5\)"),
        ([[np.zeros((31, 6))], [0]], "cloud 0 has 31 points"),
        ([[np.zeros((32, 6))], [0]], "1 clouds, modelnet40_test.txt 9 names"),
    ],
)
def test_wrong_caches(held, says, trees, tmp_path):
    trees.modelnet(tmp_path, text=False)
    trees.modelnet_cache(tmp_path, "train")
    (tmp_path / "modelnet40_test_32pts_fps.dat").write_bytes(pickle.dumps(held, 3))
    with pytest.raises(DataError, match=says):
        load_dataset(tmp_path)


def test_a_nan_in_a_cache_is_found_when_the_cloud_is_read(trees, tmp_path):
    trees.modelnet(tmp_path, text=False)
    trees.modelnet_cache(tmp_path, "train")
    clouds = [np.full((32, 6), np.nan, np.float32)] * 9
    (tmp_path / "modelnet40_test_32pts_fps.dat").write_bytes(pickle.dumps([clouds, [0] * 9], 3))
    with pytest.raises(FileFormatError, match=r"test_32pts_fps\.dat, cloud 2: 32 of 32 points"):
        load_dataset(tmp_path).test[2]


# Few-shot folds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["{}way_{}shot", "{}way{}shot"])
@pytest.mark.parametrize("parent", ["", "ModelNetFewshot"])
def test_few_shot_folds(spelling, parent, trees, tmp_path):
    trees.few_shot(tmp_path / parent, spelling)
    data = load_dataset(tmp_path, way=2, shot=3, fold=1)
    assert data.meta.classes == (MODELNET40_CLASSES[22], MODELNET40_CLASSES[4])
    assert data.meta.variant == "2-way 3-shot, fold 1"
    assert (data.meta.up_axis, data.meta.native_points) == ("y", 20)
    assert data.splits == {"train": 6, "test": 8}
    assert data.train.labels.tolist() == [0, 1] * 3
    np.testing.assert_array_equal(data.train[1]["xyz"], trees.cloud(1010, 20, 6)[:, :3])
    assert data.content_hash() != load_dataset(tmp_path, fold=0).content_hash()


def test_few_shot_settings(trees, tmp_path):
    trees.few_shot(tmp_path, way=5, shot=10, folds=1)
    (place,) = tmp_path.iterdir()
    assert load_dataset(place).splits == {"train": 50, "test": 20}
    trees.few_shot(tmp_path, way=5, shot=20, folds=1)
    assert load_dataset(place).splits["train"] == 50
    with pytest.raises(UsageError, match="way 5 shot 10, way 5 shot 20"):
        load_dataset(tmp_path, way=5)
    with pytest.raises(UsageError, match=r"fold -1.*one of 0"):
        load_dataset(tmp_path, way=5, shot=10, fold=-1)


@pytest.mark.parametrize(
    ("held", "says"),
    [
        ([1], "does not hold a dict"),
        ({"train": []}, "lacks 'train' or 'test'"),
        ({"train": [(np.zeros((4, 6)), 0)], "test": []}, "another form"),
        ({"train": [(np.zeros((4, 6)), 2, 3)], "test": []}, "label 2 of class 3"),
        ({"train": [(np.zeros((4, 6)), 0, 3)], "test": [(np.zeros((4, 6)), 0, 4)]}, "label 0 of class 4"),
        ({"train": [(np.zeros((4, 6)), 0, 3)], "test": []}, "no cloud of label 1"),
        ({"train": [(np.zeros((4, 6)), 10**5000, 3)], "test": []}, "another form"),
        ({"train": [(np.zeros((4, 6)), 0, 1 << 31)], "test": []}, "another form"),
        ({"train": [(np.zeros((4, 6)), np.uint64([2**63]), 3)], "test": []}, "another form"),
    ],
)
def test_wrong_folds(held, says, trees, tmp_path):
    trees.few_shot(tmp_path, folds=1)
    (tmp_path / "2way_3shot" / "0.pkl").write_bytes(pickle.dumps(held))
    with pytest.raises(DataError, match=says):
        load_dataset(tmp_path)


# ScanObjectNN ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parent", ["", "h5_files", "ScanObjectNN", "ScanObjectNN/h5_files"])
def test_scanobjectnn_editions(parent, trees, tmp_path):
    trees.scanobjectnn(tmp_path / parent)
    hashes = set()
    for edition, seed in (("OBJ_BG", 0), ("OBJ_ONLY", 1000), ("PB_T50_RS", 2000)):
        data = load_dataset(tmp_path, variant=edition)
        assert (data.meta.name, data.meta.variant, data.meta.native_points) == ("scanobjectnn", edition, 16)
        assert data.splits == {"train": 5, "test": 3}
        assert data.meta.classes[::7] == ("bag", "door", "toilet")
        assert data.train.labels.tolist() == [0, 3, 6, 9, 12]
        np.testing.assert_array_equal(data.test[1]["xyz"], trees.cloud(seed + 101, 16))
        assert data.train.with_fields("mask")[0]["mask"].tolist()[:4] == [-1, 0, 1, -1]
        hashes.add(data.content_hash())
    assert len(hashes) == 3
    with pytest.raises(UsageError, match=r"holds 3 editions.*OBJ_BG, OBJ_ONLY, PB_T50_RS"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("asked", "got"),
    [("OBJ", "OBJ_ONLY"), ("OBJ-BG", "OBJ_BG"), ("PB", "PB_T50_RS"), ("hardest", "PB_T50_RS"), ("obj_bg", "OBJ_BG"),
     ("ScanObjectNN_hardest", "PB_T50_RS")],
)  # fmt: skip
def test_scanobjectnn_names_of_the_released_configs(asked, got, trees, tmp_path):
    trees.scanobjectnn(tmp_path)
    assert dataset_from_config(DataConfig(root=str(tmp_path), variant=asked)).meta.variant == got


def test_scanobjectnn_one_edition_needs_no_name(trees, tmp_path):
    trees.scanobjectnn(tmp_path, "OBJ_ONLY", "OBJ_BG")
    assert load_dataset(tmp_path / "main_split_nobg").meta.variant == "OBJ_ONLY"
    assert load_dataset(tmp_path / "main_split").meta.variant == "OBJ_BG"
    with pytest.raises(DatasetNotFoundError, match=r"training_objectdataset_augmentedrot_scale75\.h5"):
        load_dataset(tmp_path, variant="PB")
    with pytest.raises(UnknownNameError, match=r"edition of ScanObjectNN 'PB_T50'.*PB_T50_RS"):
        load_dataset(tmp_path, variant="PB_T50")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("label", np.full(3, 15), "label 15 of cloud 0"),
        ("label", np.zeros(2, int), "2 labels for 3 clouds"),
        ("mask", np.zeros((3, 4), int), "'mask' of shape"),
        ("data", np.zeros((3, 4)), "points of shape"),
        ("data", None, "datasets `data` and `label`"),
    ],
)
def test_wrong_scanobjectnn(key, value, says, trees, tmp_path):
    trees.scanobjectnn(tmp_path, "OBJ_BG")
    with h5py.File(tmp_path / "main_split" / "test_objectdataset.h5", "a") as file:
        del file[key]
        if value is not None:
            file[key] = value
    with pytest.raises(DataError, match=says):
        load_dataset(tmp_path)


def test_a_mask_follows_its_points(trees, tmp_path):
    trees.scanobjectnn(tmp_path, "OBJ_BG")
    data = load_dataset(tmp_path)
    transform = build_transform(DataConfig(points=8, normalize="none"), data.meta, "test")
    sample = transform(data.train.with_fields("mask")[2])
    stored = data.train.with_fields("mask")[2]
    rows = [int(np.flatnonzero((stored["xyz"] == row).all(axis=1))[0]) for row in sample["xyz"]]
    assert sample["mask"].tolist() == stored["mask"][rows].tolist()


# ShapeNet-55 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parent", ["", "ShapeNet55-34"])
def test_shapenet55(parent, trees, tmp_path):
    trees.shapenet55(tmp_path / parent)
    data = load_dataset(tmp_path)
    assert data.splits == {"train": 3, "test": 1}
    assert data.meta.classes == ("02691156", "04379243")
    assert data.train.names == ("02691156-aa", "02691156-bb", "04379243-cc")
    assert data.train.labels.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(data.train[2]["xyz"], trees.cloud(2, 20))  # fewer points than the others: taken
    assert data.test.labels.tolist() == [1]


def test_shapenet55_whole_takes_the_test_list_first(trees, tmp_path):
    trees.shapenet55(tmp_path)
    (tmp_path / "shapenet_synset_dict.json").write_text(json.dumps({"02691156": "airplane"}))
    data = load_dataset(tmp_path, whole=True)
    assert data.splits == {"train": 4}
    assert data.train.names[0] == "04379243-dd"
    assert data.meta.classes == ("airplane", "04379243")


def test_shapenet55_opens_without_looking_at_its_files(trees, tmp_path, monkeypatch):
    trees.shapenet55(tmp_path)
    many = [f"02691156-{i:032x}.npy" for i in range(50_000)]
    (tmp_path / "ShapeNet-55" / "train.txt").write_text("\n".join(many))
    looked = []
    original = type(tmp_path).stat
    monkeypatch.setattr(type(tmp_path), "stat", lambda p, **k: looked.append(p) or original(p, **k))
    data = load_dataset(tmp_path)
    assert len(data.train) == 50_000
    assert len(looked) < 60
    with pytest.raises(FileFormatError, match=r"no file .*02691156-0+\.npy"):
        data.train[0]


def test_shapenet35_is_the_other_spelling(trees, tmp_path):
    trees.shapenet55(tmp_path)
    (tmp_path / "ShapeNet-55").rename(tmp_path / "ShapeNet-35")
    assert len(load_dataset(tmp_path).train) == 3
    assert len(load_dataset(tmp_path / "ShapeNet-35").train) == 3


@pytest.mark.parametrize("line", ["/etc/passwd-1", "../a-b.npy", "nodash.npy"])
def test_wrong_shapenet55_lists(line, trees, tmp_path):
    trees.shapenet55(tmp_path)
    (tmp_path / "ShapeNet-55" / "train.txt").write_text(f"02691156-aa.npy\n{line}\n")
    with pytest.raises(DataError, match=re.escape(line[:8])):
        load_dataset(tmp_path)


def test_shapenet55_without_clouds(trees, tmp_path):
    trees.shapenet55(tmp_path)
    (tmp_path / "shapenet_pc").rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetNotFoundError, match=r"(?s)no folder .*shapenet_pc.*How to get it"):
        load_dataset(tmp_path)


# ShapeNetPart ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parent", ["", "shapenetcore_partanno_segmentation_benchmark_v0_normal"])
def test_shapenetpart(parent, trees, tmp_path):
    trees.shapenetpart(tmp_path / parent)
    data = load_dataset(tmp_path)
    assert data.splits == {"train": 4, "val": 2, "test": 4}
    assert data.meta.classes == ("Cap", "Airplane")  # the order of the file
    assert data.meta.parts_of == {"Cap": (6, 7), "Airplane": (0, 1, 2, 3)}
    assert (len(data.meta.point_classes), data.meta.point_classes[6]) == (50, "Cap/0")
    assert "validation part: the set's own" in data.meta.note
    sample = data.train.with_fields("part", "normals")[1]
    np.testing.assert_allclose(sample["xyz"], trees.cloud(1, 31, 6)[:, :3], atol=1e-6)
    np.testing.assert_allclose(sample["normals"], trees.cloud(1, 31, 6)[:, 3:], atol=1e-6)
    assert sample["part"].dtype == np.int64
    assert sample["part"].tolist()[:3] == [6, 7, 6]
    assert data.train[3]["part"].max() == 3
    assert data.train.labels.tolist() == [0, 0, 1, 1]


def test_shapenetpart_validation_is_its_own_or_part_of_train(trees, tmp_path):
    trees.shapenetpart(tmp_path)
    train, val = load_dataset(tmp_path).hold_out(0.5)
    assert (len(train), len(val)) == (4, 2)
    data = load_dataset(tmp_path, trainval=True)
    assert data.splits == {"train": 6, "test": 4}
    assert data.train.names[4] == "02954340/val0"
    assert data.train[4]["part"].tolist()[:2] == [6, 7]


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        (["shape_data/00000000/a"], "synset of synsetoffset2category"),
        (["shape_data/02954340/../x"], "names"),
        (["02954340/a"], "names '02954340/a'"),
        ([3], "names '3'"),
        ({"a": 1}, "holds no list"),
        (["shape_data/02954340/gone"], r"1 of 1 files .* the first is 02954340/gone\.txt"),
    ],
)
def test_wrong_shapenetpart_lists(listed, says, trees, tmp_path):
    trees.shapenetpart(tmp_path)
    (tmp_path / "train_test_split" / "shuffled_test_file_list.json").write_text(json.dumps(listed))
    with pytest.raises(DataError, match=says):
        load_dataset(tmp_path)


@pytest.mark.parametrize("synset", ["..", "../..", "/tmp", "a/../.."])
def test_categories_stay_inside_the_folder(synset, trees, tmp_path):
    trees.shapenetpart(tmp_path)
    (tmp_path / "synsetoffset2category.txt").write_text(f"Cap 02954340\nAirplane {synset}\n")
    with pytest.raises(DataError, match=re.escape(f"synsetoffset2category.txt names '{synset}'")):
        load_dataset(tmp_path)


@pytest.mark.parametrize("name", ["modelnet", "shapenet55", "shapenetpart"])
def test_sets_that_are_hashed_by_names_and_sizes_say_so(name, trees, tmp_path):
    getattr(trees, name)(tmp_path)
    assert NAMES_AND_SIZES in load_dataset(tmp_path).meta.note
    if name == "modelnet":  # whose caches are hashed by their bytes
        for part in ("train", "test"):
            trees.modelnet_cache(tmp_path, part)
        assert load_dataset(tmp_path).meta.note == ""


def test_parts_outside_the_fifty(trees, tmp_path):
    trees.shapenetpart(tmp_path)
    (tmp_path / "02954340" / "train0.txt").write_text("0 0 0 0 0 1 50\n")
    with pytest.raises(DataError, match=r"train0\.txt: parts .* from 50 to 50"):
        load_dataset(tmp_path).train[0]


def test_fields_add_to_those_that_samples_carry(trees, tmp_path):
    trees.shapenetpart(tmp_path)
    assert load_dataset(tmp_path).train.with_fields("normals").fields == ("part", "normals")


def test_a_file_that_goes_missing_is_named_by_the_hash(trees, tmp_path):
    trees.shapenetpart(tmp_path)
    data = load_dataset(tmp_path)
    (tmp_path / "02954340" / "train0.txt").unlink()
    with pytest.raises(DataError, match=r"train0\.txt cannot be read"):
        data.content_hash()


# SemanticKITTI's folders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("parent", ["", "dataset"])
def test_kitti_sequences(parent, trees, tmp_path):
    trees.kitti(tmp_path / parent)
    data = load_dataset(tmp_path)
    assert data.splits == {"train": 2, "val": 2, "test": 2}
    assert (data.meta.up_axis, data.meta.unit, data.meta.classes) == ("z", "m", ())
    assert data.train.labels is None
    assert data.train.names == ("00/000000", "00/000001")
    sample = data.train[1]
    np.testing.assert_array_equal(sample["xyz"], trees.cloud(1, 12))
    assert sample["semantic"].tolist() == list(range(40, 52))
    assert set(sample["instance"].tolist()) == {5}
    assert "label" not in sample
    assert set(data.test[0]) == {"xyz", "index"}
    assert data.test.with_fields("intensity")[0]["intensity"].tolist() == list(range(12))
    assert load_dataset(tmp_path / parent / "sequences").splits == data.splits


def test_scans_are_hashed_by_names_and_sizes_and_the_note_says_so(trees, tmp_path, monkeypatch):
    trees.kitti(tmp_path)
    hashes = [load_dataset(tmp_path).content_hash()]
    labels = tmp_path / "sequences" / "00" / "labels"
    (labels / "000000.label").rename(labels / "aside")  # a scan without labels
    hashes.append(load_dataset(tmp_path).content_hash())
    scan = tmp_path / "sequences" / "08" / "velodyne" / "000001.bin"
    scan.write_bytes(scan.read_bytes()[16:])
    hashes.append(load_dataset(tmp_path).content_hash())
    assert len(set(hashes)) == 3
    monkeypatch.setattr("pathlib.Path.open", None)  # 90 GB are not read for it
    data = load_dataset(tmp_path)
    data.content_hash()
    assert NAMES_AND_SIZES in data.meta.note


# Finding the right one -------------------------------------------------------------------------------------------

ALL = {
    "modelnet40": lambda t, p: t.modelnet(p / "ModelNet" / "modelnet40_normal_resampled"),
    "modelnet40_few_shot": lambda t, p: t.few_shot(p / "ModelNetFewshot"),
    "scanobjectnn": lambda t, p: t.scanobjectnn(p / "ScanObjectNN", "OBJ_BG"),
    "shapenet55": lambda t, p: t.shapenet55(p / "ShapeNet55-34"),
    "shapenetpart": lambda t, p: t.shapenetpart(p / "shapenetcore_partanno_segmentation_benchmark_v0_normal"),
}


def test_a_folder_of_several_sets_asks_which(trees, tmp_path):
    for make in ALL.values():
        make(trees, tmp_path)
    with pytest.raises(UsageError, match=f"holds several data sets: {', '.join(ALL)}"):
        load_dataset(tmp_path)
    for name in ALL:
        assert len(load_dataset(tmp_path, name=name).train)


@pytest.mark.parametrize("name", ALL)
def test_what_is_missing_is_said_on_one_screen(name, tmp_path):
    for root in (tmp_path, tmp_path / "gone"):
        with pytest.raises(DatasetNotFoundError) as info:
            load_dataset(root, name=name)
        text = str(info.value)
        for word in (str(root), "Expected", "How to get it", "Terms"):
            assert word in text
        assert len(text.splitlines()) < 15
        assert max(map(len, text.splitlines())) < 250
    (tmp_path / "archive.zip").write_text("x")
    with pytest.raises(DatasetNotFoundError, match=r"Unpack archive\.zip first"):
        load_dataset(tmp_path, name=name)


def test_an_option_of_another_set_is_refused(trees, tmp_path):
    trees.shapenetpart(tmp_path)
    with pytest.raises(UsageError, match="no option 'whole'"):
        load_dataset(tmp_path, whole=True)
