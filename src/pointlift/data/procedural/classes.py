"""Classes made by formula: each is a procedural shape, its members are that shape with other proportions.

Labels come with the making, so a classifier can be pre-trained without anybody's data: formula-driven supervision
(Kataoka et al., ACCV 2020; for points Yamada et al., PC-FractalDB, CVPR 2022, with fractals instead of solids).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from pointlift.core.errors import UsageError, unknown_name
from pointlift.core.seeds import generator
from pointlift.data.catalog import DATASETS, DatasetEntry
from pointlift.data.cloud import Float32
from pointlift.data.dataset import CloudDataset, CloudSplit, DatasetMeta
from pointlift.data.procedural.config import VERSION, ProceduralConfig
from pointlift.data.procedural.make import ATTEMPTS, cloud_of, degenerate, stream
from pointlift.data.procedural.program import draw_program
from pointlift.data.procedural.store import MOST
from pointlift.data.shapes.draw import Draw

CACHE_BYTES = 1 << 30
_PROBE = 256  # points that show whether a class's own shape is degenerate


class VariedDraw(Draw):
    """The choices of a class, with amounts moved by a member: kinds, counts and directions stay, sizes change.

    Args:
        of_class: The stream that the class's own shape is drawn from.
        of_member: Moves the amounts.
        variation: How far: by up to half of this share of the range, either way, reflected at its ends.
    """

    __slots__ = ("_member", "_variation")

    def __init__(self, of_class: np.random.Generator, of_member: np.random.Generator, variation: float) -> None:
        super().__init__(of_class)
        self._member, self._variation = Draw(of_member), variation

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high], near the class's."""
        share = abs(self.unit() + self._variation * (self._member.unit() - 0.5))
        return low + (high - low) * (2 - share if share > 1 else share)


def make_member(
    label: int, member: int, config: ProceduralConfig, *, seed: int = 0, variation: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """A member of a class: shape `label` of the series of `seed`, with other proportions.

    Returns:
        xyz (N, 3) float32 in the unit sphere and normals (N, 3), as of `make_shape`.

    Raises:
        DataError: The configuration gives hardly anything but degenerate shapes.
    """
    own = _attempt(label, config, seed)
    for attempt in range(ATTEMPTS):
        rng = generator(seed, "procedural member", label, member, attempt)
        draw = VariedDraw(stream(seed, label, own), rng, variation)
        made = cloud_of(draw_program(config, draw), config.points, rng)
        if made is not None:
            return made
    raise degenerate(label, seed)


@lru_cache(maxsize=1 << 16)
def _attempt(label: int, config: ProceduralConfig, seed: int) -> int:
    """The first draw of a class's own shape that can be looked at: all members are made from it."""
    for attempt in range(ATTEMPTS):
        rng = stream(seed, label, attempt)
        if cloud_of(draw_program(config, Draw(rng)), _PROBE, rng) is not None:
            return attempt
    raise degenerate(label, seed)


class ClassStore:
    """Members of classes in turn, made when asked for and kept up to `CACHE_BYTES`.

    Args:
        count: How many clouds; cloud i is of class i modulo `classes`.
        classes: How many classes.
        config: How shapes are made.
        seed: Which series.
        variation: How much members of a class differ.
    """

    fields = ("normals",)

    def __init__(self, count: int, classes: int, config: ProceduralConfig, seed: int, variation: float) -> None:
        self.labels = np.arange(count, dtype=np.int64) % classes
        self.classes, self.config, self.seed, self.variation = classes, config, seed, variation
        self._cache: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._room = CACHE_BYTES

    def __len__(self) -> int:
        return len(self.labels)

    def _made(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        made = self._cache.get(i)
        if made is None:
            label, member = i % self.classes, i // self.classes
            made = make_member(label, member, self.config, seed=self.seed, variation=self.variation)
            size = made[0].nbytes + made[1].nbytes
            if size <= self._room:
                self._room -= size
                self._cache[i] = made
        return made

    def points(self, i: int) -> Float32:
        """Cloud `i`, float32 (N, 3), in the unit sphere."""
        return self._made(i)[0].copy()

    def field(self, name: str, i: int) -> np.ndarray:
        """`"normals"` of cloud `i`, float32 (N, 3)."""
        if name not in self.fields:
            raise unknown_name("per-point array", name, self.fields)
        return self._made(i)[1].copy()

    def counts(self) -> np.ndarray:
        """Points per cloud, int64 (n,)."""
        return np.full(len(self), self.config.points, dtype=np.int64)

    def digest(self, indices: np.ndarray) -> Iterator[bytes]:
        """What determines the shapes, instead of their coordinates, which need not be made for it."""
        said = f"seed={self.seed} classes={self.classes} variation={self.variation}"
        yield f"procedural_classes {self.config.describe()} {said}".encode()
        yield np.ascontiguousarray(indices, dtype="<i8").tobytes()


def load_procedural_classes(
    root: str | os.PathLike[str] | None = None,
    *,
    classes: int = 256,
    count: int = 16_384,
    test: int = 1024,
    variation: float = 0.5,
    points: int = 2048,
    seed: int = 0,
) -> CloudDataset:
    """Labelled procedural shapes; nothing is made before a sample is asked for.

    Args:
        root: Ignored: made data lies nowhere.
        classes: How many; class k is shape k of the series of `seed`.
        count: Training clouds, the classes in turn.
        test: Further members as a test part; 0 for none.
        variation: How much members of a class differ, 0 (not at all) to 1.
        points: Points per cloud.
        seed: Another seed gives other classes.

    Raises:
        UsageError: A number that makes no sense.
    """
    if classes < 2 or count < classes or test < 0 or count + test > MOST or not 0 <= variation <= 1:
        raise UsageError(
            f"classes={classes}, count={count}, test={test}, variation={variation}",
            f"two classes or more, a cloud for each, {MOST:,} in all, variation from 0 to 1",
        )
    config = ProceduralConfig(points=points)
    store = ClassStore(count + test, classes, config, seed, variation)
    meta = DatasetMeta(
        name="procedural_classes",
        variant=f"v{VERSION}, seed {seed}, {classes} classes, variation {variation}, {points} points",
        classes=tuple(f"class_{k:0{len(str(classes - 1))}d}" for k in range(classes)),
        native_points=points,
        note=config.describe(),
    )
    rows = np.arange(len(store))

    def part(of: np.ndarray) -> CloudSplit:
        return CloudSplit(store, store.labels[of], rows=of, names=list(map(str, of)))

    return CloudDataset(meta, part(rows[:count]), part(rows[count:]) if test else None)


DATASETS.register(
    "procedural_classes",
    DatasetEntry(
        title="labelled procedural shapes: each class is one shape, its members have other proportions",
        layout="none: nothing is read",
        get="nothing to get",
        terms="ours (Apache-2.0)",
        load=load_procedural_classes,
        classes=(),
    ),
)
