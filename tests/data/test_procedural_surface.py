"""Points of procedural shapes lie on the visible surface of the solid, evenly, with true normals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial import cKDTree

from pointlift.core.seeds import generator
from pointlift.data.procedural import ProceduralConfig, Program, draw_program
from pointlift.data.procedural.displacement import Displacement
from pointlift.data.procedural.exact import circle, rotation
from pointlift.data.procedural.solids import Solid
from pointlift.data.procedural.surface import _visible, sample_program
from pointlift.data.procedural.wires import Wireframe, wireframe
from pointlift.data.shapes.draw import Draw

ZERO = np.zeros(3)
UNIT = np.eye(3)


def draw(*seed) -> Draw:
    return Draw(generator("test", *seed))


def sampled(program: Program, points: int = 8192, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    made = sample_program(program, points, generator("sample", seed))
    assert made is not None
    return made[0].astype(np.float64), made[1].astype(np.float64)


def share_on_boundary(program: Program, eps: float = 1e-3) -> float:
    """Share of the points with solid just below and none just above."""
    xyz, normals = sampled(program, 4096)
    return float(np.mean(program.inside(xyz - eps * normals) & ~program.inside(xyz + eps * normals)))


CASES = {
    "unions": ProceduralConfig(cut=0, wire=0, displaced=0),
    "displaced": ProceduralConfig(cut=0, wire=0, displaced=1),
    "cuts": ProceduralConfig(cut=1, cutters=(1, 3), wire=0, displaced=0.5),
    "wires": ProceduralConfig(cut=0, wire=1, wires=(1, 3), displaced=0),
    "all": ProceduralConfig(cut=1, wire=1, displaced=0.5),
}


@pytest.mark.parametrize("case", CASES)
def test_points_lie_on_the_boundary_of_the_solid(case):
    """The exception is a crease, where a step of a thousandth along the normal may run into another piece."""
    shares = [share_on_boundary(draw_program(CASES[case], draw(case, i))) for i in range(12)]
    assert min(shares) > 0.95
    assert np.mean(shares) > 0.98


@pytest.mark.parametrize("kind", ["box", "ball", "cylinder", "cone", "torus"])
def test_each_wireframe_is_a_closed_solid(kind):
    for i in range(4):
        frame = wireframe(kind, np.array([0.3, 0, 0]), rotation(draw(i)), [0.5, 0.6, 0.7], 0.04, draw(kind, i))
        far = Solid("ball", 1.0, UNIT * 0.01, np.array([5.0, 0, 0]))
        assert share_on_boundary(Program((far,), (), (frame,)), 4e-4) > 0.97


def counted(program: Program, is_there, points: int = 8192, seed: int = 0) -> float:
    """Share of the points for which `is_there(xyz, normals)`."""
    return float(np.mean(is_there(*sampled(program, points, seed))))


def test_faces_of_a_box_get_points_by_area():
    half = np.array([1.0, 0.5, 0.2])
    box = Program((Solid("box", 1.0, np.diag(half), ZERO),))
    areas = np.array([half[1] * half[2], half[0] * half[2], half[0] * half[1]])
    xyz, normals = sampled(box)
    for sign in (-1, 1):
        found = [(sign * normals[k] > 0.9).mean() for k in range(3)]
        np.testing.assert_allclose(found, areas / areas.sum() / 2, atol=0.012)
    np.testing.assert_allclose(np.abs(xyz).max(axis=1), half, rtol=1e-5)
    quarter = (xyz[0] > 0) & (xyz[1] > 0)
    assert quarter.mean() == pytest.approx(0.25, abs=0.015)


def test_any_first_points_are_even_too():
    half = np.array([1.0, 0.5, 0.2])
    _, normals = sampled(Program((Solid("box", 1.0, np.diag(half), ZERO),)))
    assert (np.abs(normals[2, :1024]) > 0.9).mean() == pytest.approx(0.5 / 0.8, abs=0.05)


def test_cone_and_torus_get_points_by_area():
    cone = Program((Solid("cone", 0.25, UNIT, ZERO),))
    slant = math.sqrt(4 + 0.75**2)
    areas = np.array([math.pi, math.pi * 0.25**2, math.pi * 1.25 * slant])
    xyz, normals = sampled(cone)
    found = [(normals[2] < -0.99).mean(), (normals[2] > 0.99).mean(), (np.abs(normals[2]) < 0.99).mean()]
    np.testing.assert_allclose(found, areas / areas.sum(), atol=0.015)
    low = xyz[2][np.abs(normals[2]) < 0.99] < 0  # the lower half of the side is wider
    assert low.mean() == pytest.approx((1 + 0.625) / (2 * 1.25), abs=0.02)
    outside = counted(Program((Solid("torus", 0.4, UNIT, ZERO),)), lambda p, n: np.hypot(p[0], p[1]) > 1)
    assert outside == pytest.approx(0.5 + 0.4 / math.pi, abs=0.015)


def test_a_stretched_ball_is_even_over_its_area():
    """Caps of an ellipsoid of revolution: their areas are known, and far from those of the sphere's caps."""
    long = Program((Solid("ball", 1.0, np.diag([0.3, 0.3, 1.0]), ZERO),))

    def area(z: float, steps: int = 20_000) -> float:  # from the middle up to z
        h = (np.arange(steps) + 0.5) * z / steps
        radius = 0.3 * np.sqrt(1 - h * h)
        slope = -0.09 * h / np.maximum(radius, 1e-9)
        return float((2 * math.pi * radius * np.sqrt(1 + slope * slope)).sum() * z / steps)

    for z in (0.3, 0.6, 0.9):
        found = counted(long, lambda p, n, z=z: np.abs(p[2]) < z)
        assert found == pytest.approx(area(z) / area(1.0), abs=0.015)


