"""What is known of released checkpoints, and where they are looked for."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from pointlift.core.errors import CheckpointError
from pointlift.weights.entries import WEIGHTS, weights_folder, weights_for

HOLDS = {"backbone", "classifier", "segmenter", "objective", "adapter", "source"}


@pytest.mark.parametrize("name", list(WEIGHTS))
def test_entries_are_complete(name: str) -> None:
    entry = WEIGHTS.get(name)
    assert entry.name == name
    assert entry.holds in HOLDS
    assert entry.packaged or entry.url.startswith("https://")
    assert entry.licence
    assert entry.paper
    assert all(0 < score < 1 for score in entry.reported.values())


def test_at_most_one_default_for_each_architecture() -> None:
    for arch in {name.partition(".")[0] for name in WEIGHTS}:
        assert sum(WEIGHTS.get(n).default for n in weights_for(arch)) <= 1


def test_local_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTLIFT_HOME", str(tmp_path))
    assert weights_folder() == tmp_path / "weights"
    entry = WEIGHTS.get("point_mae_base.scan_hardest")
    with pytest.raises(
        CheckpointError, match=r"'point_mae_base.scan_hardest' are not on this machine.*scan_hardest\.pth"
    ):
        entry.local_file()
    path = tmp_path / "weights" / "point_mae_base.scan_hardest.pth"
    path.parent.mkdir()
    path.write_bytes(b"abc")
    assert entry.local_file() == path
    assert replace(entry, sha256=hashlib.sha256(b"abc").hexdigest()).local_file() == path
    with pytest.raises(CheckpointError, match=r"has sha256 ba7816bf8f01…"):
        replace(entry, sha256="0" * 64).local_file()


def test_the_cache_folder_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POINTLIFT_HOME", raising=False)
    assert weights_folder() == Path.home() / ".cache" / "pointlift" / "weights"
