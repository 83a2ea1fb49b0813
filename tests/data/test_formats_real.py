"""Real scans beside the checkout, unpacked for the test: every file opens, with the numbers of their README files."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest

from pointlift.data.files import find_clouds, read

pytestmark = pytest.mark.shared


def unpack(archive, folder):
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


def test_lidar_scans(shared, tmp_path):
    unpack(shared / "data" / "kitti_nuscenes_scans" / "scans.tar.xz", tmp_path)
    points = {path.name: read(path) for path in find_clouds([tmp_path])}
    assert {name: len(cloud) for name, cloud in points.items()} == {
        "kitti_000000.bin": 123_389,
        "kitti_000186.bin": 123_849,
        "kitti_object_000008_cropped.bin": 17_238,
        "nuscenes_lidar_top.pcd.bin": 34_688,
    }
    assert points["kitti_000000.bin"].feats["intensity"].max() == pytest.approx(0.99)
    nuscenes = points["nuscenes_lidar_top.pcd.bin"].feats
    assert (nuscenes["intensity"].max(), nuscenes["ring"].max()) == (255, 31)


def test_labelled_scans(shared, tmp_path):
    unpack(shared / "data" / "lidar_forward" / "test_a.tar.xz", tmp_path)
    scans = find_clouds([tmp_path])
    assert len(scans) == 8
    for path in scans:
        cloud = read(path)
        assert len(cloud) == 29_952
        assert not cloud.feats["instance"].any()
        assert set(np.unique(cloud.feats["semantic"])) <= {0, 1, 15, 20, 40, 51, 52, 70, 71, 72, 80}


def test_text_of_shapenetpart(shared, tmp_path):
    unpack(shared / "data" / "shapenetpart_cap" / "shapenetpart_cap.tar.xz", tmp_path)
    shapes = find_clouds([next(tmp_path.rglob("02954340"))])
    assert len(shapes) == 16
    for path in shapes:
        cloud = read(path, columns=("x", "y", "z", "nx", "ny", "nz", "part"))
        assert 2329 <= len(cloud) <= 2792
        assert set(np.unique(cloud.feats["part"])) <= {6, 7}
