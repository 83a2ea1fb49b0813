"""Procedural shapes as an unlabelled data set that is made while it is read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pointlift.core.errors import UsageError, unknown_name
from pointlift.data.catalog import DATASETS, DatasetEntry
from pointlift.data.cloud import Float32
from pointlift.data.dataset import CloudDataset, CloudSplit, DatasetMeta
from pointlift.data.procedural.config import VERSION, ProceduralConfig
from pointlift.data.procedural.make import make_shape

MOST = 10_000_000
"""Shapes in a data set at most: every cloud of a split has a name in memory."""


class ProceduralStore:
    """The first `count` shapes of a series, each made when asked for. Nothing is kept but the last one.

    Args:
        count: How many; costs nothing, so it may be large.
        config: How they are made.
        seed: Which series.
    """

    fields: tuple[str, ...] = ("normals",)

    def __init__(self, count: int, config: ProceduralConfig | None = None, seed: int = 0) -> None:
        if count < 1:
            raise UsageError(f"count={count}", "at least one shape")
        self.config, self.seed, self._count = config or ProceduralConfig(), seed, count
        self._last: tuple[int, np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return self._count

    def _shape(self, i: int) -> tuple[int, np.ndarray, np.ndarray]:
        last = self._last
        if last is None or last[0] != i:
            self._last = last = (i, *make_shape(i, self.config, self.seed))
        return last

    def points(self, i: int) -> Float32:
        """Cloud `i`, float32 (N, 3), in the unit sphere."""
        return self._shape(i)[1].copy()

    def field(self, name: str, i: int) -> np.ndarray:
        """`"normals"` of cloud `i`, float32 (N, 3)."""
        if name not in self.fields:
            raise unknown_name("per-point array", name, self.fields)
        return self._shape(i)[2].copy()

    def counts(self) -> np.ndarray:
        """Points per cloud, int64 (n,)."""
        return np.full(self._count, self.config.points, dtype=np.int64)

    def digest(self, indices: np.ndarray) -> Iterator[bytes]:
        """What determines the shapes, instead of their coordinates, which need not be made for it."""
        yield f"procedural {self.config.describe()} seed={self.seed}".encode()
        yield np.ascontiguousarray(indices, dtype="<i8").tobytes()


def load_procedural(
    root: str | os.PathLike[str] | None = None,
    *,
    count: int = 10_000,
    test: int = 0,
    seed: int = 0,
    points: int = 8192,
    primitives: Sequence[int] | None = None,
    kinds: Sequence[str] | None = None,
    size: Sequence[float] | None = None,
    shear: float | None = None,
    displaced: float | None = None,
    height: Sequence[float] | None = None,
    cut: float | None = None,
    cutters: Sequence[int] | None = None,
    cut_size: Sequence[float] | None = None,
    wire: float | None = None,
    wires: Sequence[int] | None = None,
    wire_size: Sequence[float] | None = None,
    wire_radius: Sequence[float] | None = None,
) -> CloudDataset:
    """Unlabelled procedural shapes; nothing is made before a sample is asked for.

    Args:
        root: Ignored: made data lies nowhere (every data set is opened by `load(root, …)`).
        count: Number of training shapes.
        test: Number of further shapes, the next ones of the series, as a test part; 0 for none.
        seed: Another seed gives other shapes.
        points: Points per cloud.
        primitives: See `ProceduralConfig`, as for the rest, whose defaults are used for None.

    Returns:
        A data set without labels, whose samples can also carry `normals` (`split.with_fields("normals")`).

    Raises:
        UsageError: A number or a range that makes no sense.
    """
    options = {"primitives": primitives, "kinds": kinds, "size": size, "shear": shear, "displaced": displaced,
               "height": height, "cut": cut, "cutters": cutters, "cut_size": cut_size, "wire": wire, "wires": wires,
               "wire_size": wire_size, "wire_radius": wire_radius}  # fmt: skip
    if count < 1 or test < 0 or count + test > MOST:
        raise UsageError(
            f"count={count}, test={test}", f"at least one shape, none or more for testing, {MOST:,} in all"
        )
    config = config_of(points=points, **options)
    store = ProceduralStore(count + test, config, seed)
    return dataset_of(store, config, seed, count, "made while read")


def config_of(**options: Any) -> ProceduralConfig:
    """A configuration from options as recipes and JSON give them: lists for ranges, None for the default.

    Raises:
        ConfigError: A number or a range that makes no sense.
    """
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items() if v is not None}
    return ProceduralConfig(**given)


def dataset_of(store: Any, config: ProceduralConfig, seed: int, train: int, how: str) -> CloudDataset:
    """The data set over a store whose first `train` clouds are for training and the rest for testing."""
    meta = DatasetMeta(
        name="procedural",
        variant=f"v{VERSION}, seed {seed}, {config.points} points, {how}",
        classes=(),
        native_points=config.points,
        note=config.describe(),
    )
    rows = np.arange(len(store))
    test = CloudSplit(store, rows=rows[train:], names=list(map(str, rows[train:]))) if len(store) > train else None
    return CloudDataset(meta, CloudSplit(store, rows=rows[:train]), test)


DATASETS.register(
    "procedural",
    DatasetEntry(
        title="unlabelled procedural shapes for self-supervision: unions, cuts, displacement, wireframes",
        layout="none: nothing is read",
        get="nothing to get; `pointlift prepare procedural DIR --count N` writes them to disk",
        terms="ours (Apache-2.0)",
        load=load_procedural,
        classes=(),
    ),
)
