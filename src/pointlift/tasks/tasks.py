"""Which task a configuration asks for, and which one a model does."""

from __future__ import annotations

from pointlift.core.errors import CheckpointError, UsageError
from pointlift.data.dataset import DatasetMeta
from pointlift.models.base import PointModel
from pointlift.tasks.classification import Classification
from pointlift.tasks.config import FinetuneConfig
from pointlift.tasks.part_segmentation import PartSegmentation
from pointlift.tasks.task import Task


def task_for(config: FinetuneConfig, meta: DatasetMeta) -> Task:
    """What a run learns on the data set that `meta` describes.

    Raises:
        UsageError: Part segmentation on a set that does not say which parts its categories have.
    """
    if config.task == "part_segmentation":
        if not meta.point_classes or not meta.parts_of:
            raise UsageError(
                f"part segmentation on {meta.name}, which has no parts",
                "a part per point and a category per cloud",
                "npz files with `part` and `label`, or ShapeNetPart's layout: docs/parts.md",
            )
        # In the order of the labels. A category without a cloud in the set may have no parts.
        categories = {name: tuple(meta.parts_of.get(name, ())) for name in meta.classes}
        return PartSegmentation(meta.point_classes, categories, config.label_smoothing)
    return Classification(meta.classes, config.label_smoothing)


def task_of(model: PointModel) -> Task:
    """What a model with a head does.

    Raises:
        CheckpointError: A head for parts whose categories and parts nobody named, or named wrongly.
    """
    if model.config.head != "parts":
        return Classification(model.classes or tuple(str(i) for i in range(model.config.num_classes)))
    names, categories = model.classes, model.categories
    if names is None or categories is None:
        raise CheckpointError(
            f"{model.arch} for {model.config.num_classes} parts of {model.config.part_head.categories} categories, "
            "which the file does not name",
            "a file written by pointlift, or a released model for ShapeNetPart",
        )
    fits = len(names) == model.config.num_classes and len(categories) == model.config.part_head.categories
    if not fits or any(not 0 <= part < len(names) for parts in categories.values() for part in parts):
        raise CheckpointError(
            f"{model.arch}: its file names {len(names)} parts and {len(categories)} categories",
            f"{model.config.num_classes} parts and {model.config.part_head.categories} categories that have them",
        )
    return PartSegmentation(names, categories)
