"""Plain float32 scans and their labels."""

from __future__ import annotations

import numpy as np
import pytest

from pointlift.core.errors import FileFormatError, UsageError
from pointlift.data.cloud import PointCloud
from pointlift.data.files import read, write

TABLE = np.random.default_rng(0).random((30, 4)).astype("<f4")
LABELS = np.arange(30, dtype="<u4") % 7 | np.arange(30, dtype="<u4") << 16


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "sequences" / "08" / "velodyne" / "000005.bin"
    path.parent.mkdir(parents=True)
    TABLE.tofile(path)
    return path


def test_a_scan(scan):
    cloud = read(scan)
    np.testing.assert_array_equal(cloud.xyz, TABLE[:, :3])
    np.testing.assert_array_equal(cloud.feats["intensity"], TABLE[:, 3])
    assert set(cloud.feats) == {"intensity"}


@pytest.mark.parametrize("place", ["000005.label", "../labels/000005.label"])
def test_labels_beside_it(place, scan, monkeypatch):
    labels = scan.parent / place
    labels.parent.resolve().mkdir(exist_ok=True)
    (scan.parent.parent / "labels").mkdir(exist_ok=True)
    LABELS.tofile(labels)
    monkeypatch.chdir(scan.parent)
    for path in (scan, scan.name):
        feats = read(path).feats
        np.testing.assert_array_equal(feats["semantic"], np.arange(30) % 7)
        np.testing.assert_array_equal(feats["instance"], np.arange(30))
        assert feats["semantic"].dtype == feats["instance"].dtype == np.int64
    LABELS[:-1].tofile(labels)
    with pytest.raises(FileFormatError, match=r"000005\.label: 116 bytes, 29 labels.*30 labels"):
        read(scan)


def test_five_columns_of_nuscenes(tmp_path):
    table = np.random.default_rng(0).random((30, 5)).astype("<f4")
    table.tofile(tmp_path / "a.pcd.bin")
    cloud = read(tmp_path / "a.pcd.bin")
    np.testing.assert_array_equal(cloud.xyz, table[:, :3])
    np.testing.assert_array_equal(cloud.feats["ring"], table[:, 4])


def test_other_widths_by_name(tmp_path):
    table = np.random.default_rng(0).random((10, 6)).astype("<f4")
    table.tofile(tmp_path / "a.bin")
    cloud = read(tmp_path / "a.bin", columns=("x", "y", "z", "_", "nothing", "time"))
    np.testing.assert_array_equal(cloud.xyz, table[:, :3])
    np.testing.assert_array_equal(cloud.feats["time"], table[:, 5])
    with pytest.raises(UsageError, match="x, y and z among them"):
        read(tmp_path / "a.bin", columns=("a", "b", "c"))


def test_a_size_that_does_not_divide_names_the_widths_that_do(tmp_path):
    np.zeros(3 * 5, "<f4").tofile(tmp_path / "a.bin")
    with pytest.raises(FileFormatError, match=r"60 bytes.*multiple of 16.*fits 3, 5 columns"):
        read(tmp_path / "a.bin")
    (tmp_path / "b.bin").write_bytes(b"\0" * 17)
    with pytest.raises(FileFormatError, match=r"17 bytes.*multiple of 16"):
        read(tmp_path / "b.bin")


def test_labels_are_written_beside_it(tmp_path):
    feats = {"semantic": np.arange(4), "instance": np.array([0, 1, 65535, 2])}
    cloud = PointCloud(np.eye(4, 3, dtype=np.float32), feats)
    write(cloud, tmp_path / "a.bin")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin", "a.label"]
    packed = np.fromfile(tmp_path / "a.label", "<u4")
    np.testing.assert_array_equal(packed, [0, 1 | 1 << 16, 2 | 65535 << 16, 3 | 2 << 16])


def test_labels_that_do_not_fit_are_refused_and_nothing_is_left(tmp_path):
    for semantic in ([-1, 0], [0, 65536], [0.5, 1]):
        cloud = PointCloud(np.zeros((2, 3), np.float32), {"semantic": np.array(semantic)})
        with pytest.raises(FileFormatError, match=r"'semantic' beyond 0\.\.65535"):
            write(cloud, tmp_path / "a.bin")
    assert not list(tmp_path.iterdir())


def test_labels_of_an_earlier_scan_are_not_taken_for_new_ones(tmp_path):
    write(PointCloud(np.zeros((2, 3), np.float32), {"semantic": np.array([1, 2])}), tmp_path / "a.bin")
    with pytest.raises(FileFormatError, match=r"a\.label would be taken for its labels"):
        write(PointCloud(np.zeros((2, 3), np.float32)), tmp_path / "a.bin")
    assert read(tmp_path / "a.bin").feats["semantic"].tolist() == [1, 2]
