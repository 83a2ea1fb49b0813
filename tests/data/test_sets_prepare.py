"""What we make: the ModelNet cache and few-shot folds, for our loaders and for the released ones."""

from __future__ import annotations

import hashlib
import pickle
from itertools import pairwise

import numpy as np
import pytest

from pointlift.core.errors import DataError, DatasetNotFoundError, UsageError
from pointlift.data.dataset import CloudDataset, CloudSplit, DatasetMeta
from pointlift.data.loading import load_dataset
from pointlift.data.sets.few_shot_folds import make_few_shot
from pointlift.data.sets.modelnet_cache import build_modelnet_cache
from pointlift.data.stores import ArrayStore, RaggedStore


def sha(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# The cache -------------------------------------------------------------------------------------------------------


def test_the_cache_has_the_structure_that_released_loaders_expect(trees, tmp_path):
    trees.modelnet(tmp_path)
    path = build_modelnet_cache(tmp_path, "test", points=16)
    assert path == tmp_path / "modelnet40_test_16pts_fps.dat"
    clouds, labels = pickle.loads(path.read_bytes())  # noqa: S301  as the released code reads it
    assert (len(clouds), len(labels)) == (9, 9)
    assert {(c.dtype.str, c.shape) for c in clouds} == {("<f4", (16, 6))}
    assert {(v.dtype.str, v.shape) for v in labels} == {("<i4", (1,))}
    assert [int(v[0]) for v in labels] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_clouds_are_farthest_point_samples_with_their_normals(trees, tmp_path):
    trees.modelnet(tmp_path)
    build_modelnet_cache(tmp_path, "train", points=16)
    build_modelnet_cache(tmp_path, "test", points=16)
    data = load_dataset(tmp_path)
    assert data.meta.native_points == 16
    for i in range(3):
        raw, held = trees.cloud(i, width=6), data.train.with_fields("normals")[i]
        rows = [int(np.abs(raw[:, :3] - point).max(axis=1).argmin()) for point in held["xyz"]]
        assert len(set(rows)) == 16
        np.testing.assert_allclose(held["normals"], raw[rows, 3:], atol=1e-6)
        nearest = np.full(len(raw), np.inf)
        for taken, following in pairwise(rows):
            nearest = np.minimum(nearest, ((raw[:, :3] - raw[taken, :3]) ** 2).sum(axis=1))
            assert nearest[following] == pytest.approx(nearest.max(), rel=1e-4)


def test_the_cache_depends_on_the_seed_alone(trees, tmp_path):
    trees.modelnet(tmp_path)
    first = build_modelnet_cache(tmp_path, "train", points=16, seed=1, out=tmp_path / "one.dat")
    again = build_modelnet_cache(tmp_path, "train", points=16, seed=1, out=tmp_path / "two.dat")
    other = build_modelnet_cache(tmp_path, "train", points=16, seed=2, out=tmp_path / "three.dat")
    assert sha(first) == sha(again) != sha(other)


def test_the_cache_reports_progress_and_is_there_whole_or_not_at_all(trees, tmp_path):
    trees.modelnet(tmp_path)
    seen = []
    build_modelnet_cache(tmp_path, "test", points=8, progress=lambda done, count: seen.append((done, count)))
    assert seen == [(i + 1, 9) for i in range(9)]

    def stop(done: int, count: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_modelnet_cache(tmp_path, "train", points=8, progress=stop)
    assert [p.name for p in tmp_path.glob("*.dat")] == ["modelnet40_test_8pts_fps.dat"]
    assert not list(tmp_path.glob(".writing*"))


def test_what_the_cache_builder_refuses(trees, tmp_path):
    with pytest.raises(DatasetNotFoundError, match="no modelnet40 lists"):
        build_modelnet_cache(tmp_path, "train")
    trees.modelnet(tmp_path)
    with pytest.raises(DataError, match=r"bowl_0001 has 40 points.*at least 8192"):
        build_modelnet_cache(tmp_path, "train")
    build_modelnet_cache(tmp_path, "test", points=8)
    with pytest.raises(UsageError, match="there already"):
        build_modelnet_cache(tmp_path, "test", points=8)
    build_modelnet_cache(tmp_path, "test", points=8, overwrite=True)
    for wrong in ({"split": "val"}, {"num_category": 3}, {"points": 0}, {"out": tmp_path / "gone" / "x.dat"}):
        with pytest.raises(UsageError):
            build_modelnet_cache(**{"root": tmp_path, "split": "train"} | wrong)


# Few-shot folds --------------------------------------------------------------------------------------------------


def labelled(classes: int = 6, train: int = 5, test: int = 4) -> CloudDataset:
    """Coordinate 0 of every point of a cloud says which cloud it is; normals say its class."""

    def split(count: int, offset: int) -> CloudSplit:
        labels = np.repeat(np.arange(classes), count)
        points = np.tile(np.arange(len(labels), dtype=np.float32)[:, None, None] + offset, (1, 8, 3))
        normals = np.tile(labels[:, None, None].astype(np.float32), (1, 8, 3))
        return CloudSplit(ArrayStore(points, fields={"normals": (normals, 1.0)}), labels)

    names = tuple(f"class{i}" for i in range(classes))
    return CloudDataset(DatasetMeta("toy", None, names), split(train, 0), split(test, 1000))


@pytest.mark.parametrize("pickles", [False, True])
def test_folds_follow_the_rules_of_the_released_generator(pickles, tmp_path):
    folder = make_few_shot(labelled(), 3, 2, 4, out=tmp_path, test_shot=4, pickles=pickles)
    assert folder == tmp_path / "3way_2shot"
    if pickles:
        for path in folder.glob("*.npz"):
            path.unlink()
    chosen = set()
    for fold in range(4):
        data = load_dataset(tmp_path, fold=fold)
        assert data.splits == {"train": 6, "test": 12}
        assert np.bincount(data.train.labels).tolist() == [2, 2, 2]
        assert np.bincount(data.test.labels).tolist() == [4, 4, 4]
        for split, first in ((data.train, 0), (data.test, 1000)):
            clouds = [split.with_fields("normals")[i] for i in range(len(split))]
            ids = [int(c["xyz"][0, 0]) for c in clouds]
            assert len(set(ids)) == len(ids)
            assert all((i >= 1000) == (first == 1000) for i in ids)
            if not pickles:
                originals = [f"class{int(c['normals'][0, 0])}" for c in clouds]
                assert originals == [data.meta.classes[c["label"]] for c in clouds]
        assert data.meta.name == ("modelnet40_few_shot" if pickles else "toy_few_shot")
        chosen.add(data.meta.classes)
    assert len(chosen) > 1


def test_folds_are_read_by_the_released_loader(tmp_path):
    make_few_shot(labelled(), 2, 2, 1, out=tmp_path, test_shot=3, pickles=True)
    held = pickle.loads((tmp_path / "2way_2shot" / "0.pkl").read_bytes())  # noqa: S301  as the released code reads it
    assert set(held) == {"train", "test"}
    assert [len(held["train"]), len(held["test"])] == [4, 6]
    points, label, original = held["train"][0]
    assert (points.dtype, points.shape) == (np.float32, (8, 6))
    assert type(label) is type(original) is int
    assert points[0, 3] == original


def test_folds_depend_on_the_seed_alone(tmp_path):
    made = [make_few_shot(labelled(), 3, 2, 2, seed, tmp_path / str(i), test_shot=4, pickles=True)
            for i, seed in enumerate((0, 0, 1))]  # fmt: skip
    for name in ("0.npz", "1.npz", "1.pkl"):
        assert sha(made[0] / name) == sha(made[1] / name) != sha(made[2] / name)
    longer = make_few_shot(labelled(), 3, 2, 5, 0, tmp_path / "longer", test_shot=4)
    assert sha(longer / "1.npz") == sha(made[0] / "1.npz")


def test_clouds_of_different_sizes_without_normals(tmp_path):
    flat = np.arange(60, dtype=np.float32).reshape(20, 3)
    split = CloudSplit(RaggedStore(flat, np.array([0, 3, 5, 9, 10, 14, 20])), np.repeat([0, 1], 3))
    made = CloudDataset(DatasetMeta("toy", None, ("a", "b")), split, split)
    make_few_shot(made, 2, 2, 1, out=tmp_path, test_shot=3)
    data = load_dataset(tmp_path)
    assert sorted(data.test.counts().tolist()) == [1, 2, 3, 4, 4, 6]
    assert data.meta.native_points is None
    assert data.test.store.fields == ()


def test_what_the_fold_maker_refuses(tmp_path):
    with pytest.raises(UsageError, match="0 classes of toy have more than 5 training and 4 test"):
        make_few_shot(labelled(), 3, 5, out=tmp_path, test_shot=4)
    with pytest.raises(UsageError, match=r"6 classes.*at least 7"):
        make_few_shot(labelled(), 7, 2, out=tmp_path, test_shot=4)
    with pytest.raises(UsageError, match="no test part"):
        make_few_shot(CloudDataset(labelled().meta, labelled().train), 2, 2, out=tmp_path)
    unlabelled = CloudSplit(labelled().train.store)
    with pytest.raises(UsageError, match="without labels"):
        make_few_shot(CloudDataset(labelled().meta, unlabelled, unlabelled), 2, 2, out=tmp_path)
    with pytest.raises(UsageError, match="at least 1"):
        make_few_shot(labelled(), 2, 0, out=tmp_path)
    assert not list(tmp_path.iterdir())
    make_few_shot(labelled(), 2, 2, 1, out=tmp_path, test_shot=4)
    with pytest.raises(UsageError, match=r"holds 0\.npz already"):
        make_few_shot(labelled(), 2, 2, 1, out=tmp_path, test_shot=4)


@pytest.mark.parametrize("key", ["train_points", "train_offset", "test_label", "classes"])
def test_damaged_npz_folds(key, tmp_path):
    folder = make_few_shot(labelled(), 2, 2, 1, out=tmp_path, test_shot=4)
    with np.load(folder / "0.npz") as held:
        arrays = dict(held)
    np.savez(folder / "0.npz", **{k: v for k, v in arrays.items() if k != key})
    with pytest.raises(DataError, match=f"no array '{key}'"):
        load_dataset(tmp_path)
    if key != "classes":
        np.savez(folder / "0.npz", **arrays | {key: arrays[key][:1]})
        with pytest.raises(DataError, match=r"0\.npz"):
            load_dataset(tmp_path)
