"""Features on disk: found again, never trusted when damaged, never larger than allowed."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest

from pointlift.core.errors import UsageError
from pointlift.tasks import feature_cache
from pointlift.tasks.feature_cache import KEY_BYTES, FeatureCache, features_folder


def rows(count: int, seed: int = 0, width: int = 5) -> dict[bytes, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {rng.bytes(KEY_BYTES): rng.standard_normal(width).astype(np.float32) for _ in range(count)}


def same(found: dict[bytes, np.ndarray], expected: dict[bytes, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for key, row in expected.items():
        np.testing.assert_array_equal(found[key], row)


def shards(folder: Path, space: str = "a") -> list[Path]:
    return sorted((folder / space).glob("*.npz"))


def test_what_is_stored_is_found_again_and_nothing_else(tmp_path: Path) -> None:
    cache, kept = FeatureCache(tmp_path), rows(7)
    assert cache.load("a", [*kept]) == {}
    cache.store("a", kept)
    same(cache.load("a", [*kept, bytes(KEY_BYTES)]), kept)
    same(FeatureCache(tmp_path).load("a", [*kept][:2]), dict([*kept.items()][:2]))
    assert cache.load("b", [*kept]) == {}
    cache.store("a", {})
    assert len(shards(tmp_path)) == 1


@pytest.mark.parametrize("damage", ["flipped", "short", "empty", "noise"])
def test_damaged_shard_is_removed_with_a_warning(tmp_path: Path, caplog, damage: str) -> None:
    cache, first, second = FeatureCache(tmp_path), rows(4), rows(4, seed=1)
    cache.store("a", first)
    (path,) = shards(tmp_path)
    cache.store("a", second)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"flipped": data, "short": data[:100], "empty": b"", "noise": b"PK\x03\x04" + bytes(90)}[damage])
    same(cache.load("a", [*first, *second]), second)
    assert not path.exists()
    assert "damaged" in caplog.text


@pytest.mark.parametrize("arrays", ["objects", "other", "nan", "rows"])
def test_shard_with_a_right_name_and_wrong_content(tmp_path: Path, arrays: str) -> None:
    """Whoever writes the file also names it: the name alone is no proof that it holds features."""
    keys, values = np.zeros((2, KEY_BYTES), np.uint8), np.zeros((2, 3), np.float32)
    made: dict[str, dict[str, np.ndarray]] = {
        "objects": {"keys": np.array([{}], dtype=object), "rows": values},
        "other": {"a": values},
        "nan": {"keys": keys, "rows": values + np.nan},
        "rows": {"keys": keys, "rows": values[:1]},
    }
    buffer = io.BytesIO()
    np.savez(buffer, **made[arrays])
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / f"{hashlib.sha256(buffer.getvalue()).hexdigest()}.npz"
    path.write_bytes(buffer.getvalue())
    assert FeatureCache(tmp_path).load("a", [bytes(KEY_BYTES)]) == {}
    assert not path.exists()


def test_the_longest_unused_go_when_there_is_no_room(tmp_path: Path) -> None:
    old, used, new = rows(50), rows(50, seed=1), rows(50, seed=2)
    cache = FeatureCache(tmp_path)
    cache.store("a", old)
    size = shards(tmp_path)[0].stat().st_size
    cache.store("b", used)
    for age, path in ((300, shards(tmp_path)[0]), (200, shards(tmp_path, "b")[0])):
        os.utime(path, ns=(0, (10**9 - age) * 10**9))
    cache.load("a", [*old][:1])  # used now, though it is the oldest
    FeatureCache(tmp_path, limit=2 * size).store("c", new)
    same(cache.load("a", [*old]), old)
    same(cache.load("c", [*new]), new)
    assert cache.load("b", [*used]) == {}
    with pytest.raises(UsageError, match="at least 1"):
        FeatureCache(tmp_path, limit=0)


def test_many_small_shards_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "MERGE_ABOVE", 4)
    cache, kept = FeatureCache(tmp_path), rows(9)
    for key, row in kept.items():
        cache.store("a", {key: row})
    assert len(shards(tmp_path)) <= 5
    same(cache.load("a", [*kept]), kept)


def test_nothing_readable_to_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All shards went between the listing and the reading: another process."""
    monkeypatch.setattr(feature_cache, "MERGE_ABOVE", 1)
    monkeypatch.setattr(feature_cache, "_read", lambda path: None)
    cache = FeatureCache(tmp_path)
    cache.store("a", rows(2))
    cache.store("a", rows(2, seed=1))
    assert len(shards(tmp_path)) == 2


def test_rows_of_two_lengths_in_one_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(feature_cache, "MERGE_ABOVE", 1)
    cache, short, long = FeatureCache(tmp_path), rows(2), rows(2, seed=1, width=6)
    cache.store("a", short)
    cache.store("a", long)
    same(cache.load("a", [*short]), short)
    assert cache.load("a", [*short, *long]) == {}
    assert "differ in length" in caplog.text


def test_folder_in_which_nothing_can_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    """Merging, shrinking and damage cost warnings only, where others own the files."""
    real = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if not path.name.startswith("."):
            raise PermissionError(13, "Permission denied", str(path))
        real(path, missing_ok)

    cache, first, second = FeatureCache(tmp_path), rows(4), rows(4, seed=1)
    cache.store("a", first)
    damaged = shards(tmp_path)[0]
    damaged.write_bytes(b"noise")
    cache.store("a", second)
    monkeypatch.setattr(Path, "unlink", refused)
    same(cache.load("a", [*first, *second]), second)
    assert damaged.exists()
    small = FeatureCache(tmp_path, limit=1)
    small._shrink()
    small._merge("a")
    same(cache.load("a", [*second]), second)
    assert caplog.text.count("cannot be removed") >= 3


def test_folder_that_cannot_be_written_costs_a_warning_only(tmp_path: Path, caplog) -> None:
    (tmp_path / "file").write_text("")
    cache = FeatureCache(tmp_path / "file")
    cache.store("a", rows(2))
    assert "not cached" in caplog.text
    assert cache.load("a", [*rows(2)]) == {}


def test_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POINTLIFT_HOME", str(tmp_path))
    assert features_folder() == tmp_path / "features"
    assert FeatureCache().folder == tmp_path / "features"
