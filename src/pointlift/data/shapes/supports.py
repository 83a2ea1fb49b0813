"""What seats, tops and beds stand on: shared by the furniture, so that legs alone do not tell the class."""

from __future__ import annotations

import math
from itertools import pairwise

from pointlift.data.shapes.builder import TURN, Builder
from pointlift.data.shapes.draw import Draw

Point = tuple[float, float, float]


def stick(b: Builder, start: Point, end: Point, thickness: float, *, style: str, part: str) -> None:
    """One leg or rung: `"square"`, `"round"` or `"tapered"` (thinner at `end`)."""
    if style == "square":
        b.bar(start, end, thickness, part=part)
    else:
        b.cylinder(start, end, thickness / 2, thickness / (4 if style == "tapered" else 2), part=part)


def four_legs(
    b: Builder, d: Draw, x: float, y: float, height: float, *, part: str, splay: float = 0.0, thickness: float = 0.0
) -> list[tuple[float, float]]:
    """Four legs under the corners (±x, ±y) of something at `height`; returns where their feet stand."""
    style = d.pick(("square", "round", "tapered"))
    thickness = thickness or d.uniform(0.04, 0.09)
    feet = []
    for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        foot = (sx * x * (1 + splay), sy * y * (1 + splay))
        stick(b, (sx * x, sy * y, height), (*foot, 0.0), thickness, style=style, part=part)
        feet.append(foot)
    return feet


def rungs(
    b: Builder, d: Draw, feet: list[tuple[float, float]], x: float, y: float, height: float, *, part: str
) -> None:
    """Bars between neighbouring legs, or an H below the seat, at part of `height`."""
    level = d.uniform(0.2, 0.6)
    thickness = d.uniform(0.025, 0.045)
    corners = []
    for (fx, fy), (sx, sy) in zip(feet, ((-1, -1), (1, -1), (1, 1), (-1, 1)), strict=True):
        corners.append((fx + (sx * x - fx) * level, fy + (sy * y - fy) * level, height * level))
    if d.chance(0.6):
        pairs = [(corners[k], corners[(k + 1) % 4]) for k in range(4)]
    else:
        left, right = _middle(corners[0], corners[3]), _middle(corners[1], corners[2])
        pairs = [(corners[0], corners[3]), (corners[1], corners[2]), (left, right)]
    for start, end in pairs:
        stick(b, start, end, thickness, style="round", part=part)


def _middle(p: Point, q: Point) -> Point:
    return (p[0] + q[0]) / 2, (p[1] + q[1]) / 2, (p[2] + q[2]) / 2


def pedestal(b: Builder, d: Draw, reach: float, height: float, *, part: str) -> None:
    """A column on a star of feet, a disc, or a trumpet base."""
    column = d.uniform(0.03, 0.09)
    style = d.pick(("star", "disc", "trumpet"))
    if style == "star":
        arms, rise = d.count(3, 5), d.uniform(0.03, 0.16)
        start = d.unit() * TURN
        for k in range(arms):
            angle = start + TURN * k / arms
            tip = (reach * math.cos(angle), reach * math.sin(angle), 0.03)
            b.bar((0, 0, rise), tip, d.uniform(0.04, 0.07), part=part)
        b.cylinder((0, 0, 0.02), (0, 0, height), column, part=part)
    elif style == "disc":
        b.cylinder((0, 0, 0), (0, 0, d.uniform(0.02, 0.07)), reach * 0.95, reach * d.uniform(0.6, 0.95), part=part)
        b.cylinder((0, 0, 0.02), (0, 0, height), column, part=part)
    else:
        lip = d.uniform(0.08, 0.3)
        profile = [(0, 0), (reach * 0.9, 0), (reach * 0.45, lip * 0.3), (column, lip), (column, height)]
        b.lathe(profile, part=part, solid=False)


def sled(b: Builder, d: Draw, x: float, y: float, height: float, *, part: str) -> None:
    """Two frames of bent bar, one on each side."""
    thickness = d.uniform(0.03, 0.06)
    lean = d.uniform(-0.15, 0.15) * y
    for side in (-x, x):
        corners = [(side, -y, height), (side, -y + lean, thickness / 2), (side, y, thickness / 2), (side, y, height)]
        for start, end in pairwise(corners):
            b.bar(start, end, thickness, part=part)


def clutter(b: Builder, d: Draw, x: float, y: float, height: float, *, part: str) -> None:
    """One to three small things standing on a surface (±x, ±y) at `height`: boxes, cans, balls."""
    for _ in range(d.count(1, 3)):
        px, py, size = d.uniform(-x, x) * 0.7, d.uniform(-y, y) * 0.7, d.uniform(0.08, 0.2)
        tall = size * d.uniform(0.4, 1.8)
        style = d.pick(("box", "can", "ball"))
        if style == "box":
            b.box((px, py, height + tall / 2), (size, size * d.uniform(0.5, 1.5), tall), part=part)
        elif style == "can":
            b.cylinder((px, py, height), (px, py, height + tall), size / 2, size / 2 * d.uniform(0.6, 1.2), part=part)
        else:
            b.ellipsoid((px, py, height + size * 0.45), (size, size, size), part=part, steps=8)


def panels(b: Builder, d: Draw, x: float, y: float, height: float, *, part: str) -> None:
    """Two upright boards, one on each side."""
    thickness = d.uniform(0.03, 0.09)
    depth = 2 * y * d.uniform(0.7, 1.0)
    for side in (-x, x):
        b.box((side, 0, height / 2), (thickness, depth, height), part=part)
