"""Procedural shapes on disk: the same as streamed, resumable, never mixed up."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pointlift.core.errors import DataError, PointLiftError, UsageError
from pointlift.data.loading import load_dataset
from pointlift.data.procedural import ProceduralConfig, ProceduralStore, load_cached, write_procedural
from pointlift.data.procedural.cache import CachedStore

CONFIG = ProceduralConfig(points=128, primitives=(1, 3))
OPTIONS = {"config": CONFIG, "seed": 4, "shard": 4}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return write_procedural(tmp_path_factory.mktemp("made") / "set", count=10, **OPTIONS)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def stop_after(files: int):
    def progress(there: int, of: int) -> None:
        if there >= files * OPTIONS["shard"]:
            raise InterruptedError

    return progress


def test_what_is_read_is_what_is_streamed_up_to_rounding(made):
    data = load_cached(made, test=3)
    assert data.splits == {"train": 7, "test": 3}
    store = ProceduralStore(10, CONFIG, 4)
    split = data.train.with_fields("normals")
    for i in range(7):
        sample = split[i]
        assert sample["xyz"].dtype == sample["normals"].dtype == np.float32
        assert np.abs(sample["xyz"] - store.points(i)).max() <= 0.5 / 32767 + 1e-7
        assert (sample["normals"] * store.field("normals", i)).sum(axis=1).min() > 0.999
        np.testing.assert_allclose(np.linalg.norm(sample["normals"], axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(data.test[2]["xyz"], store.points(9), atol=2e-5)
    assert "label" not in split[0]


def test_the_folder_is_recognised(made):
    data = load_dataset(made)
    assert data.meta.name == "procedural"
    assert data.meta.native_points == 128
    assert len(data.train) == 10
    assert data.root == made


def test_any_number_of_workers_writes_the_same_bytes(made, tmp_path):
    assert contents(write_procedural(tmp_path / "set", count=10, workers=2, **OPTIONS)) == contents(made)


def test_an_interrupted_run_goes_on_where_it_stopped(made, tmp_path):
    folder = tmp_path / "set"
    with pytest.raises(InterruptedError):
        write_procedural(folder, count=10, progress=stop_after(1), **OPTIONS)
    with pytest.raises(DataError, match="not finished"):
        load_cached(folder)
    (folder / ".writing-1-points-00001.npy").write_bytes(b"half")
    first = (folder / "points-00000.npy").stat().st_mtime_ns
    seen = []
    write_procedural(folder, count=10, progress=lambda there, of: seen.append((there, of)), **OPTIONS)
    assert seen == [(4, 10), (8, 10), (10, 10)]
    assert (folder / "points-00000.npy").stat().st_mtime_ns == first
    assert contents(folder) == contents(made)


def test_a_killed_run_goes_on_too(tmp_path):
    folder = tmp_path / "set"
    code = f"""
