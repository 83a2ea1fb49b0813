"""Clouds packed for a page: coordinates, order, colours, and clouds that are hard to draw."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from pointlift.report.points import Colouring, normals, pack


def unpacked(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


def test_a_cloud_fills_the_unit_ball_whatever_its_units():
    xyz = np.random.default_rng(0).uniform(-1, 1, (500, 3)) * [2000, 500, 100] + 4e6
    packed = pack(xyz)
    places = unpacked(packed["xyz"], "<i2").reshape(-1, 3) / 32767
    assert np.linalg.norm(places, axis=1).max() == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(np.ptp(places, axis=0) / np.ptp(places[:, 0]), np.ptp(xyz, axis=0) / 4000, atol=0.02)
    np.testing.assert_allclose(packed["high"], xyz.max(axis=0), rtol=1e-5)


def test_a_limit_keeps_a_fair_sample_in_random_order():
    line = np.stack([np.linspace(0, 1, 10_000), np.zeros(10_000), np.zeros(10_000)], axis=1)
    packed = pack(line, limit=1000)
    assert (packed["n"], packed["of"]) == (1000, 10_000)
    places = unpacked(packed["xyz"], "<i2").reshape(-1, 3)[:, 0] / 32767
    first = np.sort(places[:100])
    assert abs(first.mean()) < 0.2, "any first part is spread over the cloud"
    assert pack(line, limit=1000) == packed, "the same every time"


def test_colours_travel_with_their_points():
    xyz = np.arange(30, dtype=float).reshape(10, 3)
    colours = [
        Colouring("rgb", "own colours", np.arange(30).reshape(10, 3)),
        Colouring("ramp", "saliency", np.linspace(-0.5, 1.0, 10)),
        Colouring("classes", "parts", np.arange(10) % 3, ("leg", "seat", "back")),
    ]
    packed = pack(xyz, colourings=colours)
    order = np.argsort(unpacked(packed["xyz"], "<i2").reshape(-1, 3)[:, 0])
    rgb, ramp, parts = packed["colours"]
    np.testing.assert_array_equal(unpacked(rgb["data"], "u1").reshape(10, 3)[order], colours[0].values)
    np.testing.assert_array_equal(unpacked(parts["data"], "u1")[order], colours[2].values)
    assert parts["names"] == ["leg", "seat", "back"]
    shades = unpacked(ramp["data"], "u1")[order].astype(int)
    assert (shades[0], shades[3], shades[9]) == (64, 128, 255), "128 is zero, 255 the largest"
    assert ramp["largest"] == 1.0


@pytest.mark.parametrize(
    "xyz",
    [
        np.zeros((1, 3)),
        np.full((50_000, 3), 7.0),
        np.array([[0, 0, 0], [np.nan, 1, 1], [1, np.inf, 0], [2, 2, 2]]),
        np.full((4, 3), np.nan),
        np.array([[1e30, 0, 0], [-1e30, 0, 0]]),
    ],
    ids=["one point", "all the same", "some not finite", "none finite", "huge"],
)
def test_clouds_that_are_hard_to_draw(xyz):
    packed = pack(xyz)
    finite = int(np.isfinite(xyz).all(axis=1).sum())
    assert packed["n"] == max(1, finite)
    assert len(unpacked(packed["xyz"], "<i2")) == 3 * packed["n"]
    assert len(unpacked(packed["normal"], "i1")) == 3 * packed["n"]


def test_values_that_are_not_finite_are_grey():
    packed = pack(np.eye(3), colourings=[Colouring("ramp", "saliency", np.array([np.nan, np.inf, 1.0]))])
    assert sorted(unpacked(packed["colours"][0]["data"], "u1")) == [128, 128, 255]


def test_normals_of_a_plane_and_of_one_point():
    flat = np.random.default_rng(0).uniform(-1, 1, (200, 3)).astype(np.float32)
    flat[:, 2] = 0.25
    np.testing.assert_allclose(np.abs(normals(flat)), np.tile([0, 0, 1], (200, 1)), atol=1e-6)
    assert np.isfinite(normals(np.zeros((1, 3), np.float32))).all()
