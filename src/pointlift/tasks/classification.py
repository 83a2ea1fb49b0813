"""Classification: what is learned and how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pointlift.core.errors import DataError, UsageError, did_you_mean, first_few
from pointlift.data.config import DataConfig
from pointlift.data.dataset import CloudSplit, DatasetMeta
from pointlift.models.base import PointModel
from pointlift.tasks.metrics import confusion_matrix, mean_class_accuracy, overall_accuracy
from pointlift.tasks.predictions import write_predictions
from pointlift.tasks.task import Task, score_rows


def classification_losses(
    label_smoothing: float = 0.0,
) -> Callable[[nn.Module, Mapping[str, Tensor], float], dict[str, Tensor]]:
    """Cross entropy for `engine.fit`, with the training accuracy logged beside it."""

    def losses(model: nn.Module, batch: Mapping[str, Tensor], progress: float) -> dict[str, Tensor]:
        logits = model(batch)
        loss = F.cross_entropy(logits.float(), batch["label"], label_smoothing=label_smoothing)
        with torch.no_grad():
            accuracy = (logits.argmax(1) == batch["label"]).float().mean()
        return {"loss": loss, "accuracy": accuracy}

    return losses


@dataclass(frozen=True)
class Scores:
    """Logits of a split with their labels.

    Attributes:
        logits: (N, C) float32, in the order of `index`.
        label: (N,) int64.
        index: (N,) int64, positions in the split, rising.
    """

    logits: NDArray[np.float32]
    label: NDArray[np.int64]
    index: NDArray[np.int64]

    def metrics(self) -> dict[str, float]:
        """`overall_accuracy`, `mean_class_accuracy` and `loss`."""
        matrix = confusion_matrix(self.logits.argmax(1), self.label, self.logits.shape[1])
        loss = F.cross_entropy(torch.from_numpy(self.logits), torch.from_numpy(self.label))
        return {
            "overall_accuracy": overall_accuracy(matrix),
            "mean_class_accuracy": mean_class_accuracy(matrix),
            "loss": float(loss),
        }


def score(model: nn.Module, loader: Iterable[Mapping[str, Any]]) -> Scores:
    """Logits for every cloud of a loader, gathered from all processes and sorted by index."""
    return Scores(*score_rows(model, loader, lambda batch: (model(batch).float(), batch["label"])))


@dataclass(frozen=True)
class Classification(Task):
    """A class per cloud: cross entropy, overall and mean class accuracy."""

    outputs: tuple[str, ...]
    label_smoothing: float = 0.0
    name: ClassVar[str] = "classification"
    metric: ClassVar[str] = "overall_accuracy"
    votes: ClassVar[bool] = True

    def model_options(self, arch: str, options: Mapping[str, Any]) -> dict[str, Any]:
        if options.get("head") == "parts":
            raise UsageError("model.options.head parts for a classifier", "another head", "--task part_segmentation")
        return dict(options)

    def fit_head(self, model: PointModel, source: str) -> None:
        if model.config.num_classes == 0:
            model.reset_classifier(len(self.outputs))
        elif model.config.num_classes != len(self.outputs):
            raise UsageError(
                f"the model has {model.config.num_classes} classes, {source} has {len(self.outputs)}",
                "as many",
                f"create_model(…, num_classes={len(self.outputs)})",
            )

    def name_outputs(self, model: PointModel) -> None:
        model.classes, model.categories = self.outputs, None

    def aligned(self, split: CloudSplit, meta: DatasetMeta, model: PointModel) -> CloudSplit:
        return with_model_classes(split, meta, model)

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor], progress: float) -> dict[str, Tensor]:
        return classification_losses(self.label_smoothing)(model, batch, progress)

    def score(self, model: nn.Module, loader: Iterable[Mapping[str, Any]]) -> Scores:
        return score(model, loader)

    def write_predictions(
        self, out: Path, scores: Scores, split: CloudSplit, meta: DatasetMeta, data: DataConfig, *, keep_clouds: int
    ) -> Path:
        return write_predictions(out, scores, split, meta, data, keep_clouds=keep_clouds)


def with_model_classes(split: CloudSplit, meta: DatasetMeta, model: PointModel) -> CloudSplit:
    """The split with its labels numbered as the model's classes.

    Raises:
        UsageError: The clouds have no labels.
        DataError: Classes that the model does not know; for a model without class names, another number of them.
    """
    labels, wanted = split.class_labels(), model.classes
    if wanted == meta.classes:
        return split
    if wanted is None:
        if len(meta.classes) != model.config.num_classes:
            raise DataError(
                f"{meta.name} has {len(meta.classes)} classes, the model {model.config.num_classes} without names",
                "the data set that it was trained on",
            )
        return split
    unknown = [c for c in meta.classes if c not in wanted]
    if unknown:
        near = did_you_mean(unknown[0], wanted).strip()
        raise DataError(
            f"{meta.name} has classes that the model does not know: {first_few(unknown, 5)}",
            f"classes among {first_few(wanted, 8)}",
            near or "Fine-tune the model on this data set first",
        )
    renumber = np.array([wanted.index(c) for c in meta.classes])
    return split.relabelled(renumber[labels], wanted)
