"""Which clouds a few-shot fold is made of, drawn from any labelled data set by the rules of the released generator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pointlift.core.errors import UsageError
from pointlift.core.seeds import generator
from pointlift.data.dataset import CloudDataset, CloudSplit, Int64


@dataclass(frozen=True)
class DrawnPart:
    """One part of a fold, in random order: positions (n,) in the part of the whole set, and new labels (n,)."""

    positions: Int64
    labels: Int64


@dataclass(frozen=True)
class DrawnFold:
    """A fold; `originals[k]` is the class of the whole set behind the new label k."""

    originals: tuple[int, ...]
    parts: dict[str, DrawnPart]


def draw_folds(
    dataset: CloudDataset, way: int, shot: int, folds: int = 10, seed: int = 0, *, test_shot: int = 20
) -> Iterator[DrawnFold]:
    """Per fold: `way` classes, `shot` clouds of each from the training part and `test_shot` from the test part.

    Classes with `shot` training clouds or fewer, or with fewer than `test_shot` test clouds, do not take part. Fold f
    follows from (seed, way, shot, f) and the labels alone.

    Args:
        dataset: A labelled set with a test part.
        way: Classes per fold.
        shot: Training clouds per class.
        folds: How many.
        seed: Another seed gives other folds.
        test_shot: Test clouds per class.

    Raises:
        UsageError: No test part, no labels, or too few classes with enough clouds.
    """
    if min(way, shot, folds, test_shot) < 1:
        raise UsageError(f"way {way}, shot {shot}, {folds} folds, test_shot {test_shot}", "at least 1 of each")
    if dataset.test is None:
        raise UsageError(
            f"{dataset.meta.name} has no test part", "one to draw test clouds from", "--data.test_fraction"
        )
    pools = _pools(dataset, dataset.test, shot, test_shot)
    if len(pools) < way:
        raise UsageError(
            f"{len(pools)} classes of {dataset.meta.name} have more than {shot} training and {test_shot} test clouds",
            f"at least {way}",
            "Lower way, shot or test_shot",
        )
    counts = {"train": shot, "test": test_shot}
    return (_draw(pools, way, counts, generator(seed, "few-shot", way, shot, f)) for f in range(folds))


def fold_dataset(dataset: CloudDataset, fold: DrawnFold, number: int) -> CloudDataset:
    """A drawn fold as a data set over the clouds of the whole one; nothing is copied."""
    classes = tuple(dataset.meta.classes[k] for k in fold.originals)
    way = len(classes)
    shot = len(fold.parts["train"].labels) // way
    meta = replace(
        dataset.meta,
        name=f"{dataset.meta.name}_few_shot",
        variant=f"{way}-way {shot}-shot, fold {number}",
        classes=classes,
    )
    whole = {"train": dataset.train, "test": dataset.part("test")}
    train, test = (
        whole[name].subset(part.positions).relabelled(part.labels, classes) for name, part in fold.parts.items()
    )
    return CloudDataset(meta, train, test, dataset.root)


def _pools(dataset: CloudDataset, test: CloudSplit, shot: int, test_shot: int) -> dict[int, dict[str, Int64]]:
    """Class -> positions of its clouds by part, for the classes that have enough in both."""
    splits = {"train": dataset.train, "test": test}
    pools = {}
    for label in range(len(dataset.meta.classes)):
        pool = {part: np.flatnonzero(split.class_labels() == label) for part, split in splits.items()}
        if len(pool["train"]) > shot and len(pool["test"]) >= test_shot:
            pools[label] = pool
    return pools


def _draw(pools: dict[int, dict[str, Int64]], way: int, counts: dict[str, int], rng: np.random.Generator) -> DrawnFold:
    originals = tuple([*pools][i] for i in rng.permutation(len(pools))[:way])
    drawn: dict[str, list[Int64]] = {part: [] for part in counts}
    for original in originals:
        for part, count in counts.items():
            pool = pools[original][part]
            drawn[part].append(pool[rng.permutation(len(pool))[:count]])
    parts = {}
    for part, count in counts.items():
        order = rng.permutation(way * count)
        parts[part] = DrawnPart(np.concatenate(drawn[part])[order], np.repeat(np.arange(way), count)[order])
    return DrawnFold(originals, parts)
