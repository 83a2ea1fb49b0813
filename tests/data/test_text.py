"""Text files as people write them."""

from __future__ import annotations

import numpy as np
import pytest

from pointlift.core.errors import FileFormatError
from pointlift.data.files import read

GOOD = {
    "spaces": "1 2 3\n4 5 6\n",
    "tabs and blank lines": "\n1\t2\t3\n\n4\t5\t6",
    "commas": "1,2,3\n4,5,6\n",
    "commas and spaces": "1, 2, 3\n4, 5, 6\n",
    "semicolons": "1;2;3\n4;5;6\n",
    "windows": "1 2 3\r\n4 5 6\r\n",
    "byte order mark": "\ufeff1 2 3\n4 5 6\n",
    "comments": "# made by hand\n1 2 3 # first\n# between\n4 5 6\n",
    "slashes": "// X Y Z\n1 2 3\n4 5 6\n",
    "header": "x y z\n1 2 3\n4 5 6\n",
    "comma header": "x,y,z\n1,2,3\n4,5,6\n",
    "other header": "easting northing height\n1 2 3\n4 5 6\n",
    "count": "2\n1 2 3\n4 5 6\n",
    "exponents": "1e0 2E0 +3.0\n4.00 5. 6\n",
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("ending", [".xyz", ".txt", ".csv"])
def test_reads(name, ending, tmp_path):
    path = tmp_path / f"a{ending}"
    path.write_bytes(GOOD[name].encode())
    np.testing.assert_array_equal(read(path).xyz, [[1, 2, 3], [4, 5, 6]])


def test_header_names_decide_the_columns(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("Intensity Z Y X R G B label\n0.5 3 2 1 255 0 7 4\n0.6 6 5 4 1 2 3 9\n")
    cloud = read(path)
    np.testing.assert_array_equal(cloud.xyz, [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(cloud.feats["colors"], [[255, 0, 7], [1, 2, 3]])
    assert cloud.feats["colors"].dtype == np.uint8
    assert cloud.feats["label"].tolist() == [4, 9]
    np.testing.assert_allclose(cloud.feats["intensity"], [0.5, 0.6])


def test_more_columns_without_names(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text("1 2 3 9 8 7\n")
    assert read(path).feats["extra"].tolist() == [[9, 8, 7]]
    assert read(path, columns=("x", "y", "z", "nx", "ny", "nz")).feats["normals"].tolist() == [[9, 8, 7]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 2\n3 4\n", "2 column"),
        ("1\n", "no line with numbers"),
        ("1 2 3\n4 5\n", "row 2"),
        ("1 2 3\n4 five 6\n", "five"),
        ("x y z\n", "no line with numbers"),
        ("# only\n# comments\n", "no line with numbers"),
        ("1 2 nan\n1 2 3\n", "1 of 2 points"),
        ("inf 2 3\n", "1 of 1 points"),
        ("3\n1 2 3\n4 5 6\n", "promises 3 points, 2 follow"),
        ("999999999999999999999999\n1 2 3\n", "promises"),
        ("1e400 2 3\n", "1 of 1 points"),
        ("1e35 2 3\n", "1e\\+35"),
    ],
)
def test_says_what_is_wrong(text, says, tmp_path):
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=says) as info:
        read(path)
    assert "bad.txt" in str(info.value)
    assert "usecols" not in str(info.value)


def test_utf16_is_named(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("1 2 3\n".encode("utf-16"))
    with pytest.raises(FileFormatError, match="UTF-16"):
        read(path)


@pytest.mark.parametrize(
    "text", ["0,5 1,5 2,5\n", "0,5;1,5;2,5;\n", "1\t2\t0,5e-3\n", "# by hand\n-0,5;2;7\n", "x;y;z\n1,5;2,5;3,5\n"]
)
def test_decimal_commas_are_named(text, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=r"decimal commas \('-?[01],5"):
        read(path)


@pytest.mark.parametrize("text", ["1,2,3\n", "1, 2,3\n", "1,2 ,3\n", "1 ,2, 3\n"])
def test_commas_between_numbers_are_none(text, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(text)
    np.testing.assert_array_equal(read(path).xyz, [[1, 2, 3]])
