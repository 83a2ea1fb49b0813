"""The `.dat` cache of ModelNet40 as the released codes make it, with a seed: farthest-point order of the raw clouds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from pointlift.core.errors import DataError, UsageError
from pointlift.core.seeds import generator
from pointlift.data.catalog import DATASETS
from pointlift.data.dataset import CloudSplit
from pointlift.data.sets.modelnet import cache_path, find, shape_list, text_split
from pointlift.data.sets.pickle_writing import pickled_array
from pointlift.data.small_files import read_lines
from pointlift.engine.files import write_atomic

Progress = Callable[[int, int], None]


def build_modelnet_cache(
    root: str | os.PathLike[str],
    split: Literal["train", "test"],
    points: int = 8192,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    *,
    num_category: int = 40,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write `modelnet40_<split>_<points>pts_fps.dat` from the raw text files.

    The file is a pickle of `[clouds, labels]`: clouds float32 (points, 6) with coordinates as in the text and normals,
    in farthest-point order, so that any prefix is a farthest-point sample; labels int32 (1,). Released code reads it,
    and so do we. Their builder starts each cloud at an unseeded random point; here the start follows from `seed`,
    `split` and the position in the list alone, so that the same files and seed give the same bytes.

    Args:
        root: `modelnet40_normal_resampled` with the raw text files, or its customary parent.
        split: "train" or "test".
        points: Points kept of each cloud.
        seed: Decides where sampling starts.
        out: The file; by default where the released code looks for it.
        num_category: 10 for the ModelNet10 lists.
        overwrite: Replace a file that is there.
        progress: Called with (clouds done, clouds in all).

    Raises:
        UsageError: The file is there already, or a wrong argument.
        DatasetNotFoundError: The lists or the raw files are missing.
        DataError: A cloud has fewer than `points` points.
    """
    if split not in ("train", "test") or num_category not in (10, 40) or points < 1:
        raise UsageError(
            f"split {split!r}, num_category {num_category}, points {points}", "train or test, 40 or 10, at least 1"
        )
    folder = find(Path(root).expanduser(), num_category)
    if folder is None or not shape_list(folder, "shape_names", num_category).is_file():
        raise DATASETS.get("modelnet40").missing(f"no modelnet{num_category} lists in {root}")
    path = cache_path(folder, split, points, num_category) if out is None else Path(out).expanduser()
    if path.exists() and not overwrite:
        raise UsageError(f"{path} is there already", "a new file", "Move it away, or ask to overwrite it")
    if not path.parent.is_dir():
        raise UsageError(f"no folder {path.parent}", "a folder that is there, for the cache")
    classes = tuple(read_lines(shape_list(folder, "shape_names", num_category)))
    clouds = text_split(folder, split, classes, num_category, cache_bytes=0).with_fields("normals")
    write_atomic(path, _instructions(clouds, points, seed, split, progress))
    return path


def cache_of(root: str | os.PathLike[str], split: str, points: int = 8192, num_category: int = 40) -> Path | None:
    """The cache that is there already (it is written in one step, so it is whole), or None."""
    folder = find(Path(root).expanduser(), num_category)
    path = None if folder is None else cache_path(folder, split, points, num_category)
    return path if path is not None and path.exists() else None


def _instructions(clouds: CloudSplit, points: int, seed: int, split: str, progress: Progress | None) -> Iterator[bytes]:
    """The pickle in parts: 2 GB are never in memory at once."""
    yield b"\x80\x03]]"
    for i in range(len(clouds)):
        yield from pickled_array(_sampled(clouds, i, points, seed, split))
        yield b"a"
        if progress is not None:
            progress(i + 1, len(clouds))
    yield b"a]"
    for label in clouds.class_labels():
        yield from pickled_array(np.array([label], np.int32))
        yield b"a"
    yield b"a."


def _sampled(clouds: CloudSplit, i: int, points: int, seed: int, split: str) -> np.ndarray:
    """float32 (points, 6) in farthest-point order."""
    import torch

    from pointlift.ops import farthest_point_sample

    sample = clouds[i]
    xyz = sample["xyz"]
    if len(xyz) < points:
        raise DataError(f"{clouds.names[i]} has {len(xyz)} points", f"at least {points}", "Ask for fewer points")
    start = int(generator(seed, "modelnet cache", split, i).integers(len(xyz)))
    rows = farthest_point_sample(torch.from_numpy(xyz)[None], points, start=start)[0].numpy()
    return np.concatenate([xyz[rows], sample["normals"][rows]], axis=1, dtype=np.float32)
