"""What scikit-learn style calls may be given as X and y, as one split of clouds with labels."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from pointlift.core.errors import DatasetNotFoundError, UsageError, unknown_name
from pointlift.data.cloud import Float32, PointCloud
from pointlift.data.dataset import CloudDataset, CloudSplit, DatasetMeta
from pointlift.data.files import find_clouds
from pointlift.data.loading import load_dataset
from pointlift.data.stores import ArrayStore, FileStore
from pointlift.tasks.inputs import as_cloud

Purpose = Literal["fit", "score"]
KINDS = "a folder, a data set, a list of files, clouds or arrays (N, 3), or one array (n, N, 3)"


@dataclass(frozen=True)
class Clouds:
    """Clouds with what is known of them.

    Attributes:
        split: The clouds.
        labels: One per cloud, of any hashable type; None when nobody gave any.
        meta: What their data set says of itself; None for clouds without one.
        dataset: The data set, where they came from one.
    """

    split: CloudSplit
    labels: list[Hashable] | None
    meta: DatasetMeta | None = None
    dataset: CloudDataset | None = None


def clouds_of(X: Any, y: Any = None, purpose: Purpose = "fit") -> Clouds:
    """X and y as clouds with labels.

    Args:
        X: `KINDS`. Of a data set, "fit" takes the training part, "score" the test part, or every cloud of a set
            without one.
        y: Labels; None takes those of the data set.
        purpose: "fit" or "score".

    Raises:
        UsageError: X is nothing of the kind, is empty, or y has another length.
        DataError: Files that cannot be used.
    """
    found = _found(X, purpose)
    if len(found.split) == 0:
        what = "training clouds" if purpose == "fit" else "clouds"
        raise UsageError(f"no {what} in {_named(X)}", f"{KINDS}, with at least one cloud")
    if y is None:
        return found
    labels = [_plain(value) for value in y]
    if len(labels) != len(found.split):
        raise UsageError(f"{len(labels)} labels for {len(found.split)} clouds", "one label per cloud")
    return Clouds(found.split, labels, found.meta, found.dataset)


def _found(X: Any, purpose: Purpose) -> Clouds:
    if isinstance(X, str | os.PathLike):
        return _of_path(Path(X).expanduser(), purpose)
    if isinstance(X, CloudDataset):
        return _of_dataset(X, purpose)
    if isinstance(X, CloudSplit):
        return _of_split(X)
    if isinstance(X, Tensor):
        X = X.detach().cpu().numpy()
    if isinstance(X, np.ndarray) and X.dtype.kind in "fiu":
        if X.ndim != 3:
            raise UsageError(f"an array of shape {X.shape}", "(n, N, 3), or a list of arrays (N, 3)")
        return Clouds(CloudSplit(ArrayStore(X)), None)
    if isinstance(X, PointCloud) or not isinstance(X, Iterable):
        raise UsageError(f"X of type {type(X).__name__}", KINDS, "Put a single cloud into a list: [cloud]")
    return Clouds(_of_items(list(X)), None)


def _of_path(path: Path, purpose: Purpose) -> Clouds:
    if path.is_file():
        return Clouds(_of_items([path]), None)
    try:
        return _of_dataset(load_dataset(path), purpose)
    except DatasetNotFoundError:
        if purpose == "fit" or not path.is_dir():
            raise
        return Clouds(_of_items(find_clouds([path])), None)  # a folder of files without labels


def _of_dataset(dataset: CloudDataset, purpose: Purpose) -> Clouds:
    if purpose == "fit":
        split = dataset.train
    else:
        split = dataset.part("all") if dataset.test is None else dataset.test
    return _of_split(split, dataset)


def _of_split(split: CloudSplit, dataset: CloudDataset | None = None) -> Clouds:
    """Labelled with the class names of its data set; with its numbers where no set names them."""
    if split.labels is None:
        return Clouds(split, None, split.meta, dataset)
    numbers = split.labels.tolist()
    classes = () if split.meta is None else split.meta.classes
    named = all(0 <= k < len(classes) for k in numbers)
    return Clouds(split, [classes[k] for k in numbers] if named else numbers, split.meta, dataset)


def _of_items(items: Sequence[Any]) -> CloudSplit:
    if items and all(isinstance(item, str | os.PathLike) for item in items):
        paths = [Path(item).expanduser() for item in items]
        # Each is read twice, for its key and for its features: what fits stays in memory between the two.
        return CloudSplit(FileStore(paths, cache_bytes=1 << 29), names=[str(p) for p in paths])
    return CloudSplit(CloudList([_cloud(item, i) for i, item in enumerate(items)]))


def _cloud(item: Any, i: int) -> PointCloud:
    """One element of a list: a cloud, an array, a file, or a sample of a split."""
    if isinstance(item, Mapping) and "xyz" in item:
        item = item["xyz"]
    if isinstance(item, Tensor):
        item = item.detach().cpu().numpy()
    if isinstance(item, PointCloud):
        return item
    if isinstance(item, np.ndarray):
        return PointCloud.from_array(item, f"cloud {i}")
    if isinstance(item, str | os.PathLike):
        return as_cloud(item)
    raise UsageError(f"a {type(item).__name__} as cloud {i}", "a file, a PointCloud, or an array (N, 3)")


class CloudList:
    """Clouds in memory, as a store of points."""

    fields: tuple[str, ...] = ()

    def __init__(self, clouds: Sequence[PointCloud]) -> None:
        self.clouds = tuple(clouds)

    def __len__(self) -> int:
        return len(self.clouds)

    def points(self, i: int) -> Float32:
        return self.clouds[i].xyz

    def field(self, name: str, i: int) -> np.ndarray:
        raise unknown_name("per-point array", name, self.fields)

    def counts(self) -> np.ndarray:
        return np.array([len(cloud) for cloud in self.clouds], dtype=np.int64)

    def digest(self, indices: np.ndarray) -> Iterator[bytes]:
        for i in indices:
            yield np.ascontiguousarray(self.clouds[i].xyz, dtype="<f4").tobytes()


def encode_labels(labels: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Classes (k,) in sorted order (of first appearance where they cannot be sorted), and codes int64 (n,).

    Raises:
        UsageError: A label that is not hashable or not a number (NaN), or fewer than two classes.
    """
    values = [_plain(label) for label in labels]
    try:
        known: list[Any] = list(dict.fromkeys(values))
    except TypeError as error:
        raise UsageError(f"a label that cannot be a key ({error})", "hashable labels: text, numbers, tuples") from None
    if any(value != value for value in known):
        raise UsageError("NaN among the labels", "a label for every cloud")
    if len(known) < 2:
        raise UsageError(f"one class only: {known[0]!r}", "at least two")
    with contextlib.suppress(TypeError):  # labels of several types keep the order in which they came
        known.sort()
    alike = {type(value) for value in known}
    classes: np.ndarray
    if len(alike) == 1 and alike <= {str, int, float, bool}:
        classes = np.array(known)
    else:
        classes = np.empty(len(known), dtype=object)
        classes[:] = known
    return classes, codes_of(values, known)


def codes_of(labels: Sequence[Hashable], classes: Iterable[Any]) -> np.ndarray:
    """Positions int64 (n,) of labels among classes; -1 for others."""
    number = {_plain(name): i for i, name in enumerate(classes)}
    return np.array([number.get(_plain(label), -1) for label in labels], dtype=np.int64)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _named(X: Any) -> str:
    return str(X) if isinstance(X, str | os.PathLike) else f"a {type(X).__name__}"
