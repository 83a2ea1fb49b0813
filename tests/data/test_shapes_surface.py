"""Primitives and sampling of procedural shapes: even over the area, normals outward, insides hidden."""

from __future__ import annotations

import numpy as np
import pytest

from pointlift.core.errors import DataError, UnknownNameError, UsageError
from pointlift.core.seeds import generator
from pointlift.data.shapes.builder import Builder, angles
from pointlift.data.shapes.draw import Draw
from pointlift.data.shapes.make import _Warp
from pointlift.data.shapes.sampling import direction, sample_surface


def sampled(build, count: int = 4000, parts: tuple[str, ...] = ("a", "b"), **options):
    """xyz (N, 3), normals (N, 3), part (N,) of what `build(builder)` makes."""
    builder = Builder(parts)
    build(builder)
    xyz, normals, part = sample_surface(builder.surface(), count, generator(0), **options)
    return xyz.T, normals.T, part


def test_a_box_is_sampled_by_area_with_outward_normals():
    xyz, normals, _ = sampled(lambda b: b.box((1, 2, 3), (2, 4, 6), part="a"))
    local = (xyz - [1, 2, 3]) / [1, 2, 3]
    np.testing.assert_allclose(np.abs(local).max(axis=1), 1, atol=1e-9)
    face = np.abs(local).argmax(axis=1)
    rows = np.arange(len(xyz))
    np.testing.assert_allclose(normals[rows, face], np.sign(local[rows, face]), atol=1e-9)
    areas = np.array([24.0, 12.0, 8.0])  # half of what faces x, y, z
    np.testing.assert_allclose(np.bincount(face) / len(xyz), areas / areas.sum(), atol=0.03)


def test_a_sphere_is_even_and_its_normals_are_radial():
    xyz, normals, _ = sampled(lambda b: b.ellipsoid((0, 0, 0), (2, 2, 2), part="a"))
    radius = np.linalg.norm(xyz, axis=1)
    assert radius.min() > 0.99
    assert radius.max() < 1 + 1e-9
    assert (xyz * normals).sum(axis=1).min() > 0.98
    np.testing.assert_allclose((xyz**2).mean(axis=0), 1 / 3, atol=0.02)


def test_a_stretched_cone_stays_even():
    """Half of a cone's side lies below 1 − √½ of its height, however squashed; the tip must not attract points."""
    builder = Builder(("a",))
    builder.lathe([(1, 0), (0, 1)], part="a")
    surface = builder.surface().scaled(np.array([3.0, 0.5, 2.0]))
    xyz, _, _ = sample_surface(surface, 4000, generator(1))
    np.testing.assert_allclose((xyz[2] < 2 * (1 - np.sqrt(0.5))).mean(), 0.5, atol=0.03)
    np.testing.assert_allclose((xyz[0] / 3) ** 2 + (xyz[1] / 0.5) ** 2, (1 - xyz[2] / 2) ** 2, atol=1e-9)


@pytest.mark.parametrize(
    ("outline", "plane", "normal_axis"),
    [("square", "xy", 2), ("square", "xz", 1), ("square", "yz", 0)],
)
def test_a_prism_is_closed_and_points_outward(outline, plane, normal_axis):
    square = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    xyz, normals, _ = sampled(lambda b: b.prism(square, -0.5, 0.5, part="a", plane=plane))
    assert (xyz * normals).sum(axis=1).min() > 0.4
    np.testing.assert_allclose(np.ptp(xyz, axis=0)[normal_axis], 1, atol=1e-9)
    np.testing.assert_allclose(np.abs(normals.sum(axis=0)), 0, atol=0.06 * len(xyz))


def test_plates_sheets_bars_and_cylinders_point_outward():
    corners = [(-1, -1, 0.1), (1, -1, 0.1), (1, 1, 0.1), (-1, 1, 0.1)]
    row = [(-1, 0.1, -1), (0, 0.1, -1), (1, 0.1, -1)]
    for build in (
        lambda b: b.plate(corners, (0, 0, -0.2), part="a"),
        lambda b: b.sheet(
            [(x, -y, z) for x, y, z in row], [(x, -y, 1) for x, y, z in row], part="a", thickness=(0, 0.2, 0)
        ),
        lambda b: b.bar((-0.3, -0.4, -1), (0.3, 0.4, 1), 0.3, 0.2, part="a"),
        lambda b: b.bar((-1, 0, 0), (1, 0.2, 0.1), 0.3, 0.2, part="a"),
        lambda b: b.cylinder((-0.3, 0.1, -1), (0.3, -0.1, 1), 0.4, 0.2, part="a"),
        lambda b: b.tube([(0, 0, -1), (0, 0, 0), (0, 0, 1)], [0.3, 0.5, 0.3], part="a"),
    ):
        xyz, normals, _ = sampled(build, 500)
        assert (xyz * normals).sum(axis=1).min() > 0


def test_a_bar_has_its_width_along_x_and_a_lying_one_across():
    xyz, _, _ = sampled(lambda b: b.bar((0, 0, 0), (0, 0, 5), 1.0, 2.0, part="a"))
    np.testing.assert_allclose(np.ptp(xyz, axis=0), [1, 2, 5], atol=0.02)
    xyz, _, _ = sampled(lambda b: b.bar((0, 0, 0), (5, 0, 0), 1.0, 2.0, part="a"))
    np.testing.assert_allclose(np.ptp(xyz, axis=0), [5, 1, 2], atol=0.02)


