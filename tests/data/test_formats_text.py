"""Text with a usual layout (`.pts`, `.xyzn`, `.xyzrgb`), what columns become, and files with the wrong ending."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from pointlift.core.errors import FileFormatError, UsageError
from pointlift.data.cloud import PointCloud
from pointlift.data.files import FORMATS, read, write
from pointlift.data.formats.columns import tidy
from pointlift.data.formats.signatures import TEXT_ENDINGS


@pytest.mark.parametrize(
    ("text", "feats"),
    [
        ("2\n1 2 3\n4 5 6\n", {}),
        ("1 2 3\n4 5 6\n", {}),
        ("2\n1 2 3 -7\n4 5 6 8\n", {"intensity": [-7, 8]}),
        ("2\n1 2 3 10 20 30\n4 5 6 40 50 60\n", {"colors": [[10, 20, 30], [40, 50, 60]]}),
        ("2\n1 2 3 -7 10 20 30\n4 5 6 8 40 50 60\n", {"intensity": [-7, 8], "colors": [[10, 20, 30], [40, 50, 60]]}),
        ("2\n1 2 3 4 5\n4 5 6 7 8\n", {"extra": [[4, 5], [7, 8]]}),
    ],
)
def test_pts(text, feats, tmp_path):
    (tmp_path / "a.pts").write_text(text)
    cloud = read(tmp_path / "a.pts")
    np.testing.assert_array_equal(cloud.xyz, [[1, 2, 3], [4, 5, 6]])
    assert set(cloud.feats) == set(feats)
    for name, values in feats.items():
        np.testing.assert_array_equal(cloud.feats[name], values)
        assert cloud.feats[name].dtype == {"colors": np.uint8, "intensity": np.float32}.get(name, np.float64)


def test_names_go_before_the_usual_columns(tmp_path):
    (tmp_path / "a.pts").write_text("x y z ring\n1 2 3 4\n")
    assert set(read(tmp_path / "a.pts").feats) == {"ring"}
    assert set(read(tmp_path / "a.pts", columns=("x", "y", "z", "time")).feats) == {"time"}
    with pytest.raises(UsageError, match="a sequence of names"):
        read(tmp_path / "a.pts", columns="xyz")


def test_xyzn_xyzrgb_and_asc(tmp_path):
    for ending in (".xyzn", ".xyzrgb", ".asc"):
        (tmp_path / f"a{ending}").write_text("1 2 3 0 0 1\n4 5 6 0 1 0\n")
    assert read(tmp_path / "a.xyzn").feats["normals"].tolist() == [[0, 0, 1], [0, 1, 0]]
    assert read(tmp_path / "a.xyzrgb").feats["colors"].tolist() == [[0, 0, 255], [0, 255, 0]]
    assert read(tmp_path / "a.asc").feats["extra"].tolist() == [[0, 0, 1], [0, 1, 0]]


def test_csv_is_what_spreadsheets_read(tmp_path):
    cloud = PointCloud(np.float32([[1, 2.5, 3]]), {"colors": np.uint8([[1, 2, 3]]), "label": np.array([7])})
    assert write(cloud, tmp_path / "a.csv").read_text() == "x,y,z,red,green,blue,label\n1,2.5,3,1,2,3,7\n"
    assert write(cloud, tmp_path / "a.pts").read_text() == "1\n1 2.5 3 1 2 3\n"
    assert write(cloud, tmp_path / "a.xyz").read_text() == "# x y z red green blue label\n1 2.5 3 1 2 3 7\n"


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("colors", np.float64([[0, 0.5, 1]]), np.uint8([[0, 128, 255]])),
        ("colors", np.float64([[0, 128, 255]]), np.uint8([[0, 128, 255]])),
        ("colors", np.float64([[0, 128, 256]]), np.float32([[0, 128, 256]])),
        ("colors", np.float64([[0, 0.5, 20]]), np.float32([[0, 0.5, 20]])),
        ("colors", np.float64([[0, np.nan, 1]]), np.float32([[0, np.nan, 1]])),
        ("colors", np.uint16([[0, 257, 65535]]), np.uint8([[0, 1, 255]])),
        ("colors", np.int64([[0, 17, 255]]), np.uint8([[0, 17, 255]])),
        ("colors", np.int64([[0, 17, -1]]), np.float32([[0, 17, -1]])),
        ("colors", np.uint8([[0, 1, 1]]), np.uint8([[0, 1, 1]])),
        ("colors", np.int32([[0, 1, 1]]), np.uint8([[0, 1, 1]])),
        ("colors", np.float64([[0, 1, 1]]), np.uint8([[0, 255, 255]])),
        ("colors", np.uint8([[9, 8, 7, 255]]), np.uint8([[9, 8, 7]])),
        ("semantic", np.float64([1, 2]), np.int64([1, 2])),
        ("semantic", np.uint8([1, 2]), np.int64([1, 2])),
        ("part", np.float64([1, 2.5]), np.float32([1, 2.5])),
        ("semantic", np.int32([[1], [2]]), np.int64([1, 2])),
        ("label", np.float64([1, np.inf]), np.float32([1, np.inf])),
        ("label", np.uint64([1, 2**64 - 1]), np.uint64([1, 2**64 - 1])),
        ("intensity", np.uint8([1, 2]), np.float32([1, 2])),
        ("intensity", np.uint16([1, 2]), np.uint16([1, 2])),
        ("normals", np.float64([[1, 0, 0]]), np.float32([[1, 0, 0]])),
        ("gps_time", np.float64([1.0e9 + 0.125]), np.float64([1.0e9 + 0.125])),
        ("ring", np.uint8([3]), np.uint8([3])),
        ("height", np.float64([3]), np.float32([3])),
    ],
)
def test_the_type_that_a_name_promises(name, given, expected):
    result = tidy(name, given, "a.ply")
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == expected.dtype


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("semantic", np.float32([0.5])),
        ("instance", np.uint64([2**63])),
        ("semantic", np.zeros((4, 2))),
        ("colors", np.zeros((5, 2))),
        ("normals", np.zeros(5)),
        ("intensity", np.zeros((5, 2))),
    ],
)
def test_a_name_that_its_values_do_not_bear_out(name, values):
    with pytest.raises(FileFormatError, match=f"a.ply: '{name}'"):
        tidy(name, values, "a.ply")


def test_names_of_cloudcompare(tmp_path):
    (tmp_path / "a.txt").write_text(
        "//X Y Z R G B scalar_Intensity scalar_Classification scalar_Other\n1 2 3 9 8 7 5 4 6\n"
    )
    feats = read(tmp_path / "a.txt").feats
    assert {n: v.tolist() for n, v in feats.items()} == {
        "colors": [[9, 8, 7]], "intensity": [5], "semantic": [4], "scalar_other": [6],
    }  # fmt: skip


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("a.txt", "1 2 3")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("ending", "content", "says"),
    [
        (".xyz", b"ply\nformat ascii 1.0\n", r"looks like a PLY file.*Rename it to end in \.ply"),
        (".txt", b"# .PCD v.7\nVERSION .7\n", r"looks like a PCD file.*\.pcd"),
        (".ply", b"LASF\0\0", r"looks like a LAS file.*\.las or \.laz"),
        (".npy", archive(), r"looks like a zip or \.npz archive.*\.npz"),
        (".off", b"ply\r\nformat", r"a PLY file"),
        (".obj", b"OFF\n1 0 0\n1 2 3\n", r"an OFF mesh"),
        (".ply", b"\x1f\x8b\x08\0", r"a gzip archive.*Unpack it first"),
        (".h5", b"\x93NUMPY\1\0", r"a numpy array"),
        (".stl", b"glTF\2\0\0\0", r"glTF model.*Convert it"),
    ],
)
def test_the_wrong_ending(ending, content, says, tmp_path):
    (tmp_path / f"a{ending}").write_bytes(content)
    with pytest.raises(FileFormatError, match=says):
        read(tmp_path / f"a{ending}")


@pytest.mark.parametrize("text", ["1 2 3\n4 5 6\n", "2\n1.5,-2,3e1\n4,5,6\n", "# x y z\n1;2;3\n4;5;6\n"])
@pytest.mark.parametrize("ending", [name for name in FORMATS if name not in TEXT_ENDINGS])
def test_text_under_another_ending(ending, text, tmp_path):
    path = tmp_path / f"a{ending}"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=r"is text with numbers in every line.*end in \.xyz"):
        read(path)


@pytest.mark.parametrize("ending", TEXT_ENDINGS)
def test_text_endings_read_text(ending, tmp_path):
    path = tmp_path / f"a{ending}"
    path.write_text("1 2 3\n4 5 6\n")
    assert len(read(path)) == 2
