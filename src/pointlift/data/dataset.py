"""Labelled data sets: what a set says of itself, its splits, and what is held out for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointlift.core.errors import DataError, UsageError, unknown_name
from pointlift.core.seeds import generator
from pointlift.data.config import Axis
from pointlift.data.stores import PointStore, little_endian

Int64 = NDArray[np.int64]
Sample = dict[str, Any]


@dataclass(frozen=True)
class DatasetMeta:
    """What must be known of a data set to use it rightly.

    Args:
        name: Short name ("modelnet40", or the name of the folder).
        variant: Which edition of it: the layout and what it was sampled to.
        classes: Class names; a label is an index into them.
        up_axis: The axis that points up in every cloud; None when unknown or not shared.
        native_points: Points per cloud as stored; None when clouds differ.
        unit: Unit of the coordinates ("m"); None when they have none or it is unknown.
        note: Anything a record should carry (how the test part came about, for example).
    """

    name: str
    variant: str | None
    classes: tuple[str, ...]
    up_axis: Axis | None = None
    native_points: int | None = None
    unit: str | None = None
    note: str = ""


class CloudSplit:
    """Labelled clouds of one split: a sequence of samples, decoded when asked for.

    `split[i]` is a dict: `xyz` float32 (N_i, 3), `label` int64, `index` int64 (always `i`, the position in
    *this* split), and one array of N_i rows for each of `fields`.

    Args:
        store: Holds the points.
        labels: (n,) indices into the classes.
        names: One name per cloud; numbers when omitted.
        rows: (m,) which clouds of the store belong to this split; all when omitted.
        fields: Per-point arrays of the store that samples carry (`normals`, `part`); none by default.
    """

    def __init__(
        self,
        store: PointStore,
        labels: np.ndarray,
        names: Sequence[str] | None = None,
        *,
        rows: np.ndarray | None = None,
        fields: Sequence[str] = (),
    ) -> None:
        self.store = store
        self.rows: Int64 = np.arange(len(store)) if rows is None else np.asarray(rows, dtype=np.int64)
        self.labels: Int64 = np.asarray(labels, dtype=np.int64)
        self.names = tuple(names) if names is not None else tuple(str(i) for i in range(len(self.rows)))
        if not len(self.rows) == len(self.labels) == len(self.names):
            raise DataError(
                f"{len(self.rows)} clouds, {len(self.labels)} labels, {len(self.names)} names",
                "one of each per cloud",
            )
        for name in fields:
            if name not in store.fields:
                raise unknown_name("per-point array", name, store.fields)
        self.fields = tuple(fields)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Sample:
        if not -len(self) <= i < len(self):
            raise IndexError(f"cloud {i} of a split of {len(self)}")
        i = int(i) % len(self)
        row = int(self.rows[i])
        sample: Sample = {"xyz": self.store.points(row), "label": self.labels[i], "index": np.int64(i)}
        for name in self.fields:
            sample[name] = self.store.field(name, row)
        return sample

    def counts(self) -> Int64 | None:
        """Points per cloud (n,), or None when only reading every file would tell."""
        counts = self.store.counts()
        return None if counts is None else counts[self.rows]

    def subset(self, indices: Sequence[int] | np.ndarray) -> CloudSplit:
        """The clouds at `indices` of this split, in that order, numbered anew from 0."""
        chosen = np.asarray(indices, dtype=np.int64)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise IndexError(f"indices {chosen.min()}..{chosen.max()} for a split of {len(self)} clouds")
        names = [self.names[i] for i in chosen]
        return CloudSplit(self.store, self.labels[chosen], names, rows=self.rows[chosen], fields=self.fields)

    def take(self, limit: int | None) -> CloudSplit:
        """At most `limit` clouds, spread evenly over the classes, in their order: for quick runs."""
        if limit is None or limit >= len(self):
            return self
        if limit < 1:
            raise UsageError(f"a limit of {limit} clouds", "at least 1")
        rank = np.empty(len(self), dtype=np.int64)  # the how-manieth of its class each cloud is
        for label in np.unique(self.labels):
            of_class = np.flatnonzero(self.labels == label)
            rank[of_class] = np.arange(len(of_class))
        first = np.lexsort((np.arange(len(self)), self.labels, rank))[:limit]
        return self.subset(np.sort(first))

    def with_fields(self, *fields: str) -> CloudSplit:
        """The same clouds, whose samples also carry these per-point arrays."""
        return CloudSplit(self.store, self.labels, self.names, rows=self.rows, fields=fields)


@dataclass(frozen=True)
class CloudDataset:
    """A data set with its splits.

    Args:
        meta: What the set says of itself.
        train: Training clouds (validation clouds are taken from it, see `hold_out`); may be empty.
        test: Test clouds, or None when the set brings none.
        root: The folder it was read from; None for made data.
    """

    meta: DatasetMeta
    train: CloudSplit
    test: CloudSplit | None = None
    root: Path | None = None
    _hash: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def content_hash(self) -> str:
        """sha256 over classes, labels and points of both splits: the same on every machine.

        Arrays are hashed as stored (`points_i16` stays int16), files by their bytes; names do not count.
        """
        if "sha256" not in self._hash:
            digest = hashlib.sha256("\x1f".join(self.meta.classes).encode())
            for split in (self.train, self.test):
                digest.update(b"\x1e" if split is None else f"\x1e{len(split)}".encode())
                if split is not None:
                    digest.update(little_endian(split.labels).tobytes())
                    for block in split.store.digest(split.rows):
                        digest.update(block)
            self._hash["sha256"] = digest.hexdigest()
        return self._hash["sha256"]

    def hold_out(self, fraction: float, seed: int = 0) -> tuple[CloudSplit, CloudSplit | None]:
        """`(train, validation)`: validation held out of train by `stratified_split`; None for fraction 0.

        Raises:
            UsageError: There is no training part, or no class with two clouds.
        """
        if len(self.train) == 0:
            raise UsageError(
                f"{self.root or self.meta.name} has no training clouds", "a training part", "Check data.root"
            )
        if fraction == 0:
            return self.train, None
        rest, held = stratified_split(self.train.labels, fraction, seed)
        return self.train.subset(rest), self.train.subset(held)

    def with_test_fraction(self, fraction: float, seed: int = 0) -> CloudDataset:
        """For a set without a test part: hold `fraction` of the clouds out as one, and say so in the note."""
        if fraction == 0 or self.test is not None:
            return self
        rest, held = stratified_split(self.train.labels, fraction, seed, "test")
        made = f"test part: {fraction:.0%} of the clouds of each class, held out here with seed {seed}"
        note = f"{self.meta.note}; {made}" if self.meta.note else made
        return CloudDataset(replace(self.meta, note=note), self.train.subset(rest), self.train.subset(held), self.root)

    @cached_property
    def splits(self) -> dict[str, int]:
        """Number of clouds by split, as a record states them."""
        sizes = {"train": len(self.train)}
        return sizes if self.test is None else sizes | {"test": len(self.test)}


def stratified_split(
    labels: np.ndarray, fraction: float, seed: int, purpose: str = "validation"
) -> tuple[Int64, Int64]:
    """Positions `(rest, held)`, both rising: `fraction` of every class is held out.

    Of a class with n >= 2 clouds, `round(fraction * n)` are held, but at least 1 and at most n - 1. A class
    with a single cloud stays whole in `rest`. Which clouds are held depends on `seed`, the class and n alone.

    Raises:
        UsageError: `fraction` is not in (0, 1), or no class has two clouds.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"a held-out fraction of {fraction}", "a number between 0 and 1")
    held = []
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        if len(of_class) < 2:
            continue
        count = min(max(round(fraction * len(of_class)), 1), len(of_class) - 1)
        order = generator(seed, "split", purpose, int(label)).permutation(len(of_class))
        held.append(of_class[order[:count]])
    if not held:
        raise UsageError(
            f"{len(labels)} clouds, and no class with two of them: nothing can be held out for {purpose}",
            "at least two clouds in some class",
            f"Add clouds (a higher data.limit), or set data.{'test' if purpose == 'test' else 'val'}_fraction to 0",
        )
    chosen = np.sort(np.concatenate(held))
    rest = np.setdiff1d(np.arange(len(labels)), chosen, assume_unique=True)
    return rest, chosen


def checked_labels(labels: np.ndarray, classes: Sequence[str], where: str | Path) -> Int64:
    """`labels` as int64 (n,) when all are indices into `classes`, else a `DataError` with file and row."""
    if labels.dtype.kind not in "iu" or labels.ndim > 2 or (labels.ndim == 2 and labels.shape[1] != 1):
        raise DataError(f"{where}: labels of type {labels.dtype} and shape {labels.shape}", "integers of shape (n,)")
    flat = labels.reshape(-1)
    if flat.size and (int(flat.min()) < 0 or int(flat.max()) >= len(classes)):
        bad = (flat < 0) | (flat >= len(classes))
        first = int(np.argmax(bad))
        raise DataError(
            f"{where}: label {int(flat[first])} of cloud {first} is outside the {len(classes)} classes"
            + (f" ({int(bad.sum())} such labels in all)" if bad.sum() > 1 else ""),
            f"0 to {len(classes) - 1}",
            "Correct the labels or the list of classes",
        )
    return flat.astype(np.int64)
