"""Few-shot folds drawn from any labelled data set, by the rules of the released generator, with a seed."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pointlift.core.errors import UsageError
from pointlift.data.dataset import CloudDataset, CloudSplit, DatasetMeta
from pointlift.data.sets.few_shot import Item
from pointlift.data.sets.few_shot_draw import DrawnFold, draw_folds
from pointlift.data.sets.pickle_writing import pickled_array, pickled_int, pickled_text
from pointlift.engine.files import write_atomic

Fold = dict[str, list[Item]]


def make_few_shot(
    dataset: CloudDataset,
    way: int,
    shot: int,
    folds: int = 10,
    seed: int = 0,
    out: str | os.PathLike[str] = "ModelNetFewshot",
    *,
    test_shot: int = 20,
    pickles: bool = False,
) -> Path:
    """Write `out/<way>way_<shot>shot/0.npz`, `1.npz`, …: what `load_dataset(out, way=…, shot=…, fold=…)` opens.

    Which clouds a fold has says `draw_folds`; each list is in random order.

    Args:
        dataset: A labelled set with a test part; normals are kept where it has them.
        way: Classes per fold.
        shot: Training clouds per class.
        folds: How many.
        seed: Another seed gives other folds.
        out: The folder; made when it is not there.
        test_shot: Test clouds per class.
        pickles: Also write `0.pkl`, … as the released loaders read them. They carry no names of classes: a reader
            takes the classes for those of ModelNet40.

    Returns:
        The folder of the folds.

    Raises:
        UsageError: No test part, no labels, too few classes with enough clouds, or folds that are there already.
    """
    drawn = draw_folds(dataset, way, shot, folds, seed, test_shot=test_shot)
    folder = Path(out).expanduser() / f"{way}way_{shot}shot"
    there = [p.name for f in range(folds) for p in (folder / f"{f}.npz", folder / f"{f}.pkl") if p.exists()]
    if there:
        raise UsageError(f"{folder} holds {there[0]} already", "a folder without folds")
    folder.mkdir(parents=True, exist_ok=True)
    for f, rows in enumerate(drawn):
        fold = _with_points(dataset, rows)
        if pickles:
            write_atomic(folder / f"{f}.pkl", _pickled(fold))
        write_atomic(folder / f"{f}.npz", _archived(fold, dataset.meta))
    return folder


def _with_points(dataset: CloudDataset, fold: DrawnFold) -> Fold:
    splits = {"train": dataset.train, "test": dataset.part("test")}
    return {
        name: [
            (_table(splits[name], int(i)), int(k), fold.originals[k])
            for i, k in zip(part.positions, part.labels, strict=True)
        ]
        for name, part in fold.parts.items()
    }


def _table(split: CloudSplit, i: int) -> np.ndarray:
    """float32 (N, 6) with normals where the set has them, else (N, 3)."""
    row = int(split.rows[i])
    columns = [split.store.points(row)]
    if "normals" in split.store.fields:
        columns.append(split.store.field("normals", row))
    return np.concatenate(columns, axis=1, dtype=np.float32)


def _archived(fold: Fold, meta: DatasetMeta) -> bytes:
    arrays: dict[str, np.ndarray] = {
        "classes": np.array(meta.classes),
        "name": np.array([meta.name]),
        "up_axis": np.array([meta.up_axis or ""]),
    }
    for part, items in fold.items():
        arrays[f"{part}_points"] = np.concatenate([cloud for cloud, _, _ in items])
        arrays[f"{part}_offset"] = np.cumsum([0, *(len(cloud) for cloud, _, _ in items)])
        arrays[f"{part}_label"] = np.array([label for _, label, _ in items], np.int64)
        arrays[f"{part}_original"] = np.array([original for _, _, original in items], np.int64)
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]  # zip entries carry a fixed date: the same bytes every time
    return stream.getvalue()


def _pickled(fold: Fold) -> Iterator[bytes]:
    """`{"train": [(points, label, class), …], "test": […]}` as the released generator dumps it."""
    yield b"\x80\x03}"
    for part, items in fold.items():
        yield pickled_text(part) + b"]"
        for cloud, label, original in items:
            yield from pickled_array(cloud)
            yield pickled_int(label) + pickled_int(original) + b"\x87a"
        yield b"s"
    yield b"."
