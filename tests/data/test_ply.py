"""PLY against plyfile's writer, and headers that lie."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pointlift.core.errors import FileFormatError
from pointlift.data.cloud import PointCloud
from pointlift.data.files import read, write

plyfile = pytest.importorskip("plyfile")

VERTICES = np.array(
    [(0.5, 10, 1.5, -2.0, 255, 3, 0.25), (1.5, 20, 2.5, -3.0, 0, 128, 0.5), (2.5, 30, 3.5, -4.0, 7, 9, 0.75)],
    dtype=[("z", "f8"), ("red", "u1"), ("x", "f4"), ("y", "f8"), ("green", "u1"), ("blue", "u1"), ("quality", "f4")],
)
FACES = np.array([([0, 1, 2],), ([2, 1, 0, 1],)], dtype=[("vertex_indices", "O")])
EDGES = np.array([(0, 1), (1, 2)], dtype=[("vertex1", "i4"), ("vertex2", "i4")])


def save(path, elements, kind):
    text, order = {"ascii": (True, "="), "little": (False, "<"), "big": (False, ">")}[kind]
    described = [plyfile.PlyElement.describe(table, name) for name, table in elements]
    plyfile.PlyData(described, text=text, byte_order=order).write(str(path))


@pytest.mark.parametrize("kind", ["ascii", "little", "big"])
@pytest.mark.parametrize("names", ["vertex", "vertex face", "edge vertex", "face vertex", "edge face vertex"])
def test_any_order_of_properties_and_elements(kind, names, tmp_path):
    tables = {"vertex": VERTICES, "face": FACES, "edge": EDGES}
    save(tmp_path / "a.ply", [(n, tables[n]) for n in names.split()], kind)
    cloud = read(tmp_path / "a.ply")
    np.testing.assert_array_equal(cloud.xyz, [[1.5, -2, 0.5], [2.5, -3, 1.5], [3.5, -4, 2.5]])
    np.testing.assert_array_equal(cloud.feats["colors"], [[10, 255, 3], [20, 0, 128], [30, 7, 9]])
    assert cloud.feats["colors"].dtype == np.uint8
    np.testing.assert_array_equal(cloud.feats["quality"], [0.25, 0.5, 0.75])
    assert cloud.meta.get("faces", 0) == (2 if "face" in names else 0)


def test_plyfile_reads_what_we_write(tmp_path):
    rng = np.random.default_rng(0)
    cloud = PointCloud(
        rng.normal(size=(9, 3)).astype(np.float32), {"label": np.arange(9), "normals": rng.normal(size=(9, 3))}
    )
    vertex = plyfile.PlyData.read(str(write(cloud, tmp_path / "a.ply")))["vertex"]
    np.testing.assert_array_equal(np.stack([vertex[a] for a in "xyz"], 1), cloud.xyz)
    np.testing.assert_array_equal(vertex["label"], np.arange(9))
    np.testing.assert_array_equal(vertex["ny"], cloud.feats["normals"][:, 1])


def header(*lines: str, kind: str = "binary_little_endian") -> bytes:
    return "\n".join(["ply", f"format {kind} 1.0", *lines, "end_header", ""]).encode()


XYZ = ("property float x", "property float y", "property float z")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (header("element vertex 1000000000000", *XYZ) + b"\0" * 24, "promises 1,000,000,000,000 points"),
        (header("element vertex 1000000000000", *XYZ, kind="ascii") + b"1 2 3\n", "promises"),
        (header("element vertex 3", *XYZ) + b"\0" * 35, "promises 3 points"),
        (header("element vertex 3", *XYZ, kind="ascii") + b"1 2 3\n4 5 6         \n", "2 rows"),
        (header("element vertex 2", *XYZ, kind="ascii") + b"1 2 3\n4 5 six\n", "six"),
        (header("element vertex 0", *XYZ), "no points"),
        (header("element vertex -1", *XYZ), "header line"),
        (header("element vertex 1", *XYZ[:2]) + b"\0" * 8, "no column 'z'"),
        (header("element face 1", "property list uchar int vertex_indices") + b"\0", "element 'vertex'"),
        (header("element vertex 1", "property quad x"), "header line 'property quad x'"),
        (header("element vertex 1", "property list uchar float x", *XYZ[1:]) + b"\0" * 20, "list properties"),
        (header("element vertex 1", *XYZ, XYZ[0]) + b"\0" * 16, "a.ply"),
        (header("element face 999999999999", "property list uint int i", "element vertex 1", *XYZ), "a.ply"),
        (header("element face 9", "property list char int i", "element vertex 1", *XYZ) + b"\xff" * 9, "promises"),
        (header("element edge 99999999999", "property int a", "element vertex 1", *XYZ) + b"\0" * 99, "promises"),
        (header("element edge 99999999", "element vertex 1", *XYZ, kind="ascii") + b"1 2 3\n" * 9, "rows before"),
        (header("element vertex 1", *XYZ).replace(b"format", b"formal") + b"\0" * 12, "header line"),
        (header("element vertex 1", *XYZ).replace(b"end_header", b"end"), "no header"),
        (header("element vertex 1", *XYZ, "property uchar red", kind="ascii") + b"1 2 3 256\n", "'red'"),
        (header("element vertex 1", *XYZ, "property int a", kind="ascii") + b"1 2 3 nan\n", "'a'"),
    ],
)
def test_headers_that_lie(content, says, tmp_path):
    path = tmp_path / "a.ply"
    path.write_bytes(content)
    start = time.perf_counter()
    with pytest.raises(FileFormatError, match=says):
        read(path)
    assert time.perf_counter() - start < 2


def test_windows_line_ends_and_comments(tmp_path):
    lines = ["ply", "format ascii 1.0", "comment äö obj", "obj_info x", "element vertex 2", *XYZ, "end_header"]
    (tmp_path / "a.ply").write_bytes("\r\n".join([*lines, "1 2 3", "4 5 6", ""]).encode())
    np.testing.assert_array_equal(read(tmp_path / "a.ply").xyz, [[1, 2, 3], [4, 5, 6]])
