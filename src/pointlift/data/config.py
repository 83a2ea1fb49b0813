"""Configuration of the data room: frozen dataclasses, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Axis = Literal["x", "y", "z"]


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of training and voting clouds, in this order; a neutral value turns a change off.

    The default is that of the Point-MAE family: one factor per axis, then a shift.

    Args:
        rotate: Rotation about the up axis, uniform within plus or minus this many degrees (180: full circle).
        tilt: Rotation about a random axis, uniform within plus or minus this many degrees: for shapes that share no
            pose. It comes before `rotate`.
        rotate_shared: One angle for the whole batch instead of one per cloud (as some released codes do).
        scale: Smallest and largest factor.
        anisotropic: One factor per axis instead of one for all.
        shift: Translation per axis, uniform within plus or minus this, in units of the normalised cloud.
        jitter: Standard deviation of Gaussian noise per coordinate.
        jitter_clip: Noise is cut at plus or minus this.
        drop: Up to this fraction of the points is replaced by the first one.
        shuffle: Put the points in random order.
    """

    rotate: float = 0.0
    tilt: float = 0.0
    rotate_shared: bool = False
    scale: tuple[float, float] = (2 / 3, 3 / 2)
    anisotropic: bool = True
    shift: float = 0.2
    jitter: float = 0.0
    jitter_clip: float = 0.05
    drop: float = 0.0
    shuffle: bool = True

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale {self.scale}: expected 0 < smallest <= largest factor")
        if not 0 <= self.rotate <= 180:
            raise ValueError(f"rotate {self.rotate}: expected degrees from 0 to 180")
        if not 0 <= self.tilt <= 180:
            raise ValueError(f"tilt {self.tilt}: expected degrees from 0 to 180")
        for name in ("shift", "jitter", "jitter_clip"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)}: expected 0 or more")
        if not 0 <= self.drop < 1:
            raise ValueError(f"drop {self.drop}: expected a fraction from 0 to below 1")

    @classmethod
    def none(cls) -> AugmentConfig:
        """Nothing is changed, not even the order of the points."""
        return cls(scale=(1.0, 1.0), shift=0.0, shuffle=False)


@dataclass(frozen=True)
class ResampleConfig:
    """How clouds with more or fewer points than wanted get the wanted number.

    Args:
        pool: In training and voting a random subset is drawn from this many farthest-point samples: "table"
            for the customary pool (1,024 from 1,200, 2,048 from 2,400, ...), "all" for all points of the cloud,
            or a number.
        test: Plain evaluation takes farthest-point samples ("fps"), the first points as stored ("first"), or a random
            choice in which points may come twice ("random", as the released part segmentation does; here the choice
            is the same every time).
        pad: A cloud with too few points has some repeated ("repeat") or is refused ("error").
        skip_near_origin: Farthest-point sampling passes over points within 0.0316 of the origin, as the
            released CUDA code does.
        shared_subset: One random subset for the whole batch instead of one per cloud, as the released runners
            do.
        thin_above: Larger clouds are first reduced to this many points by a fixed random choice.
    """

    pool: Literal["table", "all"] | int = "table"
    test: Literal["fps", "first", "random"] = "fps"
    pad: Literal["repeat", "error"] = "repeat"
    skip_near_origin: bool | None = None
    shared_subset: bool = False
    thin_above: int = 200_000

    def __post_init__(self) -> None:
        if isinstance(self.pool, int) and self.pool < 1:
            raise ValueError(f"pool {self.pool}: expected 'table', 'all' or a number of points")
        if self.thin_above < 1024:
            raise ValueError(f"thin_above {self.thin_above}: expected at least 1024")


@dataclass(frozen=True)
class DataConfig:
    """Which clouds, and what happens to them on the way to the model.

    Args:
        name: A name of `pointlift list datasets`, or "auto" to go by the files.
        root: The folder of the data set; a generator needs none.
        variant: Which edition of a set that has several (`OBJ_BG` of scanobjectnn); else what the record says of it.
        options: What the layout or generator takes besides.
        points: Points per cloud given to the model.
        up_axis: The axis that points up, when the files do not say.
        unit: Unit of the coordinates, when the files do not say.
        normalize: "unit_sphere" (centroid to the origin, largest radius 1), "center" (centroid only), "none".
        normalize_subset: Normalise once more what is left after resampling: the released loaders of pre-training centre
            and scale the random subset that they drew, not the whole cloud.
        val_fraction: Fraction of every training class that is held out for validation.
        test_fraction: The same for a test part, when the set brings none.
        split_seed: Decides which clouds are held out.
        limit: At most this many clouds of each part, spread over the classes: for quick runs.
        batch_size: Clouds per batch and process.
        workers: Loader processes; 0 reads in the main process. The batches are the same for any number.
        augment: Random changes in training and voting.
        resample: How clouds get `points` points.
    """

    name: str = "auto"
    root: str | None = None
    variant: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    points: int = 1024
    up_axis: Axis | None = None
    unit: str | None = None
    normalize: Literal["unit_sphere", "center", "none"] = "unit_sphere"
    normalize_subset: bool = False
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    split_seed: int = 0
    limit: int | None = None
    batch_size: int = 32
    workers: int = 0
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    resample: ResampleConfig = field(default_factory=ResampleConfig)

    def __post_init__(self) -> None:
        for name in ("points", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected at least 1")
        if isinstance(self.resample.pool, int) and self.resample.pool < self.points:
            raise ValueError(f"resample.pool {self.resample.pool}: expected at least points ({self.points})")
        if self.workers < 0:
            raise ValueError(f"workers {self.workers}: expected 0 or more")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit {self.limit}: expected at least 1")
        for name in ("val_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected a fraction from 0 to below 1")
