"""The shapes as a labelled data set: cloud i of a split depends on (seed, split, i) and the configuration alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pointlift.core.errors import UsageError, unknown_name
from pointlift.core.seeds import generator
from pointlift.data.catalog import DATASETS, DatasetEntry
from pointlift.data.cloud import Float32, PointCloud
from pointlift.data.dataset import CloudDataset, CloudSplit, DatasetMeta
from pointlift.data.shapes.catalog import CLASSES
from pointlift.data.shapes.make import VERSION, Shape, ShapeConfig, make_shape

CACHE_BYTES = 1 << 30


class ShapeStore:
    """Shapes made when asked for, and kept up to `cache_bytes`; labels go round the classes.

    Args:
        count: How many shapes.
        config: How they are made.
        seed: Seed of the data set.
        split: Name of the split; another name gives other shapes.
        cache_bytes: How much memory made shapes may take; 0 makes each anew.
    """

    fields = ("part", "normals")

    def __init__(
        self, count: int, config: ShapeConfig, seed: int, split: str, *, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.config, self.seed, self.split = config, seed, split
        self.labels = np.arange(count, dtype=np.int64) % len(config.class_names)
        self._cache: dict[int, Shape] = {}
        self._room = cache_bytes

    def __len__(self) -> int:
        return len(self.labels)

    def shape(self, i: int) -> Shape:
        """Shape `i`; the arrays are shared between calls, copy them before you change them."""
        made = self._cache.get(i)
        if made is None:
            made = make_shape(int(self.labels[i]), generator(self.seed, "shapes", self.split, i), config=self.config)
            size = made.xyz.nbytes + made.part.nbytes + made.normals.nbytes
            if size <= self._room:
                self._room -= size
                self._cache[i] = made
        return made

    def points(self, i: int) -> Float32:
        """Cloud `i`, float32 (N, 3)."""
        return self.shape(i).xyz.copy()

    def field(self, name: str, i: int) -> np.ndarray:
        """`"part"` int64 (N,) or `"normals"` float32 (N, 3) of cloud `i`."""
        if name not in self.fields:
            raise unknown_name("per-point array", name, self.fields)
        return getattr(self.shape(i), name).copy()

    def counts(self) -> np.ndarray:
        """Points per cloud, int64 (n,)."""
        return np.full(len(self), self.config.points, dtype=np.int64)

    def digest(self, indices: np.ndarray) -> Iterator[bytes]:
        """What determines the shapes, instead of their coordinates, which need not be made for it."""
        yield f"shapes {self.config.describe()} seed={self.seed} split={self.split}".encode()
        yield np.ascontiguousarray(indices, dtype="<i8").tobytes()


def load_shapes(
    root: str | os.PathLike[str] | None = None,
    *,
    train: int = 2000,
    test: int = 800,
    points: int = 1024,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    pose: str = "up",
    level: float | None = None,
    stretch: float | None = None,
    warp: float | None = None,
    noise: float | None = None,
    density: float | None = None,
    occlusion: float | None = None,
) -> CloudDataset:
    """The labelled procedural shapes; nothing is made before a sample is asked for.

    Args:
        root: Ignored: made data lies nowhere (every data set is opened by `load(root, …)`).
        train: Number of training shapes.
        test: Number of test shapes, other ones; 0 for none.
        points: Points per cloud.
        seed: Another seed gives other shapes.
        classes: Names to use, in the order of their labels; all when omitted.
        pose: `"up"`, `"so3"` or `"none"`: see `ShapeConfig`, as for the rest, whose defaults are used for None.

    Returns:
        A data set whose samples can also carry `part` and `normals` (`split.with_fields("part")`).

    Raises:
        UsageError: A number, a pose or a class name that makes no sense.
    """
    if train < 0 or test < 0 or train + test == 0:
        raise UsageError(f"train={train}, test={test}", "numbers of shapes, at least one in all")
    chosen = {"level": level, "stretch": stretch, "warp": warp, "noise": noise, "density": density,
              "occlusion": occlusion}  # fmt: skip
    config = ShapeConfig(
        points=points,
        classes=None if classes is None else tuple(classes),
        pose=pose,
        **{k: v for k, v in chosen.items() if v is not None},
    )
    meta = DatasetMeta(
        name="shapes",
        variant=f"procedural v{VERSION}, seed {seed}, {points} points, pose {pose}",
        classes=config.class_names,
        up_axis=None if pose == "so3" else "z",
        native_points=points,
        unit=None,
        note=config.describe(),
    )
    return CloudDataset(
        meta, _split(train, config, seed, "train"), _split(test, config, seed, "test") if test else None
    )


def _split(count: int, config: ShapeConfig, seed: int, split: str) -> CloudSplit:
    store = ShapeStore(count, config, seed, split)
    names = [f"{config.class_names[label]}-{split}-{i:05d}" for i, label in enumerate(store.labels)]
    return CloudSplit(store, store.labels, names)


def write_shapes(
    root: str | os.PathLike[str],
    *,
    train: int = 160,
    test: int = 64,
    ending: str = ".ply",
    seed: int = 0,
    config: ShapeConfig | None = None,
) -> Path:
    """Write shapes as class folders, `root/{train,test}/<class>/<name><ending>`: a folder to try things on.

    Args:
        root: A folder that is not there yet, or is empty.
        train: Files under `train/`, in turn over the classes.
        test: Files under `test/`; 0 for none.
        ending: Any ending that `write` knows: `.npy`, `.npz`, `.ply`, `.xyz`, `.txt`.
        seed: Seed of the shapes: the same ones as `load_shapes(seed=…)` gives.
        config: How they are made.

    Returns:
        `root` as a path.

    Raises:
        UsageError: `root` holds something already, or the ending is unknown.
    """
    from pointlift.data.files import FORMATS, write

    FORMATS.get(ending)
    folder = Path(root).expanduser()
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} holds something already", "a new or empty folder")
    for split, count in (("train", train), ("test", test)):
        clouds = _split(count, config or ShapeConfig(), seed, split)
        for i, name in enumerate(clouds.names):
            path = folder / split / name.split("-")[0] / f"{name}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(PointCloud(clouds[i]["xyz"]), path)
    return folder


DATASETS.register(
    "shapes",
    DatasetEntry(
        title=f"labelled procedural shapes: {len(CLASSES)} everyday classes with parts, made on the fly",
        layout="none: nothing is read",
        get="nothing to get",
        terms="ours (Apache-2.0)",
        load=load_shapes,
        classes=CLASSES,
        up_axis="z",
    ),
)
