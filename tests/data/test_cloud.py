"""What counts as coordinates, and clouds far from the origin."""

from __future__ import annotations

import numpy as np
import pytest

from pointlift.core.errors import FileFormatError
from pointlift.data.cloud import PointCloud, checked_xyz


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((0, 3)), "no points"),
        (np.zeros((4, 2)), r"\(4, 2\)"),
        (np.zeros(6), r"\(6,\)"),
        (np.zeros((2, 4, 3)), r"\(2, 4, 3\)"),
        (np.zeros((4, 3), dtype=complex), "complex"),
        (np.array([["a", "b", "c"]]), "type <U1"),
        (np.array([[1e31, 0, 0]]), "1e\\+31"),
    ],
)
def test_refuses(array, says):
    with pytest.raises(FileFormatError, match=says) as info:
        checked_xyz(array, "chair.ply")
    assert "chair.ply" in str(info.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_says_how_many_are_not_finite_and_where_the_first_is(bad):
    xyz = np.zeros((10, 3), np.float32)
    xyz[4, 1] = xyz[7, 0] = xyz[7, 2] = bad
    with pytest.raises(FileFormatError, match=r"2 of 10 points .* row 4"):
        checked_xyz(xyz, "scan.xyz")


def test_a_cloud_near_the_origin_is_kept_as_it_is():
    xyz = np.random.default_rng(0).normal(size=(50, 3)) * 20 + 500
    cloud = PointCloud.from_array(xyz, "a")
    assert not cloud.offset.any()
    assert cloud.xyz.dtype == np.float32
    np.testing.assert_array_equal(cloud.xyz, xyz.astype(np.float32))


def test_a_cloud_far_away_keeps_its_shape():
    shape = np.random.default_rng(0).normal(size=(50, 3))
    far = shape + np.array([4.5e5, 5.4e6, 120.0])
    cloud = PointCloud.from_array(far, "utm.xyz")
    assert cloud.offset.any()
    spread = cloud.xyz - cloud.xyz.mean(0)
    np.testing.assert_allclose(spread, shape - shape.mean(0), atol=1e-6)
    np.testing.assert_allclose(cloud.world_xyz, far, atol=1e-6)


def test_a_single_point_far_away():
    cloud = PointCloud.from_array(np.array([[123456789.25, 0.0, 0.0]]), "one.npy")
    np.testing.assert_array_equal(cloud.world_xyz, [[123456789.25, 0, 0]])
