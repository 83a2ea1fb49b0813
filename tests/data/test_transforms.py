"""Properties of the geometric changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointlift.core.errors import UsageError
from pointlift.data import transforms as T

seeds = st.integers(0, 2**32 - 1)
common = settings(max_examples=40, deadline=None, derandomize=True, database=None)


@st.composite
def clouds(draw) -> np.ndarray:
    rng = np.random.default_rng(draw(seeds))
    size = 10.0 ** draw(st.integers(-6, 6))
    middle = rng.uniform(-1, 1, 3) * size * draw(st.sampled_from([0, 1, 50]))
    return (rng.normal(size=(draw(st.integers(1, 60)), 3)) * size + middle).astype(np.float32)


@given(clouds())
@common
def test_normalize_gives_centroid_zero_and_radius_one(xyz):
    result = T.normalize_unit_sphere(xyz)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_allclose(result.mean(0, dtype=np.float64), 0, atol=1e-6)
    radius = np.linalg.norm(result, axis=1).max()
    assert radius == pytest.approx(1, abs=1e-6) or (len(xyz) == 1 and radius == 0)


@given(clouds(), st.integers(-3, 3), seeds)
@common
def test_normalize_forgets_scale_and_keeps_the_order_of_points(xyz, exponent, seed):
    np.testing.assert_allclose(
        T.normalize_unit_sphere(xyz * np.float32(2.0**exponent)), T.normalize_unit_sphere(xyz), atol=1e-6
    )
    order = np.random.default_rng(seed).permutation(len(xyz))
    np.testing.assert_allclose(T.normalize_unit_sphere(xyz[order]), T.normalize_unit_sphere(xyz)[order], atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 3.25, 1e8, -1e-30])
def test_identical_points_become_the_origin(value):
    np.testing.assert_array_equal(T.normalize_unit_sphere(np.full((7, 3), value, np.float32)), 0)


def test_very_large_and_very_small_clouds():
    xyz = np.random.default_rng(0).normal(size=(30, 3))
    for size in (1e-30, 1e29):
        result = T.normalize_unit_sphere((xyz * size).astype(np.float32))
        np.testing.assert_allclose(result, T.normalize_unit_sphere(xyz.astype(np.float32)), atol=1e-5)


@given(clouds())
@common
def test_center_moves_and_nothing_else(xyz):
    result = T.center(xyz)
    size = np.abs(xyz).max()
    np.testing.assert_allclose(result.mean(0, dtype=np.float64), 0, atol=1e-6 * size)
    np.testing.assert_allclose(result - result[0], xyz - xyz[0], atol=2e-6 * size)


@given(clouds(), st.floats(-math.pi, math.pi), st.sampled_from("xyz"))
@common
def test_rotation_keeps_norms_distances_and_the_up_coordinate(xyz, angle, axis):
    turned = xyz @ T.rotation(angle, axis)
    size = np.abs(xyz).max()
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(xyz, axis=1), rtol=1e-5)
    np.testing.assert_allclose(turned[:, T.AXES[axis]], xyz[:, T.AXES[axis]], atol=1e-6 * size)
    np.testing.assert_allclose(turned @ T.rotation(-angle, axis), xyz, atol=1e-5 * size)


@pytest.mark.parametrize(("axis", "before", "after"), [("x", "y", "z"), ("y", "z", "x"), ("z", "x", "y")])
def test_rotation_is_right_handed(axis, before, after):
    unit = np.eye(3, dtype=np.float32)
    quarter = T.rotation(math.pi / 2, axis)
    np.testing.assert_allclose(unit[T.AXES[before]] @ quarter, unit[T.AXES[after]], atol=1e-7)


def test_a_tilt_is_a_rotation_about_any_axis():
    drawn = [T.random_tilt(np.random.default_rng(seed), 30).astype(np.float64) for seed in range(200)]
    angles = [np.degrees(np.arccos(np.clip((np.trace(m) - 1) / 2, -1, 1))) for m in drawn]
    assert max(angles) <= 30.01
    assert max(angles) > 25
    for matrix in drawn:
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-6)
        assert np.linalg.det(matrix) > 0
    axes = np.array([[m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]] for m in drawn])
    assert (np.abs(axes / np.linalg.norm(axes, axis=1, keepdims=True)).mean(0) > 0.4).all(), "no axis is favoured"


def test_rotation_needs_to_know_what_is_up():
    with pytest.raises(UsageError, match=r"up axis is unknown.*data\.up_axis"):
        T.rotation(0.1, None)


@given(seeds, st.booleans())
@common
def test_scale_and_shift(seed, anisotropic):
    rng = np.random.default_rng(seed)
    xyz = rng.normal(size=(20, 3)).astype(np.float32)
    factors = T.random_scale(rng, (2 / 3, 3 / 2), anisotropic=anisotropic)
    shift = T.random_shift(rng, 0.2)
    assert ((factors >= 2 / 3 - 1e-6) & (factors <= 3 / 2 + 1e-6)).all()
    assert (np.abs(shift) <= 0.2 + 1e-6).all()
    assert len(set(factors.tolist())) == (3 if anisotropic else 1)
    np.testing.assert_array_equal(T.scale_and_shift(xyz, factors, shift), xyz * factors + shift)


def test_scaled_normals_stay_normal_to_the_surface():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50, 3))  # two tangents per point
    normals = np.cross(a, b)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    factors = np.array([0.7, 1.4, 1.1], np.float32)
    scaled = T.scale_normals(normals, factors)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), 1, atol=1e-6)
    for tangent in (a * factors, b * factors):
        np.testing.assert_allclose((scaled * tangent).sum(1), 0, atol=1e-5)
    np.testing.assert_array_equal(T.scale_normals(np.zeros((2, 3)), factors), 0)


def test_jitter_is_clipped_and_small():
    xyz = np.zeros((5000, 3), np.float32)
    moved = T.jitter(xyz, np.random.default_rng(0), 0.01, 0.02)
    assert moved.dtype == np.float32
    assert np.abs(moved).max() == pytest.approx(0.02)
    assert moved.std() == pytest.approx(0.01, rel=0.06)


def test_dropped_rows_become_the_first():
    shares = [(T.dropped_rows(np.random.default_rng(s), 1000, 0.8) == 0).mean() for s in range(40)]
    assert max(shares) < 0.85
    assert min(shares) < 0.2 < 0.5 < max(shares)


@given(seeds, st.integers(1, 50), st.integers(1, 120), st.booleans())
@common
def test_subset_rows_use_every_point_as_evenly_as_possible(seed, available, num, shuffle):
    rows = T.subset_rows(np.random.default_rng(seed), available, num, shuffle=shuffle)
    times = np.bincount(rows, minlength=available)
    assert len(rows) == num
    assert len(times) == available
    assert times.max() - times.min() <= 1
    if not shuffle:
        assert (np.diff(rows) >= 0).all()
    again = T.subset_rows(np.random.default_rng(seed), available, num, shuffle=shuffle)
    np.testing.assert_array_equal(rows, again)