def test_a_union_hides_what_is_inside():
    """Two unit balls, one radius apart: a quarter of each is hidden, and the rest is even."""
    balls = Program(tuple(Solid("ball", 1.0, UNIT, np.array([x, 0, 0])) for x in (0.0, 1.0)))
    xyz, _ = sampled(balls)
    to_first, to_second = (np.linalg.norm(xyz - np.array([[x], [0], [0]]), axis=0) for x in (0, 1))
    assert np.minimum(to_first, to_second).min() > 1 - 1e-4
    assert (to_first < 1.001).mean() == pytest.approx(0.5, abs=0.02)
    assert (xyz[0] < 0).mean() == pytest.approx(0.5 / 1.5, abs=0.02)


def test_a_cut_shows_the_surface_of_the_cutter():
    """A half ball cut out of a face: the disc is gone, twice its area has come, and it looks into the hole."""
    radius = 0.5
    block = Solid("box", 1.0, UNIT, ZERO)
    cutter = Solid("ball", 1.0, UNIT * radius, np.array([0, 0, 1.0]))
    xyz, normals = sampled(Program((block,), (cutter,)))
    away = xyz - np.array([[0], [0], [1.0]])
    in_hole = np.linalg.norm(away, axis=0) < radius + 1e-4
    area = 24 + math.pi * radius**2
    assert in_hole.mean() == pytest.approx(2 * math.pi * radius**2 / area, abs=0.012)
    np.testing.assert_allclose(normals[:, in_hole], -away[:, in_hole] / radius, atol=1e-3)


def test_wireframes_survive_cuts_and_are_hidden_by_the_body():
    block = Solid("box", 1.0, UNIT, ZERO)
    frame = wireframe("box", np.array([1.0, 0, 0]), UNIT, [0.5, 0.5, 0.5], 0.05, draw(0))
    xyz, _ = sampled(Program((block,), (), (frame,)))
    assert (np.abs(xyz).max(axis=0) > 1 - 1e-4).all()
    hole = Solid("box", 1.0, UNIT * 0.6, np.array([0.9, 0, 0]))
    xyz, _ = sampled(Program((block,), (hole,), (frame,)))
    in_hole = np.abs(xyz).max(axis=0) < 0.59
    assert (in_hole & (xyz[0] > 0.4)).sum() > 50  # the bars; the hole ends at 0.3


def bars_area(half: float, radius: float) -> float:
    return 12 * 2 * half * 2 * math.pi * radius


def test_bars_get_points_by_area():
    frame = wireframe("box", np.array([0, 0, 4.0]), UNIT, [1.0, 1.0, 1.0], 0.03, draw(0))
    program = Program((Solid("box", 1.0, UNIT, ZERO),), (), (frame,))
    on_frame = counted(program, lambda p, n: p[2] > 2)
    area = bars_area(1.0, 0.03)
    assert on_frame == pytest.approx(area / (area + 24), abs=0.02)


def test_rings_get_more_points_outside():
    ring = Wireframe("torus", np.array([0, 0, 4.0]), UNIT, 0.2, [], [], [((0, 0, 0), (0, 0, 1.0), 0.4)])
    xyz, _ = sampled(Program((Solid("ball", 1.0, UNIT * 0.01, ZERO),), (), (ring,)))
    away = np.hypot(xyz[0], xyz[1])[xyz[2] > 2]
    assert (away > 0.4).mean() == pytest.approx(0.5 + 0.5 / math.pi, abs=0.02)


