"""Procedural shapes: what every class promises, and that a seed means the same cloud everywhere."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from pointlift.core.errors import ConfigError, UnknownNameError, UsageError
from pointlift.core.seeds import generator
from pointlift.data.shapes import CLASSES, PART_IDS, PART_NAMES, PARTS, ShapeConfig, make_shape

PLAIN = ShapeConfig(points=256, pose="none", level=0, stretch=0, warp=0, noise=0, density=0, occlusion=0)


def test_there_are_enough_classes_and_parts_are_numbered_once():
    assert len(CLASSES) >= 12
    assert set(CLASSES) >= {"chair", "table", "lamp", "mug", "plane", "car", "bottle", "guitar"}
    assert [k for name in CLASSES for k in PART_IDS[name]] == list(range(len(PART_NAMES)))
    assert PART_NAMES[PART_IDS["mug"][1]] == "mug/" + PARTS["mug"][1]


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_gives_valid_and_varied_shapes(name):
    seen, clouds = set(), []
    for i in range(50):
        shape = make_shape(name, generator(0, name, i), points=200)
        assert shape.xyz.shape == shape.normals.shape == (200, 3)
        assert shape.part.shape == (200,)
        assert (shape.xyz.dtype, shape.normals.dtype, shape.part.dtype) == (np.float32, np.float32, np.int64)
        assert np.isfinite(shape.xyz).all()
        np.testing.assert_allclose(shape.xyz.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(shape.xyz, axis=1).max(), 1, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(shape.normals, axis=1), 1, atol=1e-4)
        assert shape.name == name
        assert CLASSES[shape.label] == name
        seen |= set(shape.part.tolist())
        clouds.append(np.ptp(shape.xyz, axis=0))
    assert seen == set(PART_IDS[name])
    assert np.std(clouds, axis=0).min() > 0.02


@pytest.mark.parametrize("name", CLASSES)
def test_members_differ_in_proportions_even_without_any_distortion(name):
    boxes = np.array([np.ptp(make_shape(name, generator(1, name, i), config=PLAIN).xyz, axis=0) for i in range(12)])
    ratios = np.log(boxes[:, 2] / boxes[:, 0])
    assert np.std(ratios) > 0.03


def test_equal_streams_give_equal_shapes_and_other_streams_other_ones():
    first, again, other = (make_shape("chair", generator(k)) for k in (3, 3, 4))
    np.testing.assert_array_equal(first.xyz, again.xyz)
    np.testing.assert_array_equal(first.part, again.part)
    assert not np.array_equal(first.xyz, other.xyz)


def test_a_label_is_a_position_in_the_configured_classes():
    config = ShapeConfig(points=64, classes=("mug", "chair"))
    assert make_shape(1, generator(0), config=config).name == "chair"
    assert make_shape("mug", generator(0), config=config).label == 0
    with pytest.raises(UsageError, match="0 to 1"):
        make_shape(2, generator(0), config=config)
    with pytest.raises(UsageError, match="mug, chair"):
        make_shape("vase", generator(0), config=config)


def test_wrong_names_and_amounts_are_explained():
    with pytest.raises(UnknownNameError, match="Did you mean 'guitar'"):
        make_shape("guittar", generator(0))
    with pytest.raises(UnknownNameError, match="Did you mean 'table'"):
        ShapeConfig(classes=("chair", "tabel"))
    with pytest.raises(ConfigError) as caught:
        ShapeConfig(points=0, pose="down", occlusion=0.99)
    assert all(word in str(caught.value) for word in ("points=0", "pose='down'", "occlusion=0.99"))
    with pytest.raises(ConfigError, match="each once"):
        ShapeConfig(classes=("mug", "mug"))


def test_the_pose_turns_about_z_uniformly():
    turns = []
    for i in range(200):
        a, b = (make_shape("sofa", generator(5, i), config=ShapeConfig(points=60, pose=p)).xyz for p in ("none", "up"))
        np.testing.assert_allclose(a[:, 2], b[:, 2], atol=1e-5)
        cos, sin = (a[:, :2] * b[:, :2]).sum(), (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()
        turns.append(np.arctan2(sin, cos))
    counts, _ = np.histogram(turns, bins=8, range=(-np.pi, np.pi))
    assert counts.min() >= 10  # 25 expected in each eighth
    assert counts.max() <= 45


def test_so3_is_a_rotation_that_tips_shapes_over():
    a, b = (make_shape("plane", generator(7), config=ShapeConfig(points=200, pose=p)) for p in ("none", "so3"))
    left, _, right = np.linalg.svd(a.xyz.T @ b.xyz)
    np.testing.assert_allclose(a.xyz @ (left @ right), b.xyz, atol=1e-4)
    assert np.linalg.det(left @ right) > 0
    assert np.abs(a.xyz[:, 2] - b.xyz[:, 2]).max() > 0.1


def test_noise_density_and_occlusion_change_the_cloud_as_they_say():
    names = ("table", "bottle", "car")

    def mean_offset(**changes: float) -> float:
        """How far, over many shapes, the centroid lies from the middle of the box."""
        config = ShapeConfig(**({"points": 400, "noise": 0, "density": 0, "occlusion": 0} | changes))
        clouds = [make_shape(n, generator(2, n, i), config=config).xyz for n in names for i in range(10)]
        return float(np.mean([np.linalg.norm((x.max(axis=0) + x.min(axis=0))[:2] / 2) for x in clouds]))

    assert mean_offset(density=4.0) > 1.5 * mean_offset()
    quiet, noisy = (
        make_shape("table", generator(1), config=ShapeConfig(points=400, density=0, occlusion=0, noise=n)).xyz
        for n in (0.0, 0.02)
    )
    assert 0.01 < np.std(quiet - noisy) < 0.04
    whole, cut = (
        make_shape("sofa", generator(1), config=ShapeConfig(points=400, density=0, noise=0, occlusion=o)).xyz
        for o in (0.0, 0.6)
    )
    assert not np.allclose(np.ptp(whole, axis=0), np.ptp(cut, axis=0), atol=0.05)


def test_a_seed_means_the_same_cloud_on_every_machine():
    """Rounded to 1e-4, so that the last bit of a sine does not matter. A change here is a change of `VERSION`."""
    digest = hashlib.sha256()
    for name in CLASSES:
        for i in range(2):
            shape = make_shape(name, generator(0, "digest", name, i), points=128)
            digest.update(np.round(shape.xyz.astype(np.float64) * 1e4).astype("<i4").tobytes())
            digest.update(shape.part.astype("<i4").tobytes())
    assert digest.hexdigest()[:16] == "e579443ec1c660bb"
