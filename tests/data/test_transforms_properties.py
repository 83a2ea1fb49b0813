"""What must hold of every cloud on its way to a model, whatever its size, place and shape."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pointlift.data import transforms as T
from pointlift.data.cloud import PointCloud
from pointlift.data.config import AugmentConfig, ResampleConfig
from pointlift.data.pipeline import CloudTransform
from pointlift.data.resample import farthest_rows, fixed_rows, thin_rows

seeds = st.integers(0, 2**32 - 1)
common = settings(max_examples=30, deadline=None, derandomize=True, database=None)
# Any coordinate that a file may hold, from the smallest numbers to about 1e30, equal ones included.
coordinates = st.floats(-(2.0**99), 2.0**99, width=32) | st.sampled_from([0.0, -0.0, 1.0, 1e-38, -1e-45, 2.0**99])
wild = arrays(np.float32, st.tuples(st.integers(1, 40), st.just(3)), elements=coordinates)
augmentations = st.builds(
    AugmentConfig,
    rotate=st.floats(0, 180),
    scale=st.tuples(st.floats(0.1, 1), st.floats(1, 5)),
    anisotropic=st.booleans(),
    shift=st.floats(0, 1),
    jitter=st.floats(0, 0.1),
    drop=st.floats(0, 0.9),
    shuffle=st.booleans(),
)


@st.composite
def shaped(draw, largest: int = 80) -> np.ndarray:
    """A cloud with a shape: at least four distinct points about the origin, of extent 1."""
    rng = np.random.default_rng(draw(seeds))
    return rng.uniform(-1, 1, (draw(st.integers(4, largest)), 3)).astype(np.float32)


def rows_of(found: np.ndarray, source: np.ndarray) -> bool:
    return {row.tobytes() for row in found} <= {row.tobytes() for row in source}


# ------------------------------------------------------------------------------------------------ normalisation


@given(wild, st.sampled_from(["unit_sphere", "center", "none"]))
@common
def test_finite_in_finite_out(xyz, how):
    result = T.normalize(xyz, how)
    assert result.shape == xyz.shape
    assert result.dtype == np.float32
    assert np.isfinite(result).all()
    if how == "unit_sphere":
        assert np.linalg.norm(result.astype(float), axis=1).max() <= 1 + 1e-6


@given(shaped(), st.sampled_from(["unit_sphere", "center"]))
@common
def test_a_second_normalisation_changes_nothing(xyz, how):
    once = T.normalize(xyz, how)
    np.testing.assert_allclose(T.normalize(once, how), once, atol=2e-6)


@given(shaped(), st.integers(0, 12), st.tuples(*[st.floats(-1, 1)] * 3), st.integers(0, 8))
@common
def test_unit_and_place_are_forgotten(xyz, unit, direction, distance):
    """Metres or micrometres, at the origin or at UTM coordinates: read as float64, it is the same cloud."""
    moved = (xyz.astype(np.float64) + np.array(direction) * 10.0**distance) * 10.0**unit
    found = T.normalize_unit_sphere(PointCloud.from_array(moved, "array").xyz)
    # Up to FAR_METRES from the origin nothing is centred, and float32 has steps of 6e-5 there.
    np.testing.assert_allclose(found, T.normalize_unit_sphere(xyz), atol=2e-4)


@given(shaped(), st.floats(-math.pi, math.pi), st.sampled_from("xyz"))
@common
def test_rotation_and_normalisation_commute(xyz, angle, axis):
    matrix = T.rotation(angle, axis)
    np.testing.assert_allclose(T.normalize_unit_sphere(xyz @ matrix), T.normalize_unit_sphere(xyz) @ matrix, atol=2e-6)


@given(shaped(30), st.floats(-math.pi, math.pi), st.sampled_from("xyz"))
@common
def test_rotation_keeps_distances_and_the_up_axis(xyz, angle, axis):
    turned = xyz @ T.rotation(angle, axis)
    before, after = (np.linalg.norm(c[:, None] - c[None], axis=-1) for c in (xyz, turned))
    np.testing.assert_allclose(after, before, atol=1e-5)
    np.testing.assert_array_equal(turned[:, T.AXES[axis]], xyz[:, T.AXES[axis]])


# --------------------------------------------------------------------------------------------------- resampling


@given(wild, st.integers(1, 70), st.sampled_from(["fps", "first"]), st.booleans())
@common
def test_test_points_are_rows_of_the_cloud(xyz, points, test, skip):
    config = ResampleConfig(test=test, skip_near_origin=skip)
    transform = CloudTransform(points, "test", normalize="none", resample=config)
    found = transform({"xyz": xyz})["xyz"]
    assert found.shape == (points, 3)
    assert rows_of(found, xyz)
    np.testing.assert_array_equal(transform({"xyz": xyz})["xyz"], found)
    if points >= len(xyz) and not skip:
        assert rows_of(xyz, found)  # nothing is lost where there is room for all


@given(shaped(), st.integers(1, 70))
@common
def test_repeated_points_are_repeated_evenly(xyz, points):
    rows = fixed_rows(xyz, "test", points, ResampleConfig())
    if rows is not None and points >= len(xyz):
        times = np.bincount(rows, minlength=len(xyz))
        assert times.max() - times.min() <= 1


@given(shaped(), seeds)
@common
def test_farthest_samples_begin_alike_and_are_distinct(xyz, seed):
    num = 1 + seed % len(xyz)
    rows = farthest_rows(xyz, len(xyz))
    np.testing.assert_array_equal(farthest_rows(xyz, num), rows[:num])
    assert len(set(rows.tolist())) == len(xyz)
    assert rows[0] == 0


@given(st.integers(1, 5000), st.integers(1, 5000))
@common
def test_thinning_keeps_the_order_and_takes_each_once(count, limit):
    rows = thin_rows(count, limit)
    assert (rows is None) == (count <= limit)
    if rows is not None:
        assert len(rows) == limit
        assert (np.diff(rows) > 0).all()
        np.testing.assert_array_equal(rows, thin_rows(count, limit))


# ------------------------------------------------------------------------------------------------- augmentation


@given(wild, augmentations, st.integers(1, 60), seeds, st.sampled_from(["train", "vote"]))
@common
def test_augmented_clouds_are_finite_and_follow_the_seed(xyz, augment, points, seed, stage):
    transform = CloudTransform(points, stage, augment=augment, up_axis="z")
    first, again = (transform({"xyz": xyz}, np.random.default_rng(seed)) for _ in range(2))
    assert first["xyz"].shape == (points, 3)
    assert first["xyz"].dtype == np.float32
    assert np.isfinite(first["xyz"]).all()
    np.testing.assert_array_equal(first["xyz"], again["xyz"])


@given(shaped(), st.integers(4, 60), seeds)
@common
def test_neutral_augmentation_changes_nothing(xyz, points, seed):
    transform = CloudTransform(points, "train", augment=AugmentConfig.none(), up_axis="z")
    prepared = transform.prepare({"xyz": xyz})
    drawn = transform.draw(prepared, np.random.default_rng(seed))["xyz"]
    assert rows_of(drawn, prepared["xyz"])
    if len(prepared["xyz"]) == points:
        np.testing.assert_array_equal(drawn, prepared["xyz"])


@given(shaped(), augmentations, seeds)
@common
def test_per_point_arrays_follow_their_points(xyz, augment, seed):
    """Labels go with the points through sampling, shuffling and dropping: found again by their coordinates."""
    still = replace(augment, rotate=0.0, scale=(1.0, 1.0), shift=0.0, jitter=0.0)
    part = np.arange(len(xyz))
    transform = CloudTransform(24, "train", normalize="none", augment=still)
    found = transform({"xyz": xyz, "part": part}, np.random.default_rng(seed))
    np.testing.assert_array_equal(xyz[found["part"]], found["xyz"])


@given(shaped(), augmentations, seeds)
@common
def test_unit_normals_stay_unit_normals(xyz, augment, seed):
    normals = T.normalize_unit_sphere(xyz)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    transform = CloudTransform(16, "train", augment=replace(augment, drop=0.0), up_axis="y")
    found = transform({"xyz": xyz, "normals": normals}, np.random.default_rng(seed))["normals"]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-4)


@given(shaped(), seeds)
@common
def test_a_sample_is_not_changed_by_what_is_drawn_from_it(xyz, seed):
    transform = CloudTransform(20, "train", augment=AugmentConfig(rotate=90, jitter=0.1, drop=0.5), up_axis="z")
    sample = {"xyz": xyz.copy(), "part": np.arange(len(xyz))}
    prepared = transform.prepare(sample)
    kept = {name: value.copy() for name, value in prepared.items()}
    transform.draw(prepared, np.random.default_rng(seed))
    for name, value in kept.items():
        np.testing.assert_array_equal(prepared[name], value)
    np.testing.assert_array_equal(sample["xyz"], xyz)


def test_random_stages_want_a_generator():
    with pytest.raises(ValueError, match="random"):
        CloudTransform(8, "train")({"xyz": np.zeros((9, 3), np.float32)})
