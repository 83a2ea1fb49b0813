"""Procedural shapes on disk: written by several processes, resumed after a kill, read through memory maps.

A folder holds `procedural.json` and, for every block of `shard` shapes, `points-00000.npy` (int16, divided by 32767)
and `normals-00000.npy` (int8, divided by 127): 72 KiB for a shape of 8,192 points.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import tokenize
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from pointlift.core.errors import DataError, FileFormatError, PointLiftError, UsageError, unknown_name
from pointlift.data.catalog import DATASETS, DatasetEntry
from pointlift.data.cloud import Float32
from pointlift.data.dataset import CloudDataset
from pointlift.data.procedural.config import VERSION, ProceduralConfig
from pointlift.data.procedural.make import make_shape
from pointlift.data.procedural.store import MOST, config_of, dataset_of
from pointlift.data.small_files import read_json
from pointlift.data.stores import file_digest
from pointlift.engine.files import remove_temporaries, write_atomic

META = "procedural.json"
SHARD = 512
ARRAYS = {"points": (np.dtype("<i2"), 32767), "normals": (np.dtype("i1"), 127)}
_AGAIN = "Run the same command again: it continues where it stopped"

Progress = Callable[[int, int], None]
"""Called with the number of shapes that are there, and of all."""


def write_procedural(
    root: str | os.PathLike[str],
    *,
    count: int,
    seed: int = 0,
    config: ProceduralConfig | None = None,
    workers: int = 1,
    shard: int = SHARD,
    progress: Progress | None = None,
) -> Path:
    """Write the first `count` shapes of a series to a folder; what is there already is kept.

    A killed run is continued by the same call; a finished folder grows when `count` is larger. Every file appears
    whole or not at all, and holds the same bytes for any number of workers. One call at a time may write to a folder.

    Args:
        root: A new or empty folder, or one that this function made with the same seed and configuration.
        count: How many shapes.
        seed: Which series.
        config: How shapes are made.
        workers: Processes. They are spawned: in a script, call this under `if __name__ == "__main__"`.
        shard: Shapes per file; a process holds one file in memory.
        progress: Told after every file.

    Returns:
        `root` as a path.

    Raises:
        UsageError: A number that makes no sense, a folder that holds something else, or more shapes than `count`.
        PointLiftError: The disk is full, or a process died.
    """
    config = config or ProceduralConfig()
    if not 1 <= count <= MOST or workers < 1 or shard < 1:
        raise UsageError(
            f"count={count}, workers={workers}, shard={shard}", f"at least 1 of each, {MOST:,} shapes at most"
        )
    folder = Path(root).expanduser()
    head = {"format": "pointlift procedural", "version": VERSION, "seed": seed, "shard": shard,
            "config": config.as_dict()}  # fmt: skip
    if _is_done(folder, head, count):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    remove_temporaries(folder)
    _write_meta(folder, head | {"count": count, "sha256": None})
    blocks = [(k, min(shard, count - k * shard)) for k in range(-(-count // shard))]
    jobs = [(folder, config, seed, shard, k, rows) for k, rows in blocks if not _has_block(folder, config, k, rows)]
    there = count - sum(job[-1] for job in jobs)
    if progress:
        progress(there, count)
    for rows in _run(jobs, workers):
        there += rows
        if progress:
            progress(there, count)
    sums = {path.name: file_digest(path).hex() for k, _ in blocks for path in _paths(folder, k).values()}
    _write_meta(folder, head | {"count": count, "sha256": sums})
    return folder


def _is_done(folder: Path, head: dict[str, Any], count: int) -> bool:
    """Does the folder hold all of it? Refuses a folder that holds anything else."""
    if not (folder / META).is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} holds something already", "a new or empty folder")
        return False
    found = _read_meta(folder)
    wrong = [f"{k} {found.get(k)!r} instead of {v!r}" for k, v in head.items() if k != "config" and found.get(k) != v]
    mine, theirs = head["config"], found["config"]
    wrong += [f"{k}={theirs.get(k)!r} instead of {v!r}" for k, v in mine.items() if theirs.get(k) != v]
    if wrong:
        raise UsageError(
            f"{folder} was made otherwise: {'; '.join(wrong)}",
            "a new folder, or the options that this one was made with",
        )
    if found["count"] > count:
        raise UsageError(f"{folder} holds {found['count']} shapes", f"at most {count}", "Ask for as many, or more")
    return (
        found["count"] == count and found["sha256"] is not None and all((folder / n).is_file() for n in found["sha256"])
    )


def _run(jobs: list[tuple], workers: int) -> Iterator[int]:
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            yield _write_block(*job)
        return
    # Spawned, not forked: a fork of a process with running threads may hang.
    # Ctrl-C reaches every process of a terminal: the workers finish their file, the caller alone stops.
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)), multiprocessing.get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    )
    try:
        for done in as_completed([pool.submit(_write_block, *job) for job in jobs]):
            yield done.result()
    except BrokenProcessPool as error:
        raise PointLiftError("a process that made shapes died", "enough memory", _AGAIN) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _write_block(folder: Path, config: ProceduralConfig, seed: int, shard: int, block: int, rows: int) -> int:
    """Make and write one block; returns its number of shapes."""
    arrays = {name: np.empty((rows, config.points, 3), dtype) for name, (dtype, _) in ARRAYS.items()}
    for row in range(rows):
        for (name, (_, scale)), values in zip(
            ARRAYS.items(), make_shape(block * shard + row, config, seed), strict=True
        ):
            arrays[name][row] = np.rint(values * np.float32(scale))
    for name, path in _paths(folder, block).items():
        encoded = io.BytesIO()
        np.save(encoded, arrays[name])
        write_atomic(path, [encoded.getbuffer()], hint=_AGAIN)
    return rows


def _paths(folder: Path, block: int) -> dict[str, Path]:
    return {name: folder / f"{name}-{block:05d}.npy" for name in ARRAYS}


def _has_block(folder: Path, config: ProceduralConfig, block: int, rows: int) -> bool:
    """Are both files there with all their rows? A shorter last block of a folder that grows is made anew."""
    for name, path in _paths(folder, block).items():
        if not path.is_file():
            return False
        if len(_map(path, name, config.points)) != rows:
            return False
    return True


def _map(path: Path, name: str, points: int) -> np.ndarray:
    """A memory map of one file (rows, points, 3)."""
    dtype, _ = ARRAYS[name]
    try:
        with warnings.catch_warnings(action="ignore"):  # on headers that promise more than any memory holds
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing", "every file of the folder", _AGAIN) from error
    except (OSError, ValueError, TypeError, SyntaxError, OverflowError, EOFError, tokenize.TokenError) as error:
        raise FileFormatError(f"{path}: {error}", f"an array of {dtype}", f"Delete this file. {_AGAIN}") from error
    if array.ndim != 3 or array.shape[1:] != (points, 3) or array.dtype != dtype:
        raise FileFormatError(
            f"{path}: {array.dtype} of shape {array.shape}", f"{dtype} of shape (n, {points}, 3)",
            f"Delete this file. {_AGAIN}",
        )  # fmt: skip
    return array


def _write_meta(folder: Path, meta: dict[str, Any]) -> None:
    write_atomic(folder / META, json.dumps(meta, indent=1).encode(), hint=_AGAIN)


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / META
    meta = read_json(path, dict, "JSON as `write_procedural` writes it")
    kinds = {"version": int, "seed": int, "shard": int, "count": int, "config": dict, "sha256": dict | None}
    if any(k not in meta or not isinstance(meta[k], kind) for k, kind in kinds.items()):
        raise FileFormatError(f"{path}: keys or values are missing or wrong", f"{', '.join(kinds)}")
    if meta["count"] < 1 or meta["shard"] < 1:
        raise FileFormatError(f"{path}: count {meta['count']}, shard {meta['shard']}", "at least 1 of each")
    return meta


class CachedStore:
    """The shapes of a folder, read through memory maps: no cloud stays in memory.

    A file is compared with its sum when its first cloud is asked for, once in each process.

    Args:
        folder: Made by `write_procedural`.
        meta: What its `procedural.json` says.
        points: Points per cloud.
    """

    fields: tuple[str, ...] = ("normals",)

    def __init__(self, folder: Path, meta: dict[str, Any], points: int) -> None:
        self.folder, self._meta, self._points = folder, meta, points
        self._maps: dict[tuple[str, int], np.ndarray] = {}

    def __len__(self) -> int:
        return self._meta["count"]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}}  # a pickled memory map is a copy of the whole file

    def _row(self, name: str, i: int) -> np.ndarray:
        block, row = divmod(i, self._meta["shard"])
        array = self._maps.get((name, block))
        if array is None:
            path = _paths(self.folder, block)[name]
            array = self._maps[name, block] = self._checked(_map(path, name, self._points), path)
        if row >= len(array):
            raise FileFormatError(
                f"{_paths(self.folder, block)[name]}: {len(array)} shapes", f"more than {row}", _AGAIN
            )
        return array[row].astype(np.float32, order="C") / np.float32(ARRAYS[name][1])

    def _checked(self, array: np.ndarray, path: Path) -> np.ndarray:
        """`array` when its file is the one that was written: `digest` passes the sums on without reading."""
        if file_digest(path).hex() != self._meta["sha256"].get(path.name):
            raise FileFormatError(
                f"{path} has another sha256 than {META} says", "the file as it was written",
                f"Delete this file. {_AGAIN}",
            )  # fmt: skip
        return array

    def points(self, i: int) -> Float32:
        """Cloud `i`, float32 (N, 3), in the unit sphere."""
        return self._row("points", i)

    def field(self, name: str, i: int) -> np.ndarray:
        """`"normals"` of cloud `i`, float32 (N, 3), unit length."""
        if name not in self.fields:
            raise unknown_name("per-point array", name, self.fields)
        normals = self._row(name, i)
        return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.float32(1e-6))

    def counts(self) -> np.ndarray:
        """Points per cloud, int64 (n,)."""
        return np.full(len(self), self._points, dtype=np.int64)

    def digest(self, indices: np.ndarray) -> Iterator[bytes]:
        """The sums of the files that hold the clouds, and which clouds of them: nothing is read."""
        for block in np.unique(indices // self._meta["shard"]).tolist():
            for path in _paths(self.folder, block).values():
                yield str(self._meta["sha256"].get(path.name)).encode()
        yield np.ascontiguousarray(indices, dtype="<i8").tobytes()


def detect(root: Path) -> bool:
    """A `procedural.json` lies in the folder."""
    return (root / META).is_file()


def load_cached(root: str | os.PathLike[str], *, test: int = 0) -> CloudDataset:
    """Open a folder that `write_procedural` made.

    Args:
        root: The folder.
        test: How many of its shapes, the last ones, are a test part; 0 for none.

    Raises:
        DataError: The folder is not finished, or made by another version whose shapes cannot be named here.
        FileFormatError: A file is damaged.
        UsageError: `test` leaves no training shape.
    """
    folder = Path(root)
    meta = _read_meta(folder)
    if meta["sha256"] is None:
        there = len(list(folder.glob("points-*.npy")))
        raise DataError(
            f"{folder} is not finished: about {min(there * meta['shard'], meta['count'])} of {meta['count']} shapes",
            "a finished folder", _AGAIN,
        )  # fmt: skip
    if meta["version"] != VERSION:
        raise DataError(f"{folder} holds shapes of version {meta['version']}", f"version {VERSION}", "Make it anew")
    if not 0 <= test < meta["count"]:
        raise UsageError(f"test={test} of {meta['count']} shapes", "at least one left for training")
    try:
        config = config_of(**meta["config"])
    except (TypeError, UsageError) as error:
        raise FileFormatError(f"{folder / META}: {error}", "the configuration of procedural shapes") from error
    blocks = -(-meta["count"] // meta["shard"])
    if len(meta["sha256"]) != blocks * len(ARRAYS):
        raise FileFormatError(f"{folder / META}: {len(meta['sha256'])} sums", f"{blocks * len(ARRAYS)}, one per file")
    for block in {0, blocks - 1}:  # so that no number in the meta file is believed without the bytes for it
        rows = min(meta["shard"], meta["count"] - block * meta["shard"])
        if not _has_block(folder, config, block, rows):
            raise FileFormatError(f"{folder}: block {block} is not there, or not of {rows} shapes", "all files", _AGAIN)
    store = CachedStore(folder, meta, config.points)
    dataset = dataset_of(store, config, meta["seed"], meta["count"] - test, "int16 on disk")
    return CloudDataset(dataset.meta, dataset.train, dataset.test, folder)


DATASETS.register(
    "procedural_cache",
    DatasetEntry(
        title="procedural shapes written to disk",
        layout="procedural.json, points-00000.npy, normals-00000.npy, …",
        get="pointlift prepare procedural DIR --count 50000 --workers 2",
        terms="ours (Apache-2.0)",
        load=load_cached,
        detect=detect,
        classes=(),
        official=True,
    ),
)
