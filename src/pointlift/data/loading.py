"""`load_dataset`: from a folder (or the name of a generator) to a data set."""

from __future__ import annotations

import inspect
import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

from pointlift.core.config import shown
from pointlift.core.errors import DataError, DatasetNotFoundError, UsageError, did_you_mean
from pointlift.data.catalog import DATASETS, DatasetEntry
from pointlift.data.config import Axis, DataConfig
from pointlift.data.dataset import CloudDataset

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")


def registered() -> list[tuple[str, DatasetEntry]]:
    """All layouts and generators by name, in the order `load_dataset` tries them."""
    import pointlift.data.procedural
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
    """Open a data set.

    Args:
        root: The folder. Generators (`name="shapes"`) need none.
        name: A name of `pointlift list datasets`; "auto" goes by the files.
        variant: Which edition, for sets that have several (`OBJ_BG` of scanobjectnn); for others it overrides what
            the layout says of its edition, for the record.
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
    if up_axis not in (None, *get_args(Axis)):
        raise UsageError(f"up_axis {up_axis!r}", "x, y or z")
    entries = dict(registered())
    try:
        if name == "auto":
            folder: Path | None = _folder(root)
            name, entry = _detected(_folder(root), entries)
        else:
            entry = DATASETS.get(name)
            folder = _folder_of(name, entry, root)
    except PermissionError as error:
        raise DataError(f"{error.filename} may not be read", "a folder that this user may read") from error
    given = {k: v for k, v in {"up_axis": up_axis, "unit": unit}.items() if v is not None} | options
    editions = "variant" in inspect.signature(entry.load).parameters
    if variant is not None and editions:
        given["variant"] = variant
    _check_options(name, entry, given)
    dataset = entry.load(folder, **given)
    meta = dataset.meta
    if variant is not None and not editions:
        meta = replace(meta, variant=variant)
    if dataset.val is not None:
        meta = meta.with_note("validation part: the set's own")
    return replace(dataset, meta=meta).with_test_fraction(test_fraction, split_seed)


def layout_of(root: str | os.PathLike[str]) -> str | None:
    """The name of the layout in a folder, as `load_dataset(root)` would find it; None where there is none.

    Raises:
        UsageError: Several published sets are there.
    """
    try:
        return _detected(_folder(root), dict(registered()))[0]
    except DatasetNotFoundError:
        return None


def is_layout(name: str, root: str | os.PathLike[str]) -> bool:
    """Whether the folder looks like the data set called `name`; generators have no folder.

    Raises:
        UnknownNameError: `name` is not registered.
        DataError: The folder may not be read.
    """
    entry, folder = dict(registered()).get(name) or DATASETS.get(name), Path(root).expanduser()
    try:
        return entry.detect is not None and folder.is_dir() and entry.detect(folder)
    except PermissionError as error:
        raise DataError(f"{error.filename} may not be read", "a folder that this user may read") from error


def dataset_from_config(config: DataConfig) -> CloudDataset:
    """`load_dataset` with the fields of a `DataConfig`; `limit` takes that many clouds of each part."""
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
    return dataset.limited(config.limit, config.val_fraction, config.split_seed)


def _folder_of(name: str, entry: DatasetEntry, root: str | os.PathLike[str] | None) -> Path | None:
    """The folder for a data set asked for by name; None for generators."""
    if entry.detect is None:
        if root is not None:
            raise UsageError(
                f"data set {name!r} with the folder {str(root)!r}",
                "no folder: it is made, not read",
                "--data.name auto",
            )
        return None
    if root is not None and not Path(root).expanduser().exists() and not _packed(Path(root).expanduser()):
        raise entry.missing(f"no folder {str(root)!r} with {name}")
    folder = _folder(root)
    if not entry.detect(folder):
        error = entry.missing(f"no {name} in {folder.resolve()} (it holds {_contents(folder)})")
        archives = _archives(folder)
        raise DatasetNotFoundError(
            error.given, error.expected, f"\nUnpack {archives[0]} first" if archives else error.fix
        )
    return folder


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
    packed = _packed(folder)
    raise DatasetNotFoundError(
        f"no folder {str(folder)!r} (looked at {folder.resolve()})", "the folder that holds the data set",
        f"Unpack {packed.name} first" if packed else "Check the path given as data.root",
    )  # fmt: skip


def _packed(folder: Path) -> Path | None:
    """The archive of this name beside a folder that is not there."""
    return next((p for ending in ARCHIVES if (p := folder.with_name(folder.name + ending)).is_file()), None)


def _detected(folder: Path, entries: dict[str, DatasetEntry]) -> tuple[str, DatasetEntry]:
    """The published set that is there, else the first general layout that fits."""
    published = [n for n, e in entries.items() if e.official and e.detect is not None and e.detect(folder)]
    if len(published) > 1:
        raise UsageError(
            f"{folder} holds several data sets: {', '.join(published)}", "one of them",
            f"Choose by name (--data.name {published[0]}), or give its own folder",
        )  # fmt: skip
    if published:
        return published[0], entries[published[0]]
    for name, entry in entries.items():
        if not entry.official and entry.detect is not None and entry.detect(folder):
            return name, entry
    raise _nothing_found(folder, entries)


def _contents(folder: Path) -> str:
    inside = sorted(p.name + ("/" if p.is_dir() else "") for p in itertools.islice(folder.iterdir(), 1000))
    return ", ".join(inside[:8]) + (f", and {len(inside) - 8} more" if len(inside) > 8 else "") if inside else "nothing"


def _archives(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.lower().endswith(ARCHIVES))


def _nothing_found(folder: Path, entries: dict[str, DatasetEntry]) -> DatasetNotFoundError:
    """One screen: where we looked, what is there, what each layout expects, an archive to unpack."""
    layouts = "".join(
        f"\n  {name}: {entry.layout if not entry.official else entry.title}"
        for name, entry in entries.items()
        if entry.detect is not None
    )
    archives = _archives(folder)
    fix = f"\nUnpack {archives[0]} first" if archives else "\n`pointlift list datasets` says which files each has"
    return DatasetNotFoundError(
        f"no data set in {folder.resolve()} (it holds {_contents(folder)})", f"one of{layouts}", fix
    )


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
    hints = get_type_hints(entry.load)
    for key, value in given.items():
        _check_kind(name, key, value, hints[key])


def _check_kind(name: str, key: str, value: Any, kind: Any) -> None:
    """An option is of the kind that the loader's signature says; whether it makes sense is the loader's to say."""
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(kind).validate_python(value.item() if isinstance(value, np.generic) else value, strict=True)
    except ValidationError as error:
        wanted = error.errors(include_url=False)[0]["msg"].removeprefix("Input should be ")
        raise UsageError(f"option {key} of data set {name!r} is {shown(value)}", wanted) from error
