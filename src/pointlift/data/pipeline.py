"""From a sample as stored to a sample as the model wants it: normalise, resample, augment."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from pointlift.data import transforms
from pointlift.data.config import AugmentConfig, Axis, DataConfig, ResampleConfig
from pointlift.data.dataset import DatasetMeta, Sample
from pointlift.data.resample import Stage, fixed_rows, needs_fps, resample_stage, thin_rows

PER_POINT = ("xyz", "feats", "normals", "colors", "intensity", "part", "semantic", "instance", "mask")
SharedRng = Callable[[], np.random.Generator]
log = logging.getLogger(__name__)


class CloudTransform:
    """sample -> sample with `points` points: `prepare` is the same every time, `draw` is random.

    Args:
        points: Points per cloud that come out.
        stage: "train" and "vote": a random subset of a pool of farthest-point samples, then augmentation;
            "test": farthest-point samples, no randomness.
        normalize: As in `DataConfig`.
        normalize_subset: As in `DataConfig`.
        resample: As in `DataConfig`.
        augment: As in `DataConfig`; None changes nothing.
        up_axis: The axis that `augment.rotate` turns about.
        native_points: Points per cloud of the data set, when all alike: used to say what cannot apply.

    Attributes:
        notes: What could not be done as the protocol says; for the record.
    """

    def __init__(
        self,
        points: int,
        stage: Stage,
        *,
        normalize: str = "unit_sphere",
        normalize_subset: bool = False,
        resample: ResampleConfig | None = None,
        augment: AugmentConfig | None = None,
        up_axis: Axis | None = None,
        native_points: int | None = None,
    ) -> None:
        self.points, self.stage, self.normalize = points, stage, normalize
        self.normalize_subset = normalize_subset
        self.resample = resample or ResampleConfig()
        self.augment = (augment or AugmentConfig.none()) if stage != "test" else AugmentConfig.none()
        self.up_axis, self._native = up_axis, native_points
        if self.augment.rotate:
            transforms.rotation(0.0, up_axis)  # says now that the axis is unknown, not in the first batch
        self.notes = self._find_notes(native_points)
        for note in self.notes:
            _warn_once(note)

    @property
    def random(self) -> bool:
        """Whether a cloud comes out otherwise from one time to the next, as far as is known before it is read."""
        drawn = self.augment != AugmentConfig.none() or self._native != self.points
        return self.stage != "test" and drawn

    def _find_notes(self, native: int | None) -> tuple[str, ...]:
        if native is None:
            return ()
        if self.stage == "test":
            stage = resample_stage(native, self.points, "all")
        else:
            stage = resample_stage(native, self.points, self.resample.pool)
        if self.stage == "vote" and native == self.points < stage.wanted:
            return stage.note, "each vote reads all points of a cloud: votes differ by augmentation only"
        return (stage.note,) if stage.note else ()

    def prepare(self, sample: Sample) -> Sample:
        """The deterministic part, before augmentation: normalise all points, thin, farthest-point samples."""
        xyz = transforms.normalize(sample["xyz"], self.normalize)
        prepared = {**sample, "xyz": xyz}
        rows = thin_rows(len(xyz), self.resample.thin_above)
        if rows is not None:
            prepared = take_rows(prepared, rows)
        rows = fixed_rows(prepared["xyz"], self.stage, self.points, self.resample)
        prepared = prepared if rows is None else take_rows(prepared, rows)
        return self._as_subset(prepared) if self.stage == "test" else prepared

    def _as_subset(self, sample: Sample) -> Sample:
        """What resampling left, normalised by itself where that is asked for."""
        if not self.normalize_subset:
            return sample
        return {**sample, "xyz": transforms.normalize(sample["xyz"], self.normalize)}

    def costly(self, num_points: int) -> bool:
        """Is `prepare` on a cloud of this size worth remembering (it runs farthest-point sampling)?"""
        return needs_fps(min(num_points, self.resample.thin_above), self.stage, self.points, self.resample)

    def draw(self, sample: Sample, rng: np.random.Generator, shared: SharedRng | None = None) -> Sample:
        """The random part of "train" and "vote", on a prepared sample.

        Args:
            sample: From `prepare`; not changed.
            rng: The stream of this sample.
            shared: Starts the stream that all samples of a batch share; needed by the `shared` options.
        """
        if self.stage == "test":
            return sample
        subset_rng = shared() if self.resample.shared_subset and shared else rng
        available = len(sample["xyz"])
        if available != self.points or self.augment.shuffle:
            rows = transforms.subset_rows(subset_rng, available, self.points, shuffle=self.augment.shuffle)
            sample = take_rows(sample, rows)
        return self._augmented(self._as_subset(sample), rng, shared)

    def _augmented(self, sample: Sample, rng: np.random.Generator, shared: SharedRng | None) -> Sample:
        config, xyz, normals = self.augment, sample["xyz"], sample.get("normals")
        if config.tilt:
            matrix = transforms.random_tilt(rng, config.tilt)
            xyz = xyz @ matrix
            normals = None if normals is None else normals @ matrix
        if config.rotate:
            angle_rng = shared() if config.rotate_shared and shared else rng
            matrix = transforms.rotation(transforms.random_angle(angle_rng, config.rotate), self.up_axis)
            xyz = xyz @ matrix
            normals = None if normals is None else normals @ matrix
        if config.scale != (1.0, 1.0) or config.shift:
            factors = transforms.random_scale(rng, config.scale, anisotropic=config.anisotropic)
            xyz = transforms.scale_and_shift(xyz, factors, transforms.random_shift(rng, config.shift))
            normals = None if normals is None else transforms.scale_normals(normals, factors)
        if config.jitter:
            xyz = transforms.jitter(xyz, rng, config.jitter, config.jitter_clip)
        changed = {**sample, "xyz": xyz} if normals is None else {**sample, "xyz": xyz, "normals": normals}
        if config.drop:
            changed = take_rows(changed, transforms.dropped_rows(rng, len(xyz), config.drop))
        return changed

    def __call__(
        self, sample: Sample, rng: np.random.Generator | None = None, shared: SharedRng | None = None
    ) -> Sample:
        """`draw(prepare(sample))`; "test" needs no generator."""
        if rng is None and self.stage != "test":
            raise ValueError(f"stage {self.stage!r} is random: pass a numpy generator")
        prepared = self.prepare(sample)
        return prepared if rng is None else self.draw(prepared, rng, shared)

    def describe(self) -> dict[str, Any]:
        """For the record: every setting, and `notes` on what could not be done as the protocol says."""
        return {
            "stage": self.stage,
            "points": self.points,
            "normalize": self.normalize,
            "normalize_subset": self.normalize_subset,
            "up_axis": self.up_axis,
            "resample": dataclasses.asdict(self.resample),
            "augment": None if self.augment == AugmentConfig.none() else dataclasses.asdict(self.augment),
            "notes": list(self.notes),
        }


def build_transform(config: DataConfig, meta: DatasetMeta, stage: Stage) -> CloudTransform:
    """The transform that `config` asks for, on clouds as `meta` describes them."""
    return CloudTransform(
        config.points,
        stage,
        normalize=config.normalize,
        normalize_subset=config.normalize_subset,
        resample=config.resample,
        augment=config.augment,
        up_axis=config.up_axis or meta.up_axis,
        native_points=meta.native_points,
    )


def take_rows(sample: Sample, rows: np.ndarray) -> Sample:
    """The sample with these rows of every per-point array."""
    return {key: value.take(rows, axis=0) if key in PER_POINT else value for key, value in sample.items()}


@functools.cache
def _warn_once(note: str) -> None:
    log.warning(note)
