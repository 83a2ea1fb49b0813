from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pointlift.core.errors import PointLiftError
from pointlift.engine.files import remove_temporaries, write_atomic


def test_replaces_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, b"old")

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(PointLiftError, match=r"could not write .*a\.json: No space left on device.*free it"):
        write_atomic(path, b"new", hint="free it")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_parts_come_in_order(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", iter([b"one ", memoryview(b"two")]))
    assert (tmp_path / "a").read_bytes() == b"one two"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PointLiftError, match="No such file"):
        write_atomic(tmp_path / "gone" / "a.json", b"x")


def test_leftovers_of_killed_processes_go(tmp_path: Path) -> None:
    (tmp_path / ".writing-1-a.json").write_bytes(b"half")
    (tmp_path / "a.json").write_bytes(b"whole")
    remove_temporaries(tmp_path)
    assert os.listdir(tmp_path) == ["a.json"]
