"""From the points that a cloud has to the points that a model wants (data-protocols, section 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pointlift.core.errors import DataError
from pointlift.core.seeds import generator
from pointlift.data.cloud import Float32
from pointlift.data.config import ResampleConfig

Stage = Literal["train", "test", "vote"]

POOL = {1024: 1200, 2048: 2400, 4096: 4800, 8192: 8192}


def pool_size(points: int) -> int:
    """P(N): how many farthest-point samples a random N-subset is drawn from; other N keep the ratio 75/64."""
    return POOL.get(points, round(points * 75 / 64))


@dataclass(frozen=True)
class ResampleStage:
    """What resampling does to a cloud.

    Args:
        pool: P' = min(P, available): how many points the subset is drawn from.
        wanted: P.
        note: Why the step is less than the protocol says; empty when it is not.
    """

    pool: int
    wanted: int
    note: str = ""


def wanted_pool(native: int, points: int, pool: Literal["table", "all"] | int = "table") -> int:
    """P: the pool that `pool` asks for, whether or not a cloud of `native` points has as many."""
    if pool == "all":
        return max(native, points)
    return max(pool_size(points) if pool == "table" else pool, points)


def resample_stage(native: int, points: int, pool: Literal["table", "all"] | int = "table") -> ResampleStage:
    """The pool of training and voting for clouds of `native` points and a model that takes `points`."""
    wanted = wanted_pool(native, points, pool)
    note = ""
    if native < points:
        note = f"{native:,} native points, {points:,} wanted: all points are used and some are repeated"
    elif native < wanted:
        note = (
            f"clouds have {native:,} points where the protocol draws from {wanted:,} farthest-point samples: "
            "all are used"
        )
    return ResampleStage(min(wanted, native), wanted, note)


def thin_rows(num_points: int, limit: int) -> np.ndarray | None:
    """A fixed random choice of `limit` rows in stored order for a larger cloud, else None."""
    if num_points <= limit:
        return None
    return np.sort(generator("thin", num_points, limit).choice(num_points, limit, replace=False))


def farthest_rows(xyz: Float32, num: int, *, skip_near_origin: bool = False) -> np.ndarray:
    """int64 (num,): farthest-point samples of one cloud from row 0; any prefix is such a sample itself."""
    import torch

    from pointlift.ops import farthest_point_sample

    batch = torch.from_numpy(np.ascontiguousarray(xyz))[None]
    return farthest_point_sample(batch, num, start=0, skip_near_origin=skip_near_origin)[0].numpy()


def needs_fps(available: int, stage: Stage, points: int, config: ResampleConfig) -> bool:
    """Does the deterministic part of resampling run farthest-point sampling on a cloud of this size?

    Sampling all points only reorders them, unless the near-origin rule drops some.
    """
    if stage == "test":
        if available < points:
            return config.test == "fps" and points % available > 0
        return config.test == "fps" and (available > points or bool(config.skip_near_origin))
    if config.pool == "all" or available < points:
        return False
    return wanted_pool(available, points, config.pool) < available or bool(config.skip_near_origin)


def fixed_rows(xyz: Float32, stage: Stage, points: int, config: ResampleConfig) -> np.ndarray | None:
    """The deterministic part: rows of the pool (train, vote) or of the result (test); None keeps all.

    Raises:
        DataError: The cloud has too few points and `config.pad` is "error".
    """
    available = len(xyz)
    if available < points and config.pad == "error":
        raise DataError(
            f"a cloud of {available} points", f"at least {points}",
            "Set data.resample.pad to repeat, or data.points to fewer",
        )  # fmt: skip
    fps = needs_fps(available, stage, points, config)
    if stage != "test":
        if not fps:
            return None
        pool = min(wanted_pool(available, points, config.pool), available)
        return farthest_rows(xyz, pool, skip_near_origin=bool(config.skip_near_origin))
    if config.test == "random":
        return generator("random", available, points).integers(available, size=points)
    if available < points:
        copies, rest = divmod(points, available)
        extra = farthest_rows(xyz, rest) if fps else np.arange(rest)
        return np.concatenate([np.tile(np.arange(available), copies), extra])
    if fps:
        return farthest_rows(xyz, points, skip_near_origin=bool(config.skip_near_origin))
    return np.arange(points) if available > points else None
