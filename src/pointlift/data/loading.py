"""`load_dataset`: from a folder (or the name of a generator) to a labelled data set."""

from __future__ import annotations

import inspect
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from pointlift.core.errors import DatasetNotFoundError, UsageError, did_you_mean
from pointlift.data.catalog import DATASETS, DatasetEntry
from pointlift.data.config import Axis, DataConfig
from pointlift.data.dataset import CloudDataset

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")


def registered() -> list[tuple[str, DatasetEntry]]:
    """All layouts and generators by name, in the order `load_dataset` tries them."""
    import pointlift.data.sets
    import pointlift.data.shapes  # noqa: F401  importing these registers them

    return [(name, DATASETS.get(name)) for name in DATASETS]


def load_dataset(
    root: str | os.PathLike[str] | None = None,
    *,
    name: str = "auto",
    variant: str | None = None,
    up_axis: Axis | None = None,
    unit: str | None = None,
    test_fraction: float = 0.0,
    split_seed: int = 0,
    **options: Any,
) -> CloudDataset:
    """Open a labelled data set.

    Args:
        root: The folder. Generators (`name="shapes"`) need none.
        name: A name of `pointlift list datasets`; "auto" takes the first layout that fits the files.
        variant: Overrides what the layout says of its edition, for the record.
        up_axis: The axis that points up, when the files do not say.
        unit: Unit of the coordinates, when the files do not say.
        test_fraction: When the set brings no test part, hold out this fraction of every class as one.
        split_seed: Decides which clouds those are.
        options: What the chosen layout or generator takes besides.

    Raises:
        DatasetNotFoundError: No such folder, or nothing in it that any layout expects.
        DataError: The files are there and wrong; the message names file and row.
        UnknownNameError: `name` is not registered, or an option is not known.
    """
    entries = dict(registered())
    if name != "auto":
        entry = DATASETS.get(name)
        if entry.detect is None and root is not None:
            raise UsageError(
                f"data set {name!r} with the folder {str(root)!r}",
                "no folder: it is made, not read",
                "--data.name auto",
            )
        folder = None if entry.detect is None else _folder(root)
    else:
        folder = _folder(root)
        name, entry = _detected(folder, entries)
    given = {k: v for k, v in {"up_axis": up_axis, "unit": unit}.items() if v is not None} | options
    _check_options(name, entry, given)
    dataset = entry.load(folder, **given)
    if variant is not None:
        dataset = replace(dataset, meta=replace(dataset.meta, variant=variant))
    return dataset.with_test_fraction(test_fraction, split_seed)


def dataset_from_config(config: DataConfig) -> CloudDataset:
    """`load_dataset` with the fields of a `DataConfig`; `limit` takes that many clouds of each split."""
    dataset = load_dataset(
        config.root,
        name=config.name,
        variant=config.variant,
        up_axis=config.up_axis,
        unit=config.unit,
        test_fraction=config.test_fraction,
        split_seed=config.split_seed,
        **config.options,
    )
    if config.limit is None:
        return dataset
    test = None if dataset.test is None else dataset.test.take(config.limit)
    return CloudDataset(dataset.meta, dataset.train.take(config.limit), test, dataset.root)


def _folder(root: str | os.PathLike[str] | None) -> Path:
    if root is None:
        raise UsageError("no folder for the data set", "data.root, the folder that holds it", "Pass --data.root DIR")
    folder = Path(root).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        archive = folder.name.lower().endswith(ARCHIVES)
        raise DatasetNotFoundError(
            f"{folder} is {'an archive' if archive else 'a file'}", "the folder that holds the data set",
            "Unpack it and give the folder" if archive else f"Give the folder: {folder.parent}",
        )  # fmt: skip
    raise DatasetNotFoundError(
        f"no folder {str(folder)!r} (looked at {folder.resolve()})", "the folder that holds the data set",
        "Check the path given as data.root",
    )  # fmt: skip


def _detected(folder: Path, entries: dict[str, DatasetEntry]) -> tuple[str, DatasetEntry]:
    for name, entry in entries.items():
        if entry.detect is not None and entry.detect(folder):
            return name, entry
    raise _nothing_found(folder, entries)


def _nothing_found(folder: Path, entries: dict[str, DatasetEntry]) -> DatasetNotFoundError:
    """One screen: where we looked, what is there, what each layout expects, an archive to unpack."""
    inside = sorted(p.name + ("/" if p.is_dir() else "") for p in folder.iterdir())
    there = (
        ", ".join(inside[:8]) + (f", and {len(inside) - 8} more" if len(inside) > 8 else "") if inside else "nothing"
    )
    layouts = "".join(f"\n  {n}: {e.layout}" for n, e in entries.items() if e.detect is not None)
    archives = [n for n in inside if n.lower().endswith(ARCHIVES)]
    fix = f"Unpack {archives[0]} first" if archives else "`pointlift list datasets` says how to get each"
    return DatasetNotFoundError(f"no data set in {folder.resolve()} (it holds {there})", f"one of{layouts}", fix)


def _check_options(name: str, entry: DatasetEntry, given: dict[str, Any]) -> None:
    parameters = inspect.signature(entry.load).parameters
    known = [p for p in parameters.values() if p.kind is p.KEYWORD_ONLY]
    for key in given:
        if key not in parameters:
            names = [p.name for p in known]
            raise UsageError(
                f"data set {name!r} has no option {key!r}", f"one of {', '.join(names)}" if names else "none",
                did_you_mean(key, names).strip(),
            )  # fmt: skip
