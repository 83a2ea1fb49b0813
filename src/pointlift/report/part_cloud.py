"""Clouds coloured by part, for pages and for other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pointlift.data.cloud import PointCloud
from pointlift.report.colours import distinct

if TYPE_CHECKING:
    from pointlift.tasks.predict_parts import PartPrediction


def positions(prediction: PartPrediction) -> np.ndarray:
    """(N,) int64: the part of every point as a position among the parts of its category."""
    numbers = np.array(list(prediction.parts), np.int64)
    order = np.argsort(numbers)
    return order[np.searchsorted(numbers, prediction.part, sorter=order)]


def coloured(cloud: PointCloud, prediction: PartPrediction) -> PointCloud:
    """The cloud with `part` (numbers) and `colors`, a colour per part of its category; what else it holds stays out."""
    colors = distinct(len(prediction.parts))[positions(prediction)]
    feats = {"colors": colors, "part": prediction.part}
    return PointCloud(cloud.xyz, feats, cloud.path, offset=cloud.offset)
