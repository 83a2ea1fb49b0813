"""The registry of data-set layouts: `pointlift list datasets` prints it, `load_dataset` tries it in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pointlift.core.registry import Registry
from pointlift.data.config import Axis
from pointlift.data.dataset import CloudDataset


@dataclass(frozen=True)
class DatasetEntry:
    """One layout (or one generator) of labelled clouds.

    Args:
        title: What it is, in one line.
        layout: The files expected under `data.root`, in one line.
        get: How to come by it.
        terms: Licence or terms of use.
        load: `load(root, **options) -> CloudDataset`; a generator ignores `root`.
        detect: `detect(root)`: do the files look like this layout? Cheap: names only. None for a generator.
        classes: Class names, when the layout fixes them.
        up_axis: The axis that points up, when the layout fixes it.
        native_points: Points per cloud, when the layout fixes it.
    """

    title: str
    layout: str
    get: str
    terms: str
    load: Callable[..., CloudDataset]
    detect: Callable[[Path], bool] | None = None
    classes: tuple[str, ...] | None = None
    up_axis: Axis | None = None
    native_points: int | None = None


DATASETS: Registry[DatasetEntry] = Registry("data set", "`pointlift list datasets`")
