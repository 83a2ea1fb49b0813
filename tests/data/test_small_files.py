"""Lists and tables beside the clouds: bounded, and in words when they are not what they should be."""

from __future__ import annotations

import json

import pytest

from pointlift.core.errors import DataError, FileFormatError
from pointlift.data.small_files import read_json, read_lines


def test_lines_and_json(tmp_path):
    path = tmp_path / "list"
    path.write_bytes(b"\xef\xbb\xbf one \r\n\r\ntwo\n")
    assert read_lines(path) == ["one", "two"]
    path.write_bytes(b'\xef\xbb\xbf{"a": [1]}')
    assert read_json(path, dict, "a table") == {"a": [1]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b'{"a"', "not JSON"),
        (b"[" * 8000, "not JSON"),
        (b"9" * 5000, "not JSON"),
        (b"\xff\xfe{}", "not text in UTF-8"),
        (b"[1]", "holds no dict"),
        (json.dumps({"a": "b" * 9000}).encode(), "more than 8,192 bytes"),
    ],
)
def test_what_is_no_table(content, says, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(FileFormatError, match=rf"a\.json .*{says}.*a table"):
        read_json(tmp_path / "a.json", dict, "a table", largest=8192)


def test_a_list_that_is_not_there_or_no_list(tmp_path):
    with pytest.raises(DataError, match="no file"):
        read_json(tmp_path / "none", dict, "a table")
    (tmp_path / "b").write_bytes(b"a\0b")
    with pytest.raises(FileFormatError, match="binary"):
        read_lines(tmp_path / "b")
