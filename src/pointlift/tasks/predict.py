"""From clouds to labels: what a model file says about preprocessing, applied the same way every time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch

from pointlift.core.config import build, merge
from pointlift.core.errors import DataError, UsageError, did_you_mean
from pointlift.data.cloud import PointCloud
from pointlift.data.config import DataConfig
from pointlift.data.files import find_clouds, read
from pointlift.data.pipeline import CloudTransform
from pointlift.models.base import PointModel
from pointlift.models.features import Pooling

Source = str | os.PathLike[str] | PointCloud | np.ndarray


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one cloud.

    Attributes:
        label: The class name (its number as text where the model does not know names).
        index: The class number.
        probability: Softmax probability of the label.
        probabilities: Of every class, by name.
        path: The file, when the cloud came from one.
    """

    label: str
    index: int
    probability: float
    probabilities: dict[str, float]
    path: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "path": None if self.path is None else str(self.path),
            "label": self.label,
            "index": self.index,
            "probability": self.probability,
            "probabilities": self.probabilities,
        }


def preprocess_of(config: DataConfig) -> dict[str, Any]:
    """The part of a data configuration that must travel with the weights."""
    resample = config.resample
    return {
        "points": config.points,
        "normalize": config.normalize,
        "up_axis": config.up_axis,
        "resample": {
            "test": resample.test,
            "pad": resample.pad,
            "skip_near_origin": resample.skip_near_origin,
            "thin_above": resample.thin_above,
        },
    }


def data_config_of(model: PointModel, overrides: Mapping[str, Any] | None = None) -> DataConfig:
    """The data configuration that fits a model, with overrides laid on it."""
    # The up axis is that of the clouds the model learned from; others have their own.
    values: dict[str, Any] = {k: v for k, v in model.preprocess.items() if v is not None and k != "up_axis"}
    return build(DataConfig, merge(values, overrides or {}), where="data")


def cloud_transform(model: PointModel) -> CloudTransform:
    """What every cloud goes through before `model` in prediction."""
    config = data_config_of(model)
    return CloudTransform(config.points, "test", normalize=config.normalize, resample=config.resample)


def predict(model: PointModel, source: Source) -> Prediction:
    """The label of one cloud.

    Args:
        model: A classifier in memory (`pl.load`, `Run.model`).
        source: A file, a cloud, or coordinates (N, 3).

    Raises:
        FileFormatError: The file cannot be used.
        DataError: The cloud has fewer points than the model makes groups of.
        UsageError: The model has no head.
    """
    cloud = read(source) if isinstance(source, str | os.PathLike) else source
    return next(predict_many(model, [cloud]))


def predict_many(model: PointModel, sources: Iterable[Source], *, batch_size: int = 32) -> Iterator[Prediction]:
    """`predict` for many clouds, in batches; folders and patterns stand for their files."""
    if model.config.num_classes == 0:
        raise UsageError(
            f"{model.arch} has no classifier head",
            "a fine-tuned model",
            "`pointlift features` gives its features",
        )
    names = model.classes or tuple(str(i) for i in range(model.config.num_classes))
    for clouds, batch in _batches(model, sources, batch_size):
        with torch.inference_mode():
            probabilities = model(batch).float().softmax(1).cpu().numpy()
        for cloud, row in zip(clouds, probabilities, strict=True):
            best = int(row.argmax())
            by_name = {name: float(p) for name, p in zip(names, row, strict=True)}
            yield Prediction(names[best], best, float(row[best]), by_name, cloud.path)


def features_many(
    model: PointModel, sources: Iterable[Source], *, pooling: str | None = None, batch_size: int = 32
) -> Iterator[tuple[PointCloud, np.ndarray]]:
    """Pooled features (C,) of every cloud, with the cloud they belong to.

    Args:
        pooling: One of `models.features.Pooling`; None is the model's own.
    """
    how = pooling or model.config.pooling
    if how not in get_args(Pooling):
        raise UsageError(
            f"pooling {how!r}", f"one of {', '.join(get_args(Pooling))}", did_you_mean(how, get_args(Pooling))
        )
    for clouds, batch in _batches(model, sources, batch_size):
        with torch.inference_mode():
            pooled = model.forward_features(batch).pool(cast(Pooling, how)).float().cpu().numpy()
        yield from zip(clouds, pooled, strict=True)


def _batches(
    model: PointModel, sources: Iterable[Source], batch_size: int
) -> Iterator[tuple[list[PointCloud], dict[str, torch.Tensor]]]:
    model.eval()
    transform = cloud_transform(model)
    device = next(model.parameters()).device
    clouds = _clouds(sources)
    while chunk := list(islice(clouds, batch_size)):
        for cloud in chunk:
            _check_size(cloud, model)
        xyz = np.stack([transform({"xyz": cloud.xyz})["xyz"] for cloud in chunk])
        yield chunk, {"xyz": torch.from_numpy(xyz).to(device)}


def _check_size(cloud: PointCloud, model: PointModel) -> None:
    if len(cloud) < model.min_points:
        raise DataError(
            f"{cloud.path or 'the cloud'} has {len(cloud)} points",
            f"at least {model.min_points}, as many as {model.arch} makes groups of",
            "Use a denser scan, or a model with fewer groups",
        )


def _clouds(sources: Iterable[Source]) -> Iterator[PointCloud]:
    for source in sources:
        if isinstance(source, PointCloud):
            yield source
        elif isinstance(source, np.ndarray):
            yield PointCloud.from_array(source, "array")
        else:
            yield from (read(path) for path in find_clouds([source]))
