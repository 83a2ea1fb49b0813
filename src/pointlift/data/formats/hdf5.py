"""HDF5, read without following it anywhere: no links to other files, no memory beyond what the file can hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pointlift.core.errors import DataError, FileFormatError, PointLiftError
from pointlift.data.cloud import PointCloud
from pointlift.data.formats.arrays import COORDINATES, cloud_of
from pointlift.data.formats.isolated import Budget, isolated
from pointlift.data.formats.limits import unpacked_limit
from pointlift.data.formats.options import ReadOptions

Shapes = Mapping[str, tuple[int, ...]]
CHUNK = 4096  # bytes that the library takes for every chunk of an array besides its data (about 3,000 were measured)


def read_arrays(
    path: Path,
    required: Sequence[str] = (),
    optional: Sequence[str] | None = (),
    check: Callable[[Shapes], None] = lambda shapes: None,
) -> dict[str, np.ndarray]:
    """Arrays of numbers at the top of an HDF5 file, read in a child process: damaged files crash the library.

    Args:
        path: The file.
        required: Names that must be there.
        optional: Further names that are read where they are there; None: whatever else is an array of numbers.
        check: Called with the shapes before anything is read; raises `PointLiftError`.

    Raises:
        DataError: A required name is missing.
        FileFormatError: Not HDF5; a link, external or virtual storage (data of another file); not numbers; or
            arrays that together take more than `unpacked_limit` of the file.
    """
    import h5py  # noqa: F401  before the fork: every child would take 50 ms for it

    limit = unpacked_limit(path)

    def read(budget: Budget) -> dict[str, np.ndarray]:
        with _opened(path) as file:
            datasets = {name: _dataset(file, name, path) for name in _chosen(file, required, optional, path)}
            check({name: dataset.shape for name, dataset in datasets.items()})
            total = sum(_cost(dataset) for dataset in datasets.values())
            if total > limit:  # chunks that were never written cost nothing in the file
                shapes = ", ".join(f"`{name}` {d.shape}, chunks {d.chunks}" for name, d in datasets.items())
                raise FileFormatError(
                    f"{path}: {shapes}, {total:,} bytes of memory", f"at most {limit:,} for this file"
                )
            budget(total)
            return {name: np.asarray(dataset[()]) for name, dataset in datasets.items()}

    return isolated(read, path, limit)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The open `h5py.File`; what h5py raises inside the `with` block becomes a `FileFormatError` naming `path`."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except (PointLiftError, MemoryError):
        raise
    except Exception as error:  # arbitrary bytes make h5py raise nearly anything
        if "memory allocation failed" in str(error):
            raise MemoryError from error
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise FileFormatError(f"{path} cannot be read as HDF5 ({reason})", "a complete HDF5 file") from error


def _chosen(file: Any, required: Sequence[str], optional: Sequence[str] | None, path: Path) -> list[str]:
    """The names to read. Links are never followed, and found only by those who ask for them by name."""
    there = list(file)
    missing = [name for name in required if name not in there]
    if missing:
        given = f"{path}: {', '.join(there[:8]) or 'nothing'} in the file"
        raise DataError(given, f"datasets {' and '.join(f'`{name}`' for name in required)}")
    if optional is not None:
        return [*required, *(name for name in optional if name in there)]
    return [*required, *(name for name in there if name not in required and _is_numbers(file, name))]


def _is_numbers(file: Any, name: str) -> bool:
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return False
    held = file[name]
    return isinstance(held, h5py.Dataset) and held.dtype.kind in "biuf" and held.shape is not None


def _dataset(file: Any, name: str, path: Path) -> Any:
    """The dataset `name` when its data is numbers that lie in this file."""
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise FileFormatError(f"{path}: `{name}` points to another place", "data in the file itself")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise FileFormatError(f"{path}: `{name}` is a group", "a dataset")
    if dataset.external or dataset.is_virtual:
        raise FileFormatError(f"{path}: `{name}` points to another place", "data in the file itself")
    if dataset.dtype.kind not in "biuf" or dataset.dtype.subdtype or dataset.shape is None:
        raise FileFormatError(f"{path}: `{name}` of type {str(dataset.dtype)[:80]}", "an array of numbers")
    return dataset


def _cost(dataset: Any) -> int:
    """Bytes that reading it takes: its own, or those of the one chunk that is unpacked as a whole, and the chunks'."""
    shape, chunks = dataset.shape, dataset.chunks or dataset.shape
    pieces = math.prod(-(-n // max(chunk, 1)) for n, chunk in zip(shape, chunks, strict=True))
    return max(math.prod(shape), math.prod(chunks)) * dataset.dtype.itemsize + CHUNK * pieces


def read_hdf5(path: Path, options: ReadOptions) -> PointCloud:
    """One cloud from `.h5`: `points`, `xyz` or `data` (N, 3 or more) or (1, N, 3), and every array with N rows.

    Raises:
        FileFormatError: Many clouds in one file, which is a data set, and what `read_arrays` refuses.
    """
    arrays = read_arrays(path, optional=None, check=lambda shapes: _check_one_cloud(shapes, path))
    batched = any(name in COORDINATES and array.ndim == 3 for name, array in arrays.items())
    if batched:  # (1, N, 3), a batch of one cloud
        arrays = {name: a[0] if a.ndim >= 2 and len(a) == 1 else a for name, a in arrays.items()}
    return cloud_of(arrays, options, path)


def _check_one_cloud(shapes: Shapes, path: Path) -> None:
    for name in COORDINATES:
        if len(shapes.get(name, ())) == 3 and shapes[name][0] > 1:
            raise FileFormatError(
                f"{path}: `{name}` of shape {shapes[name]}, many clouds",
                "one cloud: (N, 3 or more)",
                f"pl.load_dataset({str(path.parent)!r}) reads a folder of such files",
            )


def write_hdf5(cloud: PointCloud, path: Path) -> None:
    """`points` float32 (N, 3), every feature under its name, `offset` when the cloud has one; gzip inside."""
    import h5py

    arrays = {"points": cloud.xyz, **cloud.feats}
    if cloud.offset.any():
        arrays["offset"] = cloud.offset
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            if "/" in name or name == "." or "\0" in name:
                raise FileFormatError(f"{path.name}: no array can be called {name!r}", "a name that is no path")
            file.create_dataset(name, data=values, compression="gzip", compression_opts=4, shuffle=True)
