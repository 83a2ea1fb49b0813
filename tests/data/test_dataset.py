"""Stores, splits, what is held out, and the hash of the content."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointlift.core.errors import DataError, FileFormatError, UnknownNameError, UsageError
from pointlift.data.cloud import PointCloud
from pointlift.data.dataset import (
    CloudDataset,
    CloudSplit,
    DatasetMeta,
    checked_labels,
    joined,
    stratified_split,
)
from pointlift.data.files import write
from pointlift.data.stores import ArrayStore, ConcatStore, FileStore, ListStore, RaggedStore

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(12, 8, 3)).astype(np.float32)
LABELS = np.array([0] * 6 + [1] * 5 + [2])


def split(points: np.ndarray = POINTS, labels: np.ndarray = LABELS) -> CloudSplit:
    return CloudSplit(ArrayStore(points), labels, [f"c{i}" for i in range(len(points))])


def dataset(points: np.ndarray = POINTS, labels: np.ndarray = LABELS, classes=("a", "b", "c")) -> CloudDataset:
    return CloudDataset(DatasetMeta("toy", None, classes), split(points, labels), split(points[:3], labels[:3]))


def test_samples():
    sample = split()[4]
    np.testing.assert_array_equal(sample["xyz"], POINTS[4])
    assert (sample["label"], sample["index"]) == (0, 4)
    assert sample["label"].dtype == sample["index"].dtype == np.int64
    assert split()[-1]["index"] == 11
    with pytest.raises(IndexError):
        split()[12]


def test_a_sample_may_be_changed_without_changing_the_set():
    clouds = split()
    clouds[0]["xyz"][:] = 99
    np.testing.assert_array_equal(clouds[0]["xyz"], POINTS[0])


def test_subsets_are_numbered_anew_and_compose():
    part = split().subset([7, 2, 9]).subset([2, 0])
    assert part.names == ("c9", "c7")
    assert part.labels.tolist() == [1, 1]
    assert [int(part[i]["index"]) for i in range(2)] == [0, 1]
    np.testing.assert_array_equal(part[0]["xyz"], POINTS[9])
    for wrong in ([12], [-1]):
        with pytest.raises(IndexError):
            split().subset(wrong)


def test_take_is_spread_over_the_classes():
    assert np.bincount(split().take(6).labels).tolist() == [3, 2, 1]
    assert split().take(1).labels.tolist() == [0]
    assert len(split().take(99)) == len(split().take(None)) == 12
    with pytest.raises(UsageError):
        split().take(0)


def test_int16_stays_int16_and_is_decoded_per_cloud():
    stored = RNG.integers(-32767, 32768, (3, 5, 3)).astype(np.int16)
    store = ArrayStore(stored, scale=1 / 32767)
    assert store.array is stored
    np.testing.assert_allclose(store.points(1), stored[1] / 32767, rtol=1e-6)


def test_fields_come_on_request():
    normals = RNG.integers(-127, 128, (12, 8, 3)).astype(np.int8)
    part = RNG.integers(0, 4, (12, 8)).astype(np.uint8)
    store = ArrayStore(POINTS, fields={"normals": (normals, 1 / 127), "part": (part, 1.0)})
    plain = CloudSplit(store, LABELS)
    assert set(plain[0]) == {"xyz", "label", "index"}
    sample = plain.with_fields("part", "normals").subset([3])[0]
    np.testing.assert_array_equal(sample["part"], part[3])
    np.testing.assert_allclose(sample["normals"], normals[3] / 127, rtol=1e-6)
    with pytest.raises(UnknownNameError, match=r"'normal'.*Did you mean 'normals'"):
        plain.with_fields("normal")


def test_packed_clouds():
    sizes = [3, 1, 6]
    flat = RNG.integers(0, 2000, (10, 3)).astype(np.uint16)
    store = RaggedStore(flat, np.array([0, 3, 4, 10]), scale=0.01, fields={"part": (np.arange(10), 1.0)})
    assert store.counts().tolist() == sizes
    np.testing.assert_allclose(store.points(2), flat[4:] * 0.01, rtol=1e-6)
    assert store.field("part", 1).tolist() == [3]


@pytest.mark.parametrize("offsets", [[0, 3, 9], [1, 3, 10], [0, 3, 3, 10], [0, 5, 2, 10], [[0, 10]], [0.0, 10.0]])
def test_wrong_offsets(offsets):
    with pytest.raises(DataError, match="offsets"):
        RaggedStore(np.zeros((10, 3), np.float32), np.array(offsets), where="train.npz")


def test_stores_in_a_row():
    other = RaggedStore(np.arange(12, dtype=np.float32).reshape(4, 3), np.array([0, 1, 4]))
    joined = ConcatStore([ArrayStore(POINTS), other])
    assert len(joined) == 14
    np.testing.assert_array_equal(joined.points(11), POINTS[11])
    np.testing.assert_array_equal(joined.points(12), other.points(0))
    np.testing.assert_array_equal(joined.points(13), other.points(1))
    assert joined.counts().tolist() == [8] * 12 + [1, 3]


def test_a_nan_in_an_array_names_cloud_and_row():
    broken = POINTS.copy()
    broken[5, 2, 1] = np.nan
    with pytest.raises(FileFormatError, match=r"train\.npz, cloud 5: 1 of 8 points .* row 2"):
        ArrayStore(broken, where="train.npz")


def test_files_are_read_once_while_there_is_room(tmp_path, monkeypatch):
    paths = [write(PointCloud(POINTS[i]), tmp_path / f"{i}.npy") for i in range(3)]
    store = FileStore(paths, cache_bytes=POINTS[0].nbytes * 2)
    assert store.counts() is None
    for i in range(3):
        np.testing.assert_array_equal(store.points(i), POINTS[i])
    assert store.counts().tolist() == [8] * 3
    for path in paths[:2]:
        path.unlink()
    np.testing.assert_array_equal(store.points(1), POINTS[1])
    np.testing.assert_array_equal(store.points(2), POINTS[2])


def test_float64_far_away_keeps_its_shape():
    store = ArrayStore(POINTS[:1].astype(np.float64) + 5e6)
    xyz = store.points(0)
    np.testing.assert_allclose(xyz - xyz.mean(0), POINTS[0] - POINTS[0].mean(0), atol=1e-5)


def test_the_hash_depends_on_content_alone():
    first = dataset().content_hash()
    assert first == dataset().content_hash()
    assert first == dataset(POINTS.astype(">f4")).content_hash()
    # Worked out once, on another layout of memory: must never change.
    assert first == dataset(np.asfortranarray(POINTS)).content_hash()
    changed = POINTS.copy()
    changed[3, 3, 0] += 1e-6
    others = [
        dataset(changed),
        dataset(labels=LABELS[::-1].copy()),
        dataset(classes=("a", "b", "d")),
        CloudDataset(dataset().meta, dataset().train),
        CloudDataset(dataset().meta, dataset().train.subset(range(11)), dataset().test),
    ]
    assert len({first, *(d.content_hash() for d in others)}) == 6


def test_the_hash_of_a_known_set_never_changes():
    points = np.arange(24, dtype=np.int16).reshape(2, 4, 3)
    known = CloudDataset(DatasetMeta("k", None, ("a", "b")), CloudSplit(ArrayStore(points), np.array([0, 1])))
    assert known.content_hash() == "ec1ee56707000937e536c560ae50963e7347f345ee9fde75cb0e5243bb3bf5ad"


def test_files_are_hashed_by_their_bytes(tmp_path):
    def make() -> CloudDataset:
        paths = [write(PointCloud(POINTS[i]), tmp_path / f"{i}.npy") for i in range(2)]
        return CloudDataset(DatasetMeta("f", None, ("a",)), CloudSplit(FileStore(paths), np.zeros(2)))

    assert make().content_hash() == make().content_hash()
    before = make().content_hash()
    moved = POINTS[1] + 1
    paths = [tmp_path / "0.npy", write(PointCloud(moved), tmp_path / "1.npy")]
    after = CloudDataset(DatasetMeta("f", None, ("a",)), CloudSplit(FileStore(paths), np.zeros(2)))
    assert after.content_hash() != before


@given(
    labels=st.lists(st.integers(0, 6), min_size=2, max_size=80).map(np.array),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_stratified_split(labels, fraction, seed):
    counts = np.bincount(labels)
    if counts.max() < 2:
        with pytest.raises(UsageError, match="no class with two"):
            stratified_split(labels, fraction, seed)
        return
    rest, held = stratified_split(labels, fraction, seed)
    assert sorted([*rest, *held]) == list(range(len(labels)))
    assert (np.diff(held) > 0).all()
    assert (np.diff(rest) > 0).all()
    for label, n in enumerate(counts):
        k = int((labels[held] == label).sum())
        assert (1 <= k <= n - 1 and abs(k - fraction * n) <= 1) if n >= 2 else k == 0
    again = stratified_split(labels, fraction, seed)
    assert all((a == b).all() for a, b in zip((rest, held), again, strict=True))


def test_seeds_and_purposes_differ():
    labels = np.repeat([0, 1, 2], 40)
    first = stratified_split(labels, 0.25, 0)[1]
    assert (first != stratified_split(labels, 0.25, 1)[1]).any()
    assert (first != stratified_split(labels, 0.25, 0, "test")[1]).any()


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_fractions_outside_0_and_1(fraction):
    with pytest.raises(UsageError, match="fraction"):
        stratified_split(LABELS, fraction, 0)


def test_hold_out():
    train, validation = dataset().hold_out(0.3, seed=1)
    assert len(train) + len(validation) == 12
    assert set(train.names).isdisjoint(validation.names)
    assert 2 not in validation.labels
    assert dataset().hold_out(0)[1] is None
    only_test = CloudDataset(DatasetMeta("toy", None, ("a",)), split().subset([]), split())
    with pytest.raises(UsageError, match="toy has no training clouds"):
        only_test.hold_out(0.1)


def test_a_test_part_can_be_made_and_is_recorded():
    whole = CloudDataset(DatasetMeta("toy", None, ("a", "b", "c")), split())
    made = whole.with_test_fraction(0.25, seed=3)
    assert made.splits == {"train": 9, "test": 3}
    assert "25%" in made.meta.note
    assert "seed 3" in made.meta.note
    assert dataset().with_test_fraction(0.25).splits == {"train": 12, "test": 3}


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.int16])
def test_labels_outside_the_classes(dtype):
    with pytest.raises(DataError, match=r"t\.h5: label 7 of cloud 2 is outside the 3 classes \(2 such.*0 to 2"):
        checked_labels(np.array([0, 2, 7, 1, 9], dtype), ("a", "b", "c"), "t.h5")
    with pytest.raises(DataError, match="label -1 of cloud 1"):
        checked_labels(np.array([0, -1]), ("a", "b", "c"), "t.h5")


@pytest.mark.parametrize("labels", [np.array([0.0, 1.0]), np.array(["a"]), np.zeros((2, 3), int)])
def test_labels_of_a_wrong_kind(labels):
    with pytest.raises(DataError, match="labels of type"):
        checked_labels(labels, ("a", "b"), "t")


def test_lengths_must_agree():
    with pytest.raises(DataError, match="12 clouds, 11 labels"):
        CloudSplit(ArrayStore(POINTS), LABELS[:11])


# Clouds without labels, validation parts, parts by name ----------------------------------------------------------


def test_clouds_without_labels():
    clouds = CloudSplit(ArrayStore(POINTS))
    assert set(clouds[3]) == {"xyz", "index"}
    assert clouds.take(4).names == ("0", "3", "6", "9")
    assert clouds.subset([5, 1]).labels is None
    with pytest.raises(UsageError, match="without labels"):
        clouds.class_labels()
    data = CloudDataset(DatasetMeta("u", None, ()), clouds)
    train, held = data.hold_out(0.25, seed=1)
    assert (len(train), len(held)) == (9, 3)
    assert data.with_test_fraction(0.25).splits == {"train": 9, "test": 3}
    assert data.content_hash() != CloudDataset(DatasetMeta("u", None, ()), split()).content_hash()


def test_a_validation_part_of_the_set_is_used_whatever_the_fraction():
    brought = CloudDataset(dataset().meta, split(), val=split(POINTS[:2], LABELS[:2]))
    for fraction in (0.0, 0.5):
        train, held = brought.hold_out(fraction)
        assert (len(train), len(held)) == (12, 2)
    assert brought.splits == {"train": 12, "val": 2}
    assert brought.with_test_fraction(0.25).splits == {"train": 9, "val": 2, "test": 3}
    assert brought.content_hash() != CloudDataset(dataset().meta, split()).content_hash()


def test_parts_by_name():
    whole = dataset()
    assert len(whole.part("test")) == 3
    assert len(whole.part("train")) == 12
    train, held = whole.hold_out(0.3, 1)
    assert whole.part("train", 0.3, 1).names == train.names
    assert whole.part("val", 0.3, 1).names == held.names
    assert whole.part("all").labels.tolist() == [*LABELS, *LABELS[:3]]
    np.testing.assert_array_equal(whole.part("all")[13]["xyz"], POINTS[1])
    with pytest.raises(UsageError, match="val_fraction is 0"):
        whole.part("val")
    with pytest.raises(UsageError, match="no test part"):
        CloudDataset(whole.meta, split()).part("test")
    with pytest.raises(UsageError, match="split 'tset'"):
        whole.part("tset")
    only_test = CloudDataset(whole.meta, split().subset([]), split())
    assert len(only_test.part("all")) == 12


def test_all_of_a_set_that_was_cut_is_every_cloud_once():
    cut = CloudDataset(dataset().meta, split()).with_test_fraction(0.3, seed=4)
    everyone = cut.part("all")
    assert sorted(everyone.names) == sorted(split().names)
    assert everyone.store is cut.train.store
    for i, name in enumerate(everyone.names):
        np.testing.assert_array_equal(everyone[i]["xyz"], POINTS[int(name[1:])])


def test_joined_splits_keep_labels_and_fields_that_all_have():
    store = ArrayStore(POINTS, fields={"part": (np.zeros((12, 8), np.int64), 1.0)})
    one, two = CloudSplit(store, LABELS, fields=("part",)), split(POINTS[:2] + 1, LABELS[:2])
    both = joined([one.subset([3, 1]), two, one.subset([0])])
    assert both.labels.tolist() == [0, 0, 0, 0, 0]
    assert both.fields == ()
    for i, xyz in enumerate((POINTS[3], POINTS[1], POINTS[0] + 1, POINTS[1] + 1, POINTS[0])):
        np.testing.assert_array_equal(both[i]["xyz"], xyz)
    assert joined([one, one.subset([2])])[12]["part"].tolist() == [0] * 8
    assert joined([one, CloudSplit(ArrayStore(POINTS))]).labels is None


def test_a_limit_counts_after_the_hold_out():
    labels = np.repeat([0, 1], 50)
    points = np.arange(300, dtype=np.float32).reshape(100, 1, 3)
    whole = CloudDataset(DatasetMeta("toy", None, ("a", "b")), split(points, labels), split(points, labels))
    train, held = whole.hold_out(0.2, 3)
    limited = whole.limited(10, 0.2, 3)
    assert limited.splits == {"train": 10, "val": 10, "test": 10}
    assert set(limited.val.names) <= set(held.names)
    assert set(limited.train.names) <= set(train.names)
    assert limited.hold_out(0.2, 3)[1].names == limited.val.names
    assert "at most 10 clouds" in limited.meta.note
    assert whole.limited(None, 0.2) is whole
    assert whole.limited(10, 0.0).splits == {"train": 10, "test": 10}


# Files with more than coordinates --------------------------------------------------------------------------------


def test_fields_of_files(tmp_path):
    def save(i: int, **feats: np.ndarray):
        return write(PointCloud(POINTS[i], feats), tmp_path / f"{i}.npz")

    part, extra = np.arange(8), np.ones((8, 3), np.float32)
    store = FileStore([save(0, part=part, normals=extra), save(1, part=part)], fields=("part",))
    assert CloudSplit(store, [0, 0], fields=("part",))[1]["part"].tolist() == list(range(8))
    with pytest.raises(UnknownNameError, match="normals"):
        store.field("normals", 0)
    offered = FileStore(store.paths, offered=("part", "normals", "colors"))
    assert offered.fields == ()
    offered.read_all()
    assert offered.fields == ("part",)
    missing = FileStore(store.paths, fields=("part", "normals"))
    with pytest.raises(DataError, match=r"1\.npz has no 'normals'"):
        missing.points(1)
    with pytest.raises(FileFormatError, match=r"1\.npz has no 'normals'"):
        missing.read_all()
    sample = store.points(0)
    sample[:] = 7
    np.testing.assert_array_equal(store.points(0), POINTS[0])


def test_clouds_as_a_list_of_arrays():
    tables = [np.concatenate([POINTS[i], -POINTS[i]], axis=1)[: 8 - i] for i in range(3)]
    store = ListStore(tables, where="x.dat")
    assert store.fields == ("normals",)
    assert store.counts().tolist() == [8, 7, 6]
    np.testing.assert_array_equal(store.points(2), POINTS[2][:6])
    np.testing.assert_array_equal(store.field("normals", 1), -POINTS[1][:7])
    assert ListStore([POINTS[0]]).fields == ()
    for wrong in (np.zeros((3, 4)), np.zeros((0, 3)), np.zeros(3), np.array([[None] * 3])):
        with pytest.raises(DataError, match=r"x\.dat: cloud 1 of shape"):
            ListStore([POINTS[0], wrong], where="x.dat")


def test_the_parts_of_a_set_know_what_they_are_of():
    meta = DatasetMeta("toy", None, ("a", "b", "c"), unit="m")
    toy = CloudDataset(meta, split(), val=split())
    parts = [toy.train, toy.val, toy.part("all"), *toy.hold_out(0.2)]
    parts += [toy.train.subset([3]), toy.train.take(2), toy.train.with_fields(), toy.train.relabelled(LABELS)]
    assert all(part.meta == meta for part in parts)
    assert split().meta is None
    assert toy.limited(3, 0.0).train.meta.note == "at most 3 clouds of each part"
    assert toy.with_test_fraction(0.3).test.meta.note.startswith("test part: 30%")
    other = CloudDataset(DatasetMeta("other", None, ("a", "b", "c")), split())
    assert joined([toy.train, other.train]).meta is None


def test_labels_of_other_classes_bring_their_names():
    renumbered = dataset().train.relabelled(2 - LABELS, ("c", "b", "a"))
    assert renumbered.meta.classes == ("c", "b", "a")
    assert [renumbered.meta.classes[k] for k in renumbered.labels] == [("a", "b", "c")[k] for k in LABELS]
    assert split().relabelled(LABELS, ("c", "b", "a")).meta is None
