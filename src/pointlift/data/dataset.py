"""Data sets: what a set says of itself, its splits, and what is held out for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pointlift.core.errors import DataError, UsageError, unknown_name
from pointlift.core.seeds import generator
from pointlift.data.config import Axis
from pointlift.data.stores import ConcatStore, PointStore, little_endian

Int64 = NDArray[np.int64]
Sample = dict[str, Any]
PartName = Literal["train", "val", "test", "all"]


@dataclass(frozen=True)
class DatasetMeta:
    """What must be known of a data set to use it rightly.

    Args:
        name: Short name ("modelnet40", or the name of the folder).
        variant: Which edition of it: the layout and what it was sampled to.
        classes: Class names; a label is an index into them. Empty when the set has no label per cloud.
        up_axis: The axis that points up in every cloud; None when unknown or not shared.
        native_points: Points per cloud as stored; None when clouds differ.
        unit: Unit of the coordinates ("m"); None when they have none or it is unknown.
        note: Anything a record should carry (how the test part came about, for example).
        point_classes: Names of the classes of single points: `part` or `semantic` of a sample is an index into them.
        parts_of: For part segmentation: class name -> its part numbers, all of `point_classes` between them.
    """

    name: str
    variant: str | None
    classes: tuple[str, ...]
    up_axis: Axis | None = None
    native_points: int | None = None
    unit: str | None = None
    note: str = ""
    point_classes: tuple[str, ...] = ()
    parts_of: Mapping[str, tuple[int, ...]] | None = None

    def with_note(self, note: str) -> DatasetMeta:
        """The same with a further remark."""
        return replace(self, note=f"{self.note}; {note}" if self.note else note)


class CloudSplit:
    """Clouds of one split: a sequence of samples, decoded when asked for.

    `split[i]` is a dict: `xyz` float32 (N_i, 3), `label` int64 when the clouds have labels, `index` int64 (always
    `i`, the position in *this* split), and one array of N_i rows for each of `fields`.

    Args:
        store: Holds the points.
        labels: (n,) indices into the classes; None for clouds without labels.
        names: One name per cloud; numbers when omitted.
        rows: (m,) which clouds of the store belong to this split; all when omitted.
        fields: Per-point arrays of the store that samples carry (`normals`, `part`); none by default.
        meta: What the data set of these clouds says of itself (class names, unit, axis); None for loose clouds. The
            splits of a `CloudDataset` carry that set's.
    """

    def __init__(
        self,
        store: PointStore,
        labels: np.ndarray | None = None,
        names: Sequence[str] | None = None,
        *,
        rows: np.ndarray | None = None,
        fields: Sequence[str] = (),
        meta: DatasetMeta | None = None,
    ) -> None:
        self.store, self.meta = store, meta
        self.rows: Int64 = np.arange(len(store)) if rows is None else np.asarray(rows, dtype=np.int64)
        self.labels: Int64 | None = None if labels is None else np.asarray(labels, dtype=np.int64)
        self.names = tuple(names) if names is not None else tuple(str(i) for i in range(len(self.rows)))
        labelled = len(self.rows) if self.labels is None else len(self.labels)
        if not len(self.rows) == labelled == len(self.names):
            raise DataError(
                f"{len(self.rows)} clouds, {labelled} labels, {len(self.names)} names",
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
        sample: Sample = {"xyz": self.store.points(row), "index": np.int64(i)}
        if self.labels is not None:
            sample["label"] = self.labels[i]
        for name in self.fields:
            sample[name] = self.store.field(name, row)
        return sample

    def counts(self) -> Int64 | None:
        """Points per cloud (n,), or None when only reading every file would tell."""
        counts = self.store.counts()
        return None if counts is None else counts[self.rows]

    def class_labels(self) -> Int64:
        """`labels` of clouds that must have them.

        Raises:
            UsageError: The clouds have no labels.
        """
        if self.labels is None:
            raise UsageError(
                "clouds without labels",
                "a label per cloud",
                "Put the files into one folder per class; clouds without labels are for pre-training",
            )
        return self.labels

    def relabelled(self, labels: np.ndarray, classes: Sequence[str] | None = None) -> CloudSplit:
        """The same clouds with other labels (n,); `classes` names them where they number other classes than before."""
        meta = self.meta if self.meta is None or classes is None else replace(self.meta, classes=tuple(classes))
        return CloudSplit(self.store, labels, self.names, rows=self.rows, fields=self.fields, meta=meta)

    def described(self, meta: DatasetMeta | None) -> CloudSplit:
        """The same clouds as part of the data set that `meta` describes."""
        return CloudSplit(self.store, self.labels, self.names, rows=self.rows, fields=self.fields, meta=meta)

    def subset(self, indices: Sequence[int] | np.ndarray) -> CloudSplit:
        """The clouds at `indices` of this split, in that order, numbered anew from 0."""
        chosen = np.asarray(indices, dtype=np.int64)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise IndexError(f"indices {chosen.min()}..{chosen.max()} for a split of {len(self)} clouds")
        names = [self.names[i] for i in chosen]
        labels = None if self.labels is None else self.labels[chosen]
        return CloudSplit(self.store, labels, names, rows=self.rows[chosen], fields=self.fields, meta=self.meta)

    def take(self, limit: int | None) -> CloudSplit:
        """At most `limit` clouds, spread evenly over the classes (or the set), in their order: for quick runs."""
        if limit is None or limit >= len(self):
            return self
        if limit < 1:
            raise UsageError(f"a limit of {limit} clouds", "at least 1")
        if self.labels is None:
            return self.subset(np.arange(limit) * len(self) // limit)
        rank = np.empty(len(self), dtype=np.int64)  # the how-manieth of its class each cloud is
        for label in np.unique(self.labels):
            of_class = np.flatnonzero(self.labels == label)
            rank[of_class] = np.arange(len(of_class))
        first = np.lexsort((np.arange(len(self)), self.labels, rank))[:limit]
        return self.subset(np.sort(first))

    def with_fields(self, *fields: str) -> CloudSplit:
        """The same clouds, whose samples also carry these per-point arrays."""
        carried = tuple(dict.fromkeys((*self.fields, *fields)))
        return CloudSplit(self.store, self.labels, self.names, rows=self.rows, fields=carried, meta=self.meta)


def joined(splits: Sequence[CloudSplit]) -> CloudSplit:
    """Several splits one after the other, numbered anew; labels when all have them, fields that all carry.

    `meta` stays where all are of one data set; splits of several have none in common.

    Raises:
        ValueError: No splits.
    """
    if not splits:
        raise ValueError("no splits to join")
    first, *rest = splits
    if not rest:
        return first
    labels = [s.labels for s in splits if s.labels is not None]
    stores = list({id(split.store): split.store for split in splits}.values())
    begins = dict(zip(map(id, stores), np.cumsum([0, *map(len, stores)]), strict=False))
    return CloudSplit(
        stores[0] if len(stores) == 1 else ConcatStore(stores),
        np.concatenate(labels) if len(labels) == len(splits) else None,
        [name for split in splits for name in split.names],
        rows=np.concatenate([split.rows + begins[id(split.store)] for split in splits]),
        fields=[name for name in first.fields if all(name in other.fields for other in rest)],
        meta=first.meta if all(other.meta == first.meta for other in rest) else None,
    )


def common_size(*splits: CloudSplit | None) -> int | None:
    """Points per cloud where all clouds of these splits are known to have as many, else None."""
    counts = [split.counts() for split in splits if split is not None and len(split)]
    sizes = {int(n) for known in counts if known is not None for n in np.unique(known)}
    return sizes.pop() if len(sizes) == 1 and all(known is not None for known in counts) else None


@dataclass(frozen=True)
class CloudDataset:
    """A data set with its splits.

    Args:
        meta: What the set says of itself.
        train: Training clouds; may be empty.
        test: Test clouds, or None when the set brings none.
        root: The folder it was read from; None for made data.
        val: Validation clouds that the set brings; None when validation is to be held out of train.

    The parts carry `meta`, so that a part handed on alone still knows its classes.
    """

    meta: DatasetMeta
    train: CloudSplit
    test: CloudSplit | None = None
    root: Path | None = None
    val: CloudSplit | None = None
    _hash: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("train", "test", "val"):
            part: CloudSplit | None = getattr(self, name)
            if part is not None and part.meta is not self.meta:
                object.__setattr__(self, name, part.described(self.meta))

    def content_hash(self) -> str:
        """sha256 over classes, labels and points of all parts: the same on every machine.

        Arrays are hashed as stored (`points_i16` stays int16), files by their bytes; names do not count.
        Per-point arrays (`part`, `normals`) count where they lie in the files of the clouds, and not where they
        are arrays of their own.
        """
        if "sha256" not in self._hash:
            digest = hashlib.sha256("\x1f".join(self.meta.classes).encode())
            for split in (self.train, self.test) if self.val is None else (self.train, self.test, self.val):
                digest.update(b"\x1e" if split is None else f"\x1e{len(split)}".encode())
                if split is not None:
                    digest.update(b"unlabelled" if split.labels is None else little_endian(split.labels).tobytes())
                    for block in split.store.digest(split.rows):
                        digest.update(block)
            self._hash["sha256"] = digest.hexdigest()
        return self._hash["sha256"]

    def hold_out(self, fraction: float, seed: int = 0) -> tuple[CloudSplit, CloudSplit | None]:
        """`(train, validation)`.

        Validation is the set's own part where it brings one, whatever `fraction` says; else it is held out of
        train by `stratified_split`, and None for fraction 0.

        Raises:
            UsageError: There is no training part, or no class with two clouds.
        """
        if len(self.train) == 0:
            raise UsageError(
                f"{self.root or self.meta.name} has no training clouds", "a training part", "Check data.root"
            )
        if self.val is not None:
            return self.train, self.val
        if fraction == 0:
            return self.train, None
        rest, held = self._cut(fraction, seed, "validation")
        return self.train.subset(rest), self.train.subset(held)

    def part(self, name: PartName, val_fraction: float = 0.0, seed: int = 0) -> CloudSplit:
        """One part by name.

        Args:
            name: "train" and "val" as `hold_out(val_fraction, seed)` gives them; "test"; "all" for every cloud:
                train, validation and test one after the other.
            val_fraction: For sets without a validation part of their own.
            seed: Decides which clouds are held out.

        Raises:
            UsageError: The part is not there, or there is no such name.
        """
        if name == "all":
            return joined([p for p in (self.train, self.val, self.test) if p is not None and len(p)] or [self.train])
        if name == "test":
            if self.test is None:
                raise UsageError(f"{self.meta.name} has no test part", "another data set, or split val, train or all")
            return self.test
        if name not in get_args(PartName):
            raise UsageError(f"split {name!r}", f"one of {', '.join(get_args(PartName))}")
        train, val = self.hold_out(val_fraction, seed)
        if name == "train":
            return train
        if val is None:
            raise UsageError("data.val_fraction is 0, so there is no validation part", "split test, train or all")
        return val

    def limited(self, limit: int | None, val_fraction: float, seed: int = 0) -> CloudDataset:
        """At most `limit` clouds of each part, validation being held out before: it is that of the whole set."""
        if limit is None:
            return self
        train, val = self.hold_out(val_fraction, seed) if len(self.train) else (self.train, self.val)
        test = self.test
        return CloudDataset(
            self.meta.with_note(f"at most {limit} clouds of each part"),
            train.take(limit),
            None if test is None else test.take(limit),
            self.root,
            None if val is None else val.take(limit),
        )

    def with_test_fraction(self, fraction: float, seed: int = 0) -> CloudDataset:
        """For a set without a test part: hold `fraction` of the clouds out as one, and say so in the note."""
        if fraction == 0 or self.test is not None:
            return self
        rest, held = self._cut(fraction, seed, "test")
        of = "" if self.train.labels is None else " of each class"
        meta = self.meta.with_note(f"test part: {fraction:.0%} of the clouds{of}, held out here with seed {seed}")
        return CloudDataset(meta, self.train.subset(rest), self.train.subset(held), self.root, self.val)

    def _cut(self, fraction: float, seed: int, purpose: str) -> tuple[Int64, Int64]:
        labels = np.zeros(len(self.train), np.int64) if self.train.labels is None else self.train.labels
        return stratified_split(labels, fraction, seed, purpose)

    @cached_property
    def splits(self) -> dict[str, int]:
        """Number of clouds by split, as a record states them; `val` only where the set brings it."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return {name: len(part) for name, part in parts.items() if part is not None}


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


def label_of(value: Any) -> int | None:
    """A single label, an integer or an array of one, when it can be one (below 2^31), else None."""
    if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "iu":
        value = int(value.reshape(-1)[0])
    return value if type(value) is int and abs(value) < 1 << 31 else None