def test_displaced_surfaces_are_even():
    """Against the areas of a fine triangulation of the displaced sphere, by octant."""
    bumps = Displacement(0.3, draw("bumps"))
    program = Program((Solid("ball", 1.0, np.diag([1.0, 0.7, 0.5]), ZERO, bumps),))
    z, turns = np.meshgrid(np.linspace(-1, 1, 401), np.linspace(0, 1, 801), indexing="ij")
    ring = np.sqrt(1 - z * z)
    cos, sin = np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)
    p = np.stack([ring * cos, ring * sin, z]).reshape(3, -1)
    grid = (p * (1 + bumps(p))).reshape(3, 401, 801) * np.array([1.0, 0.7, 0.5])[:, None, None]
    a, b, c, d = grid[:, :-1, :-1], grid[:, 1:, :-1], grid[:, :-1, 1:], grid[:, 1:, 1:]
    areas = sum(np.linalg.norm(np.cross(x - y, z - y, axis=0), axis=0) / 2 for x, y, z in ((a, b, c), (d, c, b)))
    middle = (a + d) / 2

    def octant(points: np.ndarray) -> np.ndarray:
        return (points > 0).astype(int).transpose(*range(1, points.ndim), 0) @ np.array([1, 2, 4])

    expected = np.bincount(octant(middle).ravel(), areas.ravel(), 8) / areas.sum()
    xyz, _ = sampled(program, 16384)
    np.testing.assert_allclose(np.bincount(octant(xyz), minlength=8) / 16384, expected, atol=0.012)


@pytest.mark.parametrize("kind", ["box", "ball", "cylinder"])
def test_normals_of_displaced_surfaces_stand_on_the_surface(kind):
    """Against planes through the nearest points."""
    bumps = Displacement(0.2, draw(kind))
    xyz, normals = sampled(Program((Solid(kind, 1.0, np.diag([1.0, 0.8, 0.6]), ZERO, bumps),)), 16384)
    _, near = cKDTree(xyz.T).query(xyz.T, 10)
    groups = xyz.T[near]
    groups = groups - groups.mean(axis=1, keepdims=True)
    plane = np.linalg.svd(groups, full_matrices=False)[2][:, 2]
    agree = np.abs((plane * normals.T).sum(axis=1))
    assert np.median(agree) > 0.995
    assert (agree > 0.9).mean() > 0.85


def test_displacement_never_exceeds_its_height_and_knows_its_slope():
    bumps = Displacement(0.3, draw("slope"))
    p = np.random.default_rng(0).uniform(-1, 1, (3, 20_000))
    h, gradient = bumps.with_gradient(p)
    assert np.abs(h).max() <= 0.3
    assert np.ptp(h) > 0.2
    np.testing.assert_allclose(h, bumps(p), rtol=1e-6)
    step = 1e-5
    for k in range(3):
        moved = p.copy()
        moved[k] += step
        np.testing.assert_allclose((bumps(moved) - h) / step, gradient[k], atol=1e-3)


def test_the_circle_is_a_circle():
    cos, sin = circle(np.linspace(0, 1, 1001))
    angle = 2 * np.pi * (np.linspace(0, 1, 1001) - 0.5)
    np.testing.assert_allclose(cos, np.cos(angle), atol=1e-5)
    np.testing.assert_allclose(sin, np.sin(angle), atol=1e-5)
    np.testing.assert_allclose(cos * cos + sin * sin, 1, rtol=1e-14)


def test_a_shape_that_is_cut_away_is_refused():
    ball = Solid("ball", 1.0, UNIT, ZERO)
    assert sample_program(Program((ball,), (Solid("box", 1.0, 3 * UNIT, ZERO),)), 256, generator(0)) is None


def test_whole_shapes_are_even():
    """Points per box of a grid, against the area there as 300,000 weighted candidates measure it."""
    ratios = []
    for i in range(10):
        program = draw_program(ProceduralConfig(), draw("even", i))
        xyz, _ = sampled(program)
        areas = np.array([area for piece in program.pieces for area in piece.areas])
        counts = np.ceil(areas / areas.sum() * 300_000).astype(np.int64)
        candidates, area, _ = _visible(program, counts, generator("candidates", i))
        low, high = xyz.min(axis=1, keepdims=True), xyz.max(axis=1, keepdims=True) + 1e-6

        def cell(points: np.ndarray, low=low, high=high) -> np.ndarray:
            return np.clip((points - low) / (high - low) * 6, 0, 5).astype(int).T @ np.array([1, 6, 36])

        weight = np.linalg.norm(area.astype(np.float64), axis=0)
        expected = np.bincount(cell(candidates), weight, 216) / weight.sum() * 8192
        found = np.bincount(cell(xyz), minlength=216)
        there = expected > 8
        assert found[~there].sum() < 200
        ratios.append(((found - expected)[there] ** 2 / expected[there]).mean())
    assert np.mean(ratios) < 1.15
    assert max(ratios) < 1.6
