"""A part for every point of a cloud of one's own, whose category is known."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pointlift.core.errors import PointLiftError, UsageError, did_you_mean, first_few
from pointlift.data.cloud import Float32, PointCloud
from pointlift.data.files import read
from pointlift.data.pipeline import CloudTransform
from pointlift.models.base import PointModel
from pointlift.tasks.inputs import ModelInput, Source, as_cloud, cloud_transform, expanded, model_batch, small_notes
from pointlift.tasks.part_segmentation import PartSegmentation
from pointlift.tasks.predict import Prediction, predict
from pointlift.tasks.tasks import task_of

NEAREST = 3  # points that a point takes its answer from


@dataclass(frozen=True)
class PartPrediction:
    """The part of every point of one cloud, or why it could not be read.

    Attributes:
        category: What the cloud was said to be.
        part: (N,) int64 part numbers, in the order of the cloud's points; empty after an error.
        certainty: (N,) float32, the probability of that part among the category's.
        parts: Number -> name of the category's parts.
        path: The file, when the cloud came from one.
        error: Why there is no answer, or None.
        notes: What should be known of the answer.
    """

    category: str
    part: NDArray[np.int64]
    certainty: Float32
    parts: dict[int, str] = field(default_factory=dict)
    path: Path | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The category, as pages of labels show it."""
        return self.category

    @property
    def probability(self) -> float:
        """Mean certainty of the points."""
        return float(self.certainty.mean()) if len(self.certainty) else 0.0

    @property
    def counts(self) -> dict[str, int]:
        """Points of every part of the category, by name."""
        return {name: int((self.part == number).sum()) for number, name in self.parts.items()}

    @property
    def probabilities(self) -> dict[str, float]:
        """Share of the points of every part, by name; empty after an error."""
        return {name: count / len(self.part) for name, count in self.counts.items()} if len(self.part) else {}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: points of every part, not every point."""
        answered = self.error is None
        return {
            "path": None if self.path is None else str(self.path),
            "category": self.category,
            "points": len(self.part) if answered else None,
            "parts": self.counts if answered else None,
            "certainty": self.probability if answered else None,
            "error": self.error,
            "notes": list(self.notes),
        }


def answer(model: PointModel, source: Source, category: str | None = None) -> Prediction | PartPrediction:
    """What a model says of one cloud: its class, or with a head for parts the part of every point.

    Args:
        category: What the cloud is; for models of parts only, which need it where they know several categories.

    Raises:
        FileFormatError: The file cannot be used.
        UsageError: The model has no head, or `category` is missing, unknown or too much.
    """
    if model.config.head == "parts":
        return segment(model, source, category)
    if category is not None:
        raise UsageError(f"category {category!r} for {model.arch}, which labels whole clouds", "a model of parts")
    return predict(model, source)


def segment(model: PointModel, source: Source, category: str | None = None) -> PartPrediction:
    """The part of every point of one cloud; see `segment_many`.

    Raises:
        FileFormatError: The file cannot be used.
        UsageError: `category` is missing or unknown, or the model has no head for parts.
    """
    asked = _Asked.of(model, category)
    return asked.said(read(source) if isinstance(source, str | os.PathLike) else as_cloud(source))


def segment_many(
    model: PointModel, sources: Iterable[Source], category: str | None = None
) -> Iterator[tuple[PartPrediction, PointCloud | None]]:
    """The part of every point of many clouds, with the cloud; folders and patterns stand for their files.

    The model reads as many points as it learned from. Every point then gets the mean of the probabilities of the
    three nearest of these, weighted by 1 / squared distance, and with it the most probable part of the category.
    A source that cannot be read yields a `PartPrediction` with `error` set and no cloud, and the others go on.

    Args:
        model: A model with a head for parts.
        sources: Files, clouds, coordinates (N, 3), folders, patterns.
        category: What the clouds are; None where the model knows one category only.

    Raises:
        UsageError: `category` is missing or unknown, or the model has no head for parts.
    """
    return _each(_Asked.of(model, category), sources)


def _each(asked: _Asked, sources: Iterable[Source]) -> Iterator[tuple[PartPrediction, PointCloud | None]]:
    for source in sources:
        for found in expanded(source):
            path = found if isinstance(found, Path) else found.path if not isinstance(found, np.ndarray) else None
            try:
                if isinstance(found, ModelInput):
                    raise found.error or RuntimeError("an input without a cloud")
                cloud = as_cloud(found)
                yield asked.said(cloud), cloud
            except PointLiftError as error:
                yield asked.failed(path, str(error)), None


@dataclass(frozen=True)
class _Asked:
    """A model and the category of the clouds that it is asked about."""

    model: PointModel
    task: PartSegmentation
    category: str
    transform: CloudTransform

    @classmethod
    def of(cls, model: PointModel, category: str | None) -> _Asked:
        task = task_of(model) if model.config.num_classes else None
        if not isinstance(task, PartSegmentation):
            raise UsageError(f"{model.arch} has no head for parts", "a model fine-tuned for part segmentation")
        known = [name for name, parts in task.categories.items() if parts]  # others had no cloud to learn from
        if category is None and len(known) > 1:
            raise UsageError(
                f"no category, and the model knows {len(known)}: {', '.join(known)}", "one of them", "--category NAME"
            )
        category = known[0] if category is None else category
        if category not in known:
            near = next((name for name in known if name.lower() == category.lower()), None)
            hint = f"Did you mean {near!r}?" if near else did_you_mean(category, known).strip()
            raise UsageError(f"category {category!r}", f"one of {first_few(known, 60)}", hint)
        return cls(model.eval(), task, category, cloud_transform(model))

    @property
    def numbers(self) -> list[int]:
        """The category's parts."""
        return list(self.task.categories[self.category])

    def said(self, cloud: PointCloud) -> PartPrediction:
        """What the model says of every point."""
        # Which points the model reads travels with them, as any array of points does.
        sample = self.transform({"xyz": cloud.xyz, "instance": np.arange(len(cloud))})
        xyz, rows = sample["xyz"], sample["instance"]
        numbers = np.array(self.numbers, np.int64)
        probabilities = carried(cloud.xyz, cloud.xyz[rows], self._probabilities(xyz))
        best = probabilities.argmax(1)
        names = {int(n): self.task.outputs[n] for n in numbers}
        certainty = probabilities[np.arange(len(best)), best].astype(np.float32)
        return PartPrediction(
            self.category, numbers[best], certainty, names, cloud.path, notes=small_notes(cloud, xyz, self.model)
        )

    def _probabilities(self, xyz: Float32) -> np.ndarray:
        """(P, parts of the category) of the points that the model reads."""
        batch = model_batch(self.model, xyz[None])
        batch["category"] = torch.full_like(
            batch["xyz"][:, 0, 0], list(self.task.categories).index(self.category)
        ).long()
        with torch.inference_mode():
            logits = self.model(batch)[0].float()
        return logits[:, self.numbers].softmax(1).cpu().numpy()

    def failed(self, path: Path | None, error: str) -> PartPrediction:
        """No answer, and why."""
        nothing = np.empty(0)
        return PartPrediction(
            self.category, nothing.astype(np.int64), nothing.astype(np.float32), path=path, error=error
        )


def carried(xyz: Float32, known: Float32, values: np.ndarray) -> np.ndarray:
    """Values (P, C) at points `known` (P, 3) carried to points (N, 3): (N, C).

    Every point takes the mean of its three nearest, weighted by 1 / squared distance; at a known point that is its
    own value.
    """
    places, first = np.unique(known, axis=0, return_index=True)  # repeated points would fill all three places
    count = min(NEAREST, len(places))
    distance, nearest = cKDTree(places).query(xyz, k=count)
    distance, nearest = distance.reshape(len(xyz), count), nearest.reshape(len(xyz), count)
    weight = 1.0 / np.maximum(distance**2, 1e-12 * max(float(np.ptp(places, axis=0).max()) ** 2, 1e-12))
    weight /= weight.sum(1, keepdims=True)
    return np.einsum("nk,nkc->nc", weight, values[first][nearest])