from pointlift.data.procedural import *
write_procedural({str(folder)!r}, count=4000, seed=4, shard=4, config=ProceduralConfig(points=128, primitives=(1, 3)))
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while len(list(folder.glob("normals-*.npy"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = len(list(folder.glob("points-*.npy")))
    assert 3 <= there < 1000
    for path in folder.glob("*-*.npy"):
        assert len(np.load(path)) == 4
    # Shrunk by hand to what the test has time for: the folder is then one that was to hold 16 shapes.
    meta = json.loads((folder / "procedural.json").read_text())
    (folder / "procedural.json").write_text(json.dumps(meta | {"count": 16}))
    write_procedural(folder, count=16, **OPTIONS)
    last = load_cached(folder).train[15]["xyz"]
    np.testing.assert_allclose(last, ProceduralStore(16, CONFIG, 4).points(15), atol=2e-5)


def test_a_finished_folder_is_left_alone_and_may_grow(made, tmp_path):
    folder = write_procedural(tmp_path / "set", count=6, **OPTIONS)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    write_procedural(folder, count=6, **OPTIONS)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    short = load_cached(folder).content_hash()
    write_procedural(folder, count=10, **OPTIONS)
    assert contents(folder) == contents(made)
    assert load_cached(folder).content_hash() != short
    with pytest.raises(UsageError, match="10 shapes"):
        write_procedural(folder, count=6, **OPTIONS)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"seed": 5}, "seed 4"),
        ({"shard": 5}, "shard 4"),
        ({"config": ProceduralConfig(points=128, primitives=(1, 3), cut=0.25)}, "cut=0.5"),
        ({"config": ProceduralConfig(points=64, primitives=(1, 3))}, "points=128"),
    ],
)
def test_a_folder_made_otherwise_is_refused(made, other, named):
    before = contents(made)
    with pytest.raises(UsageError, match=named):
        write_procedural(made, count=10, **(OPTIONS | other))
    assert contents(made) == before


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="holds something"):
        write_procedural(tmp_path, count=4, **OPTIONS)
    with pytest.raises(UsageError, match="holds something"):
        write_procedural(tmp_path / "holiday.jpg", count=4, **OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]
    with pytest.raises(UsageError):
        write_procedural(tmp_path / "new", count=0, **OPTIONS)


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "points-00001.npy").write_bytes((f / "points-00001.npy").read_bytes()[:-9]),
        lambda f: (f / "points-00001.npy").write_bytes(b"\x93NUMPY\x01\x00"),
        lambda f: (f / "points-00001.npy").write_bytes(b""),
        lambda f: np.save(f / "points-00001.npy", np.array([{}], dtype=object), allow_pickle=True),
        lambda f: np.save(f / "points-00001.npy", np.zeros((4, 128, 3))),
        lambda f: np.save(f / "points-00001.npy", np.zeros((2, 128, 3), "<i2")),
        lambda f: (f / "points-00001.npy").unlink(),
        lambda f: (f / "points-00001.npy").write_bytes((f / "points-00001.npy").read_bytes()[:-1] + b"?"),
        lambda f: (f / "points-00001.npy").write_bytes((f / "points-00000.npy").read_bytes()),
    ],
)
def test_a_damaged_file_is_named_and_can_be_made_anew(made, tmp_path, damage):
    folder = tmp_path / "set"
    folder.mkdir()
    for name, data in contents(made).items():
        (folder / name).write_bytes(data)
    damage(folder)
    data = load_cached(folder)
    assert len(data.train[0]["xyz"]) == 128
    with pytest.raises(DataError, match="points-00001"):
        data.train[7]
    (folder / "points-00001.npy").unlink(missing_ok=True)
    assert contents(write_procedural(folder, count=10, **OPTIONS)) == contents(made)


@pytest.mark.parametrize(
    "change",
    [
        b"",
        b"{",
        b"[1]",
        b"\xff\xfe",
        {"count": "10"},
        {"count": 0},
        {"shard": 0},
        {"config": {}, "version": 0},
        {"config": {"no_such": 1}},
        {"config": {"cut": 7}},
        {"count": 10**30},
        {"count": 10**30, "sha256": None},
        {"count": 10**12, "shard": 10**12},
        {"count": 11},
        {"sha256": {}},
    ],
)
def test_a_wrong_meta_file_is_an_error_in_words(made, tmp_path, change):
    good = json.loads((made / "procedural.json").read_text())
    text = change if isinstance(change, bytes) else json.dumps(good | change).encode()
    for path in made.glob("*.npy"):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "procedural.json").write_bytes(text)
    with pytest.raises(PointLiftError):
        load_cached(tmp_path)


def test_nothing_is_kept_in_memory_or_in_a_pickle(made):
    store = load_cached(made).train.store
    assert isinstance(store, CachedStore)
    store.points(0)[:] = 0
    assert store.points(0).any()
    assert isinstance(next(iter(store._maps.values())), np.memmap)
    copy = pickle.loads(pickle.dumps(store))  # noqa: S301  our own bytes
    assert not copy._maps
    np.testing.assert_array_equal(copy.points(9), store.points(9))
