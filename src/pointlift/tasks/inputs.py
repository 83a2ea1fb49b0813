"""From files and arrays to what a model reads, and through it in batches: one bad file never stops the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pointlift.core.config import build, merge
from pointlift.core.errors import PointLiftError
from pointlift.data.batches import to_packed
from pointlift.data.cloud import Float32, PointCloud
from pointlift.data.config import DataConfig
from pointlift.data.files import find_clouds, read
from pointlift.data.pipeline import CloudTransform
from pointlift.models.base import PointModel

Source = str | os.PathLike[str] | PointCloud | np.ndarray


@dataclass(frozen=True)
class ModelInput:
    """One cloud as a model reads it, or why it could not be read.

    Attributes:
        xyz: (P, 3) float32, the model's number of points; None after an error.
        path: The file, when the cloud came from one.
        notes: What should be known of the answer, in whole sentences.
        error: Why there is no cloud.
    """

    xyz: Float32 | None
    path: Path | None = None
    notes: tuple[str, ...] = ()
    error: PointLiftError | None = None


def data_config_of(model: PointModel, overrides: Mapping[str, Any] | None = None) -> DataConfig:
    """The data configuration that fits a model, with overrides laid on it."""
    # The up axis is that of the clouds the model learned from; others have their own.
    values: dict[str, Any] = {k: v for k, v in model.preprocess.items() if v is not None and k != "up_axis"}
    return build(DataConfig, merge(values, overrides or {}), where="data")


def cloud_transform(model: PointModel) -> CloudTransform:
    """What every cloud goes through before `model` in prediction."""
    config = data_config_of(model)
    return CloudTransform(config.points, "test", normalize=config.normalize, resample=config.resample)


def model_inputs(model: PointModel, sources: Iterable[Source]) -> Iterator[ModelInput]:
    """Clouds ready for `model`, one after the other; only the model's number of points of each stays in memory.

    Args:
        sources: Files, clouds, coordinates (N, 3); folders and patterns stand for their files.
    """
    transform = cloud_transform(model)
    for source in sources:
        for found in expanded(source):
            yield found if isinstance(found, ModelInput) else _prepared(found, transform, model)


def expanded(source: Source) -> Sequence[PointCloud | np.ndarray | Path | ModelInput]:
    """The clouds and files that one source stands for, or why there are none."""
    if isinstance(source, PointCloud | np.ndarray):
        return [source]
    try:
        return find_clouds([source])
    except PointLiftError as error:
        return [ModelInput(None, Path(source), error=error)]


def _prepared(source: PointCloud | np.ndarray | Path, transform: CloudTransform, model: PointModel) -> ModelInput:
    path = source if isinstance(source, Path) else getattr(source, "path", None)
    try:
        cloud = as_cloud(source)
        xyz = transform({"xyz": cloud.xyz})["xyz"]
    except PointLiftError as error:
        return ModelInput(None, path, error=error)
    return ModelInput(xyz, path, small_notes(cloud, xyz, model))


def as_cloud(source: Source) -> PointCloud:
    """One file, cloud or array (N, 3) as a cloud.

    Raises:
        FileFormatError: It cannot be used.
    """
    if isinstance(source, PointCloud):
        return source
    return PointCloud.from_array(source, "array") if isinstance(source, np.ndarray) else read(source)


def small_notes(cloud: PointCloud, xyz: Float32, model: PointModel) -> tuple[str, ...]:
    """What makes an answer on `cloud`, read as `xyz`, worth little."""
    notes = []
    if len(cloud) < model.min_points:
        count = "1 point" if len(cloud) == 1 else f"{len(cloud)} points"
        notes.append(
            f"The cloud has {count}; the model makes groups of {model.min_points}. "
            "Points are repeated and the answer says little."
        )
    elif np.ptp(xyz, axis=0).max() == 0:
        notes.append("All points are at one place: the cloud has no shape, and the answer says nothing.")
    return tuple(notes)


def through_model(
    model: PointModel,
    inputs: Iterable[ModelInput],
    compute: Callable[[Mapping[str, Tensor]], Tensor],
    *,
    batch_size: int = 32,
) -> Iterator[tuple[ModelInput, np.ndarray | None]]:
    """Each input with the float32 row that `compute` gives for it, in order; None for those with an error.

    Args:
        compute: From a batch to (B, ...); runs in evaluation mode and without gradients.
    """
    model.eval()
    stream = iter(inputs)
    while chunk := list(islice(stream, batch_size)):
        clouds = [item.xyz for item in chunk if item.xyz is not None]
        rows: Iterator[np.ndarray] = iter(())
        if clouds:
            with torch.inference_mode():
                rows = iter(compute(model_batch(model, np.stack(clouds))).float().cpu().numpy())
        for item in chunk:
            yield item, None if item.xyz is None else next(rows)


def model_batch(model: PointModel, xyz: Float32) -> dict[str, Tensor]:
    """Clouds (B, N, 3) as the batch that `model` reads, on its device."""
    batch = {"xyz": torch.from_numpy(xyz).to(next(model.parameters()).device)}
    return batch if model.layout == "dense" else to_packed(batch)
