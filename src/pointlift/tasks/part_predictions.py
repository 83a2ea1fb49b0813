"""`predictions.npz` of part segmentation: the part of every scored point, and some of the clouds for the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pointlift.data.config import DataConfig
from pointlift.data.dataset import CloudSplit, DatasetMeta
from pointlift.data.pipeline import build_transform
from pointlift.tasks.files import write_arrays
from pointlift.tasks.predictions import FILE

if TYPE_CHECKING:
    from pointlift.tasks.part_segmentation import PartScores


def write_part_predictions(
    out: Path, scores: PartScores, split: CloudSplit, meta: DatasetMeta, data: DataConfig, *, keep_clouds: int = 0
) -> Path:
    """Write predicted and true parts, categories, positions and names; with `keep_clouds`, so many clouds to look at.

    The points of a kept cloud are in the order of its parts.

    Raises:
        PointLiftError: The file cannot be written.
    """
    narrow = np.uint8 if len(scores.names) <= 256 else np.uint16
    arrays: dict[str, np.ndarray] = {
        "pred": scores.pred.astype(narrow),
        "part": scores.part.astype(narrow),
        "category": scores.category,
        "iou": scores.shape_ious().astype(np.float32),
        "index": scores.index,
        "names": np.array([split.names[i] for i in scores.index]),
        "categories": np.array(list(scores.categories)),
        "parts": np.array(scores.names),
    }
    if keep_clouds:
        chosen = kept(scores, keep_clouds)
        transform = build_transform(data, meta, "test")
        xyz = np.stack([transform(split[int(scores.index[i])])["xyz"] for i in chosen])
        xyz /= np.abs(xyz).max((1, 2), keepdims=True).clip(1.0)  # clouds that are read as they are may be larger
        arrays["xyz_i16"] = np.round(xyz * 32767).astype(np.int16)
        arrays["xyz_index"] = scores.index[chosen]
    return write_arrays(out / FILE, arrays, hint="Free some space and go on with --resume")


def kept(scores: PartScores, count: int) -> np.ndarray:
    """Positions of clouds to show, the worst IoU first: half of them the worst of all, the rest a fair sample.

    The sample is every n-th of the others by IoU, so that the page shows what is usual too.
    """
    worst_first = np.argsort(scores.shape_ious(), kind="stable")
    count = min(count, len(worst_first))
    worst, others = worst_first[: (count + 1) // 2], worst_first[(count + 1) // 2 :]
    steps = np.linspace(0, max(len(others) - 1, 0), count - len(worst)).round().astype(np.int64)
    return np.concatenate([worst, others[steps]])
