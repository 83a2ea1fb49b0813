"""Guitar: a flat waisted body, a long neck and a head with pegs."""

from __future__ import annotations

import math

from pointlift.data.shapes.builder import TURN, Builder, angles
from pointlift.data.shapes.draw import Draw


def guitar(b: Builder, d: Draw) -> None:
    """Upright: acoustic (with a hole and a deep body) or electric (thin, with horns); on a stand sometimes."""
    electric = d.chance(0.45)
    low, up = d.uniform(0.26, 0.36), d.uniform(0.2, 0.28)
    long, waist = d.uniform(0.65, 0.95), d.uniform(0.6, 0.85)
    deep = d.uniform(0.05, 0.09) if electric else d.uniform(0.12, 0.22)
    neck, width = d.uniform(0.4, 1.0), d.uniform(0.03, 0.055)
    outline = _outline(low, up, long, waist, horn=d.uniform(0.08, 0.2) if electric else 0.0)
    b.prism(outline, -deep / 2, deep / 2, part="body", plane="xz")
    front = -deep / 2
    b.box((0, front - 0.015, long * 0.22), (low * 0.8, 0.03, 0.05), part="body")
    if electric:
        for z in (0.4, 0.6):
            b.box((0, front - 0.012, long * z), (low * 0.6, 0.024, 0.06), part="body")
    else:
        hole = up * d.uniform(0.35, 0.5)
        ring = [(hole * math.cos(a), front, long * 0.62 + hole * math.sin(a)) for a in angles(14, TURN)[1:]]
        b.tube(ring, 0.016, part="body", normal=(0, 1, 0), closed=True)
    top = long + neck
    b.bar((0, front - 0.01, long * 0.66), (0, front - 0.01, top), 2 * width, 0.05, part="neck")
    tilt, head = d.uniform(0.0, 0.08), d.uniform(0.16, 0.26)
    b.bar((0, front, top), (0, front + tilt, top + head), 2 * width * d.uniform(1.3, 2.0), 0.035, part="head")
    if d.chance(0.3):
        spread, reach = d.uniform(0.2, 0.4), d.uniform(0.1, 0.25)
        for x, y in ((-spread, -0.2), (spread, -0.2), (0.0, 0.35)):
            b.cylinder((0, deep, long * 0.5), (x, y, -reach), 0.018, part="stand")
        for x in (-low * 0.4, low * 0.4):
            b.bar((x, -deep, -0.02), (x, deep, -0.02), 0.03, part="stand")
    pegs, one_side = d.count(2, 3), electric and d.chance(0.5)
    for k in range(pegs):
        z = top + head * (k + 0.6) / (pegs + 0.2)
        for side in (-1,) if one_side else (-1, 1):
            b.cylinder((0, front + 0.01, z), (side * (2 * width + 0.06), front + 0.01, z), 0.014, part="head")


def _outline(low: float, up: float, long: float, waist: float, *, horn: float) -> list[tuple[float, float]]:
    """Half widths along the body, mirrored, counter-clockwise; horns rise beside the neck."""
    right = []
    narrow = min(low, up) * waist
    for k in range(13):
        t = k / 12
        lower = low * math.sqrt(max(0.0, 1 - ((t - 0.3) / 0.32) ** 2)) if t < 0.62 else 0.0
        upper = up * math.sqrt(max(0.0, 1 - ((t - 0.76) / 0.26) ** 2)) if t > 0.5 else 0.0
        between = narrow if 0.25 < t < 0.85 else 0.0
        right.append((max(lower, upper, between, 0.03), long * t))
    if horn:
        right[-1] = (up * 0.35, long * 0.92)
        right[-2] = (up * 0.85, long * 0.92 + horn)
    return right + [(-x, z) for x, z in reversed(right)]
