"""The registry of data-set layouts: `pointlift list datasets` prints it, `load_dataset` tries it in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pointlift.core.errors import DatasetNotFoundError
from pointlift.core.registry import Registry
from pointlift.data.config import Axis
from pointlift.data.dataset import CloudDataset


@dataclass(frozen=True)
class DatasetEntry:
    """One layout (or one generator) of clouds.

    Args:
        title: What it is, in one line.
        layout: The files expected under `data.root`, in phrases split by semicolons.
        get: How to come by it.
        terms: Licence or terms of use.
        load: `load(root, **options) -> CloudDataset`; a generator ignores `root`.
        detect: `detect(root)`: do the files look like this layout? Cheap: names only. None for a generator.
        classes: Class names, when the layout fixes them.
        up_axis: The axis that points up, when the layout fixes it.
        native_points: Points per cloud, when the layout fixes it.
        official: The layout of one published set, looked for before the general ones, also below its customary
            parent folder.
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
    official: bool = False

    def missing(self, given: str) -> DatasetNotFoundError:
        """One screen: `given` (what was looked for, and where), which files are expected, how to get them, terms."""
        lines = "".join(f"\n  {line}" for line in self.layout.split("; "))
        return DatasetNotFoundError(
            f"{given} ({self.title})", f"{lines}", f"\nHow to get it: {self.get}.\nTerms: {self.terms}"
        )


DATASETS: Registry[DatasetEntry] = Registry("data set", "`pointlift list datasets`")
