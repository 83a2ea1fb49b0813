"""OFF, OBJ and STL: every way to write a face, sampling by area, trimesh as a second opinion, and broken meshes."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pointlift.core.errors import FileFormatError, UsageError
from pointlift.data.files import read

SQUARE = "v 0 0 0\nv 2 0 0\nv 2 2 0\nv 0 2 0\nv 0 0 2\n"
TRIANGLE = "facet normal 0 0 0\n outer loop\n  vertex 0 0 0\n  vertex 2 0 0\n  vertex 0 2 0\n endloop\nendfacet\n"


def stl(triangles: np.ndarray, header: bytes = b"made by a test") -> bytes:
    rows = np.zeros(len(triangles), dtype=[("n", "<f4", 3), ("v", "<f4", (3, 3)), ("a", "<u2")])
    rows["v"] = triangles
    return header.ljust(80) + len(triangles).to_bytes(4, "little") + rows.tobytes()


# name: ending, content, number of faces; all of them show the square z = 0, 0 <= x, y <= 2, or a half of it
FLAT = {
    "off": (".off", "OFF\n4 2 0\n0 0 0\n2 0 0\n2 2 0\n0 2 0\n3 0 1 2\n3 0 2 3\n", 2),
    "off quad": (".off", "OFF\n# a square\n4 1 4\n\n0 0 0\n2 0 0 # corner\n2 2 0\n0 2 0\n4 0 1 2 3\n", 1),
    "off glued": (".off", "OFF4 2 0\n0 0 0\n2 0 0\n2 2 0\n0 2 0\n3 0 1 2\n3 0 2 3\n", 2),
    "off one line": (".off", "OFF 4 1 0\n0 0 0\n2 0 0\n2 2 0\n0 2 0\n4 0 1 2 3\n", 1),
    "off colours of faces": (".off", "OFF\n4 2 0\n0 0 0\n2 0 0\n2 2 0\n0 2 0\n3 0 1 2 255 0 0\n3 0 2 3\n", 2),
    "off with points and edges": (".off", "OFF\n3 3 0\n0 0 0\n2 0 0\n0 2 0\n1 0\n2 0 1\n3 0 1 2\n", 3),
    "noff": (".off", "NOFF\n3 1 0\n0 0 0 0 0 1\n2 0 0 0 0 1\n0 2 0 0 0 1\n3 0 1 2\n", 1),
    "windows off": (".off", "OFF\r\n3 1 0\r\n0 0 0\r\n2 0 0\r\n0 2 0\r\n3 0 1 2\r\n", 1),
    "obj": (".obj", SQUARE + "f 1 2 3\nf 1 3 4\n", 2),
    "obj quad": (".obj", SQUARE + "f 1 2 3 4\n", 1),
    "obj pentagon": (".obj", "v 0 0 0\nv 2 0 0\nv 2 2 0\nv 1 2 0\nv 0 2 0\nf 1 2 3 4 5\n", 1),
    "obj negative": (".obj", "v 0 0 0\nv 2 0 0\nv 0 2 0\nf -3 -2 -1\nv 9 9 9\n", 1),
    "obj all kinds": (".obj", SQUARE + "vt 0 0\nvn 0 0 1\nf 1/1/1 2/1/1 3/1/1\nf 1//1 3//1 4//1\nf 1/1 2/1 3/1\n", 3),
    "obj odd spacing": (".obj", "# hello\n\tv  0 0\t0\n v 2 0 0 # corner\r\nv 0 2 0\nf 1 2 \\\n3 # end\nl 1 2\n", 1),
    "obj materials": (
        ".obj",
        "mtllib /etc/passwd\no a\n" + SQUARE + "usemtl m\ns off\ng b\nf 1 2 3\nusemtl n\nf 1 3 4",
        2,
    ),
    "obj weights": (".obj", "v 0 0 0 1\nv 2 0 0 1\nv 0 2 0 1\nf 1 2 3\n", 1),
    "stl": (".stl", "solid facet endsolid\n" + TRIANGLE + "endsolid facet\n", 1),
    "stl parts": (".stl", f"solid a\n{TRIANGLE}endsolid a\nSOLID b\n{TRIANGLE.upper()}ENDSOLID b\n", 2),
    "stl binary": (".stl", stl(np.array([[[0, 0, 0], [2, 0, 0], [0, 2, 0]]])), 1),
    "stl binary called solid": (".stl", stl(np.array([[[0, 0, 0], [2, 0, 0], [0, 2, 0]]]), b"solid x"), 1),
}


def save(tmp_path, ending, content):
    path = tmp_path / f"a{ending}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", FLAT)
def test_ways_to_write_a_mesh(name, tmp_path):
    ending, content, faces = FLAT[name]
    cloud = read(save(tmp_path, ending, content), points=500)
    assert cloud.xyz.shape == (500, 3)
    assert cloud.meta["faces"] == faces
    assert not cloud.xyz[:, 2].any()
    assert cloud.xyz.min() >= 0
    assert cloud.xyz.max() <= 2
    np.testing.assert_array_equal(cloud.feats["normals"], np.tile(np.float32([0, 0, 1]), (500, 1)))


def box() -> str:
    """A box of 1 x 2 x 3 with quads, one side cut into many slivers and degenerate faces."""
    corners = [(x, y, z) for x in (0, 1) for y in (0, 2) for z in (0, 3)]
    quads = [(1, 2, 4, 3), (5, 7, 8, 6), (1, 5, 6, 2), (3, 4, 8, 7), (1, 3, 7, 5)]
    lines = ["v {} {} {}".format(*c) for c in corners] + ["f {} {} {} {}".format(*q) for q in quads]
    top = [(2, 6), (6, 8), (8, 4), (4, 2)]
    lines += ["v 0.5 1 3"] + [f"f {a} {b} 9" for a, b in top] + ["f 1 1 1", "f 1 2 2", "f 5 5 6"] * 50
    return "\n".join(lines)


def test_points_are_even_over_the_area(tmp_path):
    cloud = read(save(tmp_path, ".obj", box()), points=40_000)
    assert np.isfinite(cloud.feats["normals"]).all()
    sides = {(0, 0.0): 6, (0, 1.0): 6, (1, 0.0): 3, (1, 2.0): 3, (2, 0.0): 2, (2, 3.0): 2}
    normals = cloud.feats["normals"]
    for (axis, at), area in sides.items():
        on = np.abs(cloud.xyz[:, axis] - at) < 1e-6
        assert on.mean() == pytest.approx(area / 22, abs=0.01)
        direction = np.zeros(3)
        direction[axis] = 1 if at else -1
        np.testing.assert_allclose(normals[on] @ direction, 1, atol=1e-6)
        # even within the side: quarters hold a quarter each
        others = [i for i in range(3) if i != axis]
        middle = np.array([0.5, 1, 1.5])[others]
        quarters = (cloud.xyz[on][:, others] > middle) @ [1, 2]
        np.testing.assert_allclose(np.bincount(quarters) / on.sum(), 0.25, atol=0.03)


def test_the_same_seed_gives_the_same_points(tmp_path):
    path = save(tmp_path, ".obj", box())
    first = read(path, points=200)
    np.testing.assert_array_equal(first.xyz, read(path, points=200, seed=0).xyz)
    assert not np.array_equal(first.xyz, read(path, points=200, seed=1).xyz)
    # Pinned: numpy's PCG64 gives these on every machine.
    np.testing.assert_allclose(first.xyz[:2], PINNED, atol=1e-6)


PINNED = [[0.6951111, 1.5265501, 0.0], [0.0287467, 0.0, 2.7827194]]


def test_default_and_wrong_numbers_of_points(tmp_path):
    path = save(tmp_path, ".obj", SQUARE + "f 1 2 3\n")
    assert len(read(path)) == 8192
    for points in (0, -5, 2.5):
        with pytest.raises(UsageError, match="points"):
            read(path, points=points)


def test_the_number_of_points_does_not_touch_clouds(tmp_path):
    assert len(read(save(tmp_path, ".xyz", "1 2 3\n4 5 6\n"), points=100)) == 2


@pytest.mark.parametrize(
    ("ending", "content"),
    [(".off", "OFF\n3 0 0\n1 2 3\n4 5 6\n7 8 9\n"), (".obj", "v 1 2 3\nv 4 5 6\nv 7 8 9\n")],
)
def test_a_mesh_without_faces_gives_its_vertices(ending, content, tmp_path):
    cloud = read(save(tmp_path, ending, content))
    np.testing.assert_array_equal(cloud.xyz, [[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    assert not cloud.feats


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        (".obj", "v 0 0 0 1 0 0\nv 2 0 0 1 0 0\nv 0 2 0 0 0 1\nf 1 2 3\n"),
        (".obj", "v 0 0 0 1 1 0 0\nv 2 0 0 1 1 0 0\nv 0 2 0 1 0 0 1\nf 1 2 3\n"),
        (".off", "COFF\n3 1 0\n0 0 0 255 0 0 255\n2 0 0 255 0 0 255\n0 2 0 0 0 255 255\n3 0 1 2\n"),
    ],
)
def test_colours_of_vertices_are_interpolated(ending, content, tmp_path):
    cloud = read(save(tmp_path, ending, content), points=300)
    assert cloud.feats["colors"].dtype == np.uint8
    np.testing.assert_allclose(cloud.feats["colors"][:, 2], cloud.xyz[:, 1] / 2 * 255, atol=0.51)
    np.testing.assert_allclose(cloud.feats["colors"][:, 0], 255 - cloud.xyz[:, 1] / 2 * 255, atol=0.51)


@pytest.mark.parametrize(
    ("ending", "content", "says"),
    [
        (".off", "4 2 0\n", "not an OFF file"),
        (".off", "OFFX\n", "not an OFF file"),
        (".off", "OFF BINARY\n\0\0\0\4", "variant"),
        (".off", "4OFF\n1 0 0\n1 2 3 4\n", "variant"),
        (".off", "OFF\n", "counts ''"),
        (".off", "OFF\n-4 2 0\n", "counts"),
        (".off", "OFF\n0 0 0\n", "no vertices"),
        (".off", "OFF\n99999999999 0 0\n1 2 3\n", "promises"),
        (".off", "OFF\n2 9 0\n1 2 3\n4 5 6\n3 0 1 1\n", "promises 2 vertices and 9 faces, 3 lines"),
        (".off", "OFF\n2 0 0\n1 2 3\n4 5\n", "row 2"),
        (".off", "COFF\n1 0 0\n1 2 3\n", "1 vertices of 3 numbers"),
        (".off", "OFF\n3 1 0\n0 0 0\n2 0 0\n0 2 0\n3 0 1\n", "face '3 0 1'"),
        (".off", "OFF\n3 1 0\n0 0 0\n2 0 0\n0 2 0\n3 0 1 3\n", "vertex 3"),
        (".off", "OFF\n3 1 0\n0 0 0\n2 0 0\n0 2 0\n3 0 1 -1\n", "vertex -1"),
        (".off", "OFF\n3 1 0\n0 0 0\n2 0 0\n0 2 0\n3 0 1 1e0\n", "1e0"),
        (".off", "OFF\n3 1 0\n0 0 0\n2 0 0\n4 0 0\n3 0 1 2\n", "without area"),
        (".off", "OFF\n3 1 0\n0 0 nan\n2 0 0\n4 0 0\n3 0 1 2\n", "1 of 3 points"),
        (".obj", "vt 1 2\n", "no vertices"),
        (".obj", "v 1 2\n", "2 numbers"),
        (".obj", "v 1 2 3\nv 1 2\n", "row 2"),
        (".obj", "v 1 2 three\n", "three"),
        (".obj", SQUARE + "f 0 1 2\n", "vertex 0"),
        (".obj", SQUARE + "f 1 2 6\n", "vertex 5"),
        (".obj", SQUARE + "f 1 2 -6\n", "vertex -1"),
        (".obj", SQUARE + "f 1 2 99999999999999999999999\n", "a face of no numbers"),
        (".obj", SQUARE + "f a b c\n", "a face of no numbers"),
        (".obj", SQUARE + "f 1 2\n", "without area"),
        (".stl", "solid a\n" + TRIANGLE, "no end"),
        (".stl", "solid a\n" + TRIANGLE.replace("vertex 2 0 0", "vertex 2 0") + "endsolid\n", "2 readable vertices"),
        (".stl", "solid a\n" + TRIANGLE.replace("2 0 0", "2 0 0 7") + "endsolid\n", "2 readable vertices"),
        (".stl", "solid a\n" + TRIANGLE.replace("2 0 0", "2 0 x") + "endsolid\n", "no number"),
        (".stl", "solid a\nendsolid\n", "no triangles"),
        (".stl", stl(np.zeros((0, 3, 3))), "no triangles"),
        (".stl", stl(np.ones((3, 3, 3)))[:-1], "promise 3 triangles"),
        (".stl", stl(np.ones((3, 3, 3))), "without area"),
        (".stl", b"\0" * 80 + b"\xff\xff\xff\xff" + b"\0" * 50, "4,294,967,295"),
        (".stl", b"short", "5 bytes"),
    ],
)
def test_says_what_is_wrong(ending, content, says, tmp_path):
    with pytest.raises(FileFormatError, match=says) as info:
        read(save(tmp_path, ending, content))
    assert f"a{ending}" in str(info.value)


@pytest.mark.parametrize("ending", [".off", ".obj", ".stl"])
def test_trimesh_agrees(ending, tmp_path):
    trimesh = pytest.importorskip("trimesh")
    mesh = trimesh.creation.annulus(r_min=1, r_max=2, height=0.5)
    mesh.export(tmp_path / f"a{ending}")
    cloud = read(tmp_path / f"a{ending}", points=300)
    assert cloud.meta["faces"] == len(mesh.faces)
    _, distance, face = trimesh.proximity.closest_point_naive(mesh, cloud.xyz)
    assert distance.max() < 1e-5
    np.testing.assert_allclose((cloud.feats["normals"] * mesh.face_normals[face]).sum(1).mean(), 1, atol=0.01)


def test_far_meshes_keep_their_shape(tmp_path):
    lines = ["v 500000.25 5400000.5 100", "v 500001.25 5400000.5 100", "v 500000.25 5400001.5 100", "f 1 2 3"]
    cloud = read(save(tmp_path, ".obj", "\n".join(lines)), points=200)
    assert cloud.offset.any()
    local = cloud.world_xyz - [500000.25, 5400000.5, 100]
    assert np.abs(local[:, 2]).max() < 1e-6
    assert local.min() > -1e-6
    assert len(np.unique(cloud.xyz[:, 0])) > 150


@pytest.mark.parametrize("ending", [".off", ".obj", ".stl"])
def test_large_meshes_are_fast(ending, tmp_path):
    rng = np.random.default_rng(0)
    vertices, faces = rng.normal(size=(50_000, 3)), rng.integers(0, 50_000, (100_000, 3))
    body = {
        ".off": lambda: "OFF\n50000 100000 0\n" + _lines("%.6f %.6f %.6f", vertices) + _lines("3 %d %d %d", faces),
        ".obj": lambda: _lines("v %.6f %.6f %.6f", vertices) + _lines("f %d/1/1 %d/1/1 %d/1/1", faces + 1),
        ".stl": lambda: stl(vertices[faces]),
    }[ending]()
    path = save(tmp_path, ending, body)
    start = time.perf_counter()
    assert len(read(path)) == 8192
    assert time.perf_counter() - start < 4  # 0.5 s here when nothing else runs


def test_many_materials_cost_nothing(tmp_path):
    body = "".join(f"usemtl m{i}\nf 1 2 {i % 3 + 3}\n" for i in range(20_000))
    path = save(tmp_path, ".obj", SQUARE + body)
    start = time.perf_counter()
    assert read(path, points=10).meta["faces"] == 20_000
    assert time.perf_counter() - start < 2


def _lines(pattern: str, rows: np.ndarray) -> str:
    return "".join(pattern % tuple(row) + "\n" for row in rows.tolist())