def test_a_closed_tube_is_a_torus():
    ring = [(2 * np.cos(a), 2 * np.sin(a), 0) for a in angles(64, 2 * np.pi)[1:]]
    xyz, _, _ = sampled(lambda b: b.tube(ring, 0.5, part="a", closed=True))
    across = np.hypot(np.hypot(xyz[:, 0], xyz[:, 1]) - 2, xyz[:, 2])
    np.testing.assert_allclose(across, 0.5, atol=0.01)
    turn = np.histogram(np.arctan2(xyz[:, 1], xyz[:, 0]), bins=8)[0]
    assert turn.min() > 0.8 * len(xyz) / 8


def test_solids_hide_what_lies_inside_them():
    def crossing(b):
        b.box((0, 0, 0), (2, 2, 2), part="a")
        b.cylinder((0, 0, -3), (0, 0, 3), 0.3, part="b")

    xyz, _, part = sampled(crossing)
    assert np.abs(xyz[part == 1, 2]).min() >= 1 - 1e-6
    xyz, _, _ = sampled(lambda b: (b.ellipsoid((0, 0, 0), (2, 2, 2), part="a"), b.box((0, 0, 0), (0.5,) * 3, part="b")))
    assert np.linalg.norm(xyz, axis=1).min() > 0.9
    xyz, _, part = sampled(lambda b: (b.cylinder((0, 0, 0), (0, 0, 1), 1, 0.5, part="a", solid=True),
                                      b.bar((-2, 0, 0.5), (2, 0, 0.5), 0.1, part="b")))  # fmt: skip
    assert np.abs(xyz[part == 1, 0]).min() > 0.6
    xyz, _, _ = sampled(lambda b: (b.cover((0, 0, 0), (9, 9, 1)), b.bar((0, 0, -1), (0, 0, 1), 0.1, part="a")))
    assert np.abs(xyz[:, 2]).min() >= 0.5 - 1e-6


def test_a_shape_that_hides_itself_and_an_empty_one_are_refused():
    with pytest.raises(DataError, match="visible"):
        sampled(lambda b: (b.cover((0, 0, 0), (9, 9, 9)), b.bar((0, 0, -1), (0, 0, 1), 0.1, part="a")))
    with pytest.raises(UsageError, match="without primitives"):
        Builder(("a",)).surface()
    with pytest.raises(UnknownNameError, match="seat"):
        Builder(("seat",)).box((0, 0, 0), (1, 1, 1), part="seet")
    with pytest.raises(UnknownNameError, match="xz"):
        Builder(("a",)).prism([(0, 0), (1, 0), (0, 1)], 0, 1, part="a", plane="zx")


def test_occlusion_cuts_one_side_and_density_thins_one():
    def plate(b):
        b.box((0, 0, 0), (2, 2, 2), part="a")

    count = [len(np.unique(np.sign(sampled(plate, 500, occlusion=o)[0]), axis=0)) for o in (0.0, 0.8)]
    assert count[1] < count[0] == 8
    even, uneven = (sampled(plate, 2000, density=k)[0].mean(axis=0) for k in (0.0, 5.0))
    assert np.linalg.norm(uneven) > 3 * np.linalg.norm(even)


def test_a_warp_carries_area_vectors_along():
    """Against the cross product of tangents pushed through the warp by finite differences."""
    warp = _Warp(-1.0, 1.0, Draw(generator(3)), 0.6)
    point = np.array([[0.3, -0.7], [0.5, 0.2], [-0.4, 0.9]])
    u, v, tiny = np.array([0.8, 0.1, 0.3]), np.array([-0.2, 0.9, 0.5]), 1e-6
    moved, area = warp(point, np.repeat(np.cross(u, v)[:, None], 2, axis=1))

    def pushed(tangent: np.ndarray) -> np.ndarray:
        return (warp(point + tiny * tangent[:, None], point)[0] - moved) / tiny

    np.testing.assert_allclose(area, np.cross(pushed(u), pushed(v), axis=0), atol=1e-5)


def test_draws_come_from_random_alone_and_stay_in_range():
    draw = Draw(generator(0))
    counts = [draw.count(2, 4) for _ in range(300)]
    assert set(counts) == {2, 3, 4}
    assert {draw.pick("xyz") for _ in range(100)} == set("xyz")
    assert all(1 <= draw.uniform(1, 2) < 2 for _ in range(100))
    assert 60 < sum(draw.chance(0.25) for _ in range(400)) < 140
    expected = generator(9).random(64)[::-1]
    stream = Draw(generator(9))
    np.testing.assert_array_equal([stream.unit() for _ in range(64)], expected)


def test_directions_cover_the_sphere():
    draws = generator(0).random((2, 2000)).T
    vectors = np.array([direction(u, v) for u, v in draws])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1)
    np.testing.assert_allclose(vectors.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose((vectors**2).mean(axis=0), 1 / 3, atol=0.03)
