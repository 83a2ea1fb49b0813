"""Colours that tell many things apart on paper and on a dark screen."""

from __future__ import annotations

import colorsys

import numpy as np

GOLDEN = 0.381966  # of a turn: neighbouring numbers lie far apart
# As in raster.js: the first twelve are chosen by eye, for lines, dots and parts alike.
FIRST = (
    *((11, 102, 173), (217, 95, 14), (27, 143, 106), (194, 75, 150), (150, 112, 40), (112, 92, 190)),
    *((96, 150, 30), (190, 40, 60), (60, 150, 190), (120, 120, 120), (230, 170, 40), (90, 70, 60)),
)


def distinct(count: int) -> np.ndarray:
    """`count` colours, uint8 (count, 3): up to twelve chosen ones, else hues a golden angle apart on three levels."""
    if count <= len(FIRST):
        return np.array(FIRST[:count], np.uint8).reshape(-1, 3)
    made = []
    for i in range(count):
        light, full = ((0.48, 0.62), (0.62, 0.55), (0.42, 0.72))[i % 3]
        made.append(colorsys.hls_to_rgb((0.58 + i * GOLDEN) % 1.0, light, full))
    return np.round(255 * np.array(made)).astype(np.uint8)
