"""The real sets beside the checkout open, with the numbers of their README files."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest

import pointlift as pl
from pointlift.data.config import AugmentConfig, DataConfig
from pointlift.data.loader import make_loader
from pointlift.data.loading import load_dataset
from pointlift.data.pipeline import build_transform
from pointlift.data.sets.known import MODELNET40_CLASSES

pytestmark = pytest.mark.shared

# folder: name, train, test, classes, native points, content hash (first digits)
SETS = {
    "modelnet40": ("modelnet40", 9843, 1234, 40, 1024, "9cd9360b52d7"),
    "shapedb69": ("shapedb69", 1442, 478, 69, 1024, "ec96b45427a2"),
    "dales_objects": ("dales_objects", 299, 100, 5, None, "4f993eeba651"),
    "labeled_psb": ("labeled_psb", 228, 76, 19, 4096, "5bda5ccb9afb"),
    "bimnet10": ("bimnet10", 165, None, 10, 2048, "fca5cf101cab"),
}


@pytest.mark.parametrize("folder", SETS)
def test_opens(folder, shared):
    name, train, test, classes, native, digest = SETS[folder]
    data = load_dataset(shared / "data" / folder)
    assert data.meta.name == name
    assert len(data.train) == train
    assert (None if data.test is None else len(data.test)) == test
    assert len(data.meta.classes) == classes
    assert data.meta.native_points == native
    assert data.content_hash().startswith(digest)
    for part in filter(None, (data.train, data.test)):
        xyz = part[len(part) - 1]["xyz"]
        assert xyz.dtype == np.float32
        assert np.isfinite(xyz).all()


def test_modelnet40_counts(shared):
    data = load_dataset(shared / "data" / "modelnet40", up_axis="z")
    assert data.meta.classes == MODELNET40_CLASSES
    counts = np.bincount(data.train.labels)
    assert (counts[0], counts[6], counts[39]) == (626, 64, 103)
    assert data.train.names[0] == "airplane_0001"
    assert np.linalg.norm(data.train[0]["xyz"], axis=1).max() == pytest.approx(1, abs=1e-4)
    train, validation = data.hold_out(0.1)
    assert (len(train), len(validation)) == (8858, 985)


def test_dales_objects_are_metric_and_of_all_sizes(shared):
    data = load_dataset(shared / "data" / "dales_objects", up_axis="z")
    assert data.meta.unit == "m"
    counts = np.concatenate([data.train.counts(), data.test.counts()])
    assert (counts.min(), counts.max()) == (101, 28_100)
    config = DataConfig(augment=AugmentConfig(rotate=180))
    transform = build_transform(config, data.meta, "train")
    batches = list(make_loader(data.test, transform, batch_size=50, seed=0, shuffle=True))
    assert [b["xyz"].shape for b in batches] == [(50, 1024, 3)] * 2


def test_labelled_psb_fields(shared):
    data = load_dataset(shared / "data" / "labeled_psb")
    assert len(data.meta.point_classes) == 94
    assert sorted(i for parts in data.meta.parts_of.values() for i in parts) == list(range(94))
    for split in (data.train, data.test):
        carried = split.with_fields("part")
        for i in range(len(carried)):
            allowed = data.meta.parts_of[data.meta.classes[carried.labels[i]]]
            assert set(np.unique(carried[i]["part"])) <= set(allowed)
    sample = data.train.with_fields("normals", "part")[7]
    assert sample["part"].shape == (4096,)
    assert np.linalg.norm(sample["normals"], axis=1).mean() == pytest.approx(1, abs=0.02)


def unpacked(archive, folder):
    """The folder with the contents of an archive."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder


def test_mosd_tabletop(shared):
    data = load_dataset(shared / "data" / "mosd_tabletop")
    assert data.splits == {"train": 45, "test": 34}
    assert (data.meta.unit, data.meta.native_points) == ("m", 16384)
    assert data.meta.point_classes == ("support", "object")
    assert data.train.labels is None
    shares = [np.mean([split[i]["semantic"].mean() for i in range(len(split))]) for split in (data.train, data.test)]
    np.testing.assert_allclose(shares, [0.14, 0.23], atol=0.006)
    sample = data.train.with_fields("semantic", "instance", "colors")[3]
    assert sample["instance"].min() == 1
    assert (sample["instance"] > 1).tolist() == (sample["semantic"] == 1).tolist()
    assert sample["colors"].dtype == np.uint8
    assert 0.3 < np.median(sample["xyz"][:, 2]) < 3  # metres from the camera


def test_lidar_forward(shared, tmp_path):
    for name in ("train", "test_a"):
        unpacked(shared / "data" / "lidar_forward" / f"{name}.tar.xz", tmp_path)
    data = load_dataset(tmp_path)
    assert data.splits == {"train": 49, "val": 8}
    assert data.train.labels is None
    counts: dict[int, int] = {}
    for i in range(len(data.train)):
        sample = data.train[i]
        returned = sample["xyz"].any(axis=1)
        for value, count in zip(*np.unique(sample["semantic"][returned], return_counts=True), strict=True):
            counts[int(value)] = counts.get(int(value), 0) + int(count)
    assert (counts[40], counts[70], counts[15], counts[0]) == (191_053, 445_833, 2_852, 227_024)
    assert data.train.with_fields("intensity")[0]["intensity"].max() <= 200


def test_shapenetpart_cap(shared, tmp_path):
    unpacked(shared / "data" / "shapenetpart_cap" / "shapenetpart_cap.tar.xz", tmp_path)
    data = load_dataset(tmp_path)
    assert data.meta.name == "shapenetpart"
    assert data.splits == {"train": 0, "val": 5, "test": 11}
    assert data.meta.parts_of["Cap"] == (6, 7)
    for split in (data.val, data.test):
        for i in range(len(split)):
            sample = split.with_fields("part", "normals")[i]
            assert data.meta.classes[sample["label"]] == "Cap"
            assert set(np.unique(sample["part"])) <= {6, 7}
            assert 2329 <= len(sample["xyz"]) <= 2792
            assert len(sample["normals"]) == len(sample["part"]) == len(sample["xyz"])


@pytest.mark.parametrize(
    ("name", "points", "fields"),
    [
        ("kitti_000000.bin", 123_389, {"intensity"}),
        ("kitti_000186.bin", 123_849, {"intensity"}),
        ("kitti_object_000008_cropped.bin", 17_238, {"intensity"}),
        ("nuscenes_lidar_top.pcd.bin", 34_688, {"intensity", "ring"}),
    ],
)
def test_kitti_and_nuscenes_scans(name, points, fields, shared, tmp_path):
    unpacked(shared / "data" / "kitti_nuscenes_scans" / "scans.tar.xz", tmp_path)
    (path,) = tmp_path.rglob(name)
    cloud = pl.read(path)
    assert len(cloud) == points
    assert set(cloud.feats) == fields
    data = load_dataset(path.parent)
    assert len(data.train) == 4
    assert data.train.labels is None
