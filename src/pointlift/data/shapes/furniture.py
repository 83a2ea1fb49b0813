"""Table, desk, bed, shelf: flat boards on the same supports as the seats, told apart by what stands with them."""

from __future__ import annotations

import math

from pointlift.data.shapes.builder import Builder, angles
from pointlift.data.shapes.draw import Draw
from pointlift.data.shapes.supports import clutter, four_legs, panels, pedestal, rungs, sled


def table(b: Builder, d: Draw) -> None:
    """A thin top, rectangular or round, on legs, a pedestal, trestles or boards; things on it, a low board on some."""
    w, depth, high = d.uniform(0.6, 1.3), d.uniform(0.5, 0.9), d.uniform(0.4, 0.8)
    thick, overhang = d.uniform(0.02, 0.05), d.uniform(0.75, 0.97)
    x, y = w / 2 * overhang, depth / 2 * overhang
    if d.chance(0.35):
        b.lathe([(0, high), (w / 2, high), (w / 2, high + thick), (0, high + thick)], part="top", squash=depth / w)
        x, y = x * 0.68, y * 0.68
    else:
        b.box((0, 0, high + thick / 2), (w, depth, thick), part="top")
    base = d.pick(("legs", "legs", "pedestal", "trestle", "sled", "panels"))
    if base == "legs":
        feet = four_legs(b, d, x, y, high, part="leg", splay=d.pick((0.0, d.uniform(0, 0.2))))
        if d.chance(0.3):
            rungs(b, d, feet, x, y, high, part="leg")
        if d.chance(0.5):
            apron = d.uniform(0.05, 0.12)
            for s in (-1.0, 1.0):
                b.box((0, s * y, high - apron / 2), (2 * x, 0.02, apron), part="apron")
                b.box((s * x, 0, high - apron / 2), (0.02, 2 * y, apron), part="apron")
    elif base == "pedestal":
        pedestal(b, d, min(x, y) * d.uniform(0.8, 1.2), high, part="leg")
    elif base == "trestle":
        for s in (-x * 0.8, x * 0.8):
            b.bar((s, -y, 0), (s, y, high), 0.05, part="leg")
            b.bar((s, y, 0), (s, -y, high), 0.05, part="leg")
        b.bar((-x * 0.8, 0, high / 2), (x * 0.8, 0, high / 2), 0.04, part="leg")
    else:
        (sled if base == "sled" else panels)(b, d, x, y, high, part="leg")
    if base != "pedestal" and d.chance(0.25):
        b.box((0, 0, high * d.uniform(0.2, 0.5)), (2 * x, 2 * y, 0.025), part="apron")
    if d.chance(0.3):
        clutter(b, d, w / 2, depth / 2, high + thick, part="extra")


def desk(b: Builder, d: Draw) -> None:
    """A top over one or two stacks of drawers, with a screen board at the back; shelves above or a monitor on some."""
    w, depth, high = d.uniform(1.0, 1.5), d.uniform(0.5, 0.75), d.uniform(0.65, 0.8)
    thick, stack = d.uniform(0.025, 0.05), d.uniform(0.3, 0.42)
    b.box((0, 0, high + thick / 2), (w, depth, thick), part="top")
    sides = d.pick(((-1,), (1,), (-1, 1)))
    floor = d.pick((0.0, d.uniform(0.05, 0.3)))
    for side in sides:
        _drawers(b, d, side * (w / 2 - stack / 2 - 0.02), stack, depth * 0.95, floor, high)
    bare = [s for s in (-1, 1) if s not in sides]
    if floor:
        bare = [-1, 1]
    for side in bare:
        x = side * (w / 2 - 0.04)
        if d.chance(0.5):
            b.box((x, 0, high / 2), (0.04, depth * 0.95, high), part="leg")
        else:
            for y in (-depth / 2 + 0.05, depth / 2 - 0.05):
                b.bar((x, y, 0), (x, y, high), 0.05, part="leg")
    if d.chance(0.7):
        drop = high * d.uniform(0.3, 0.8)
        b.box((0, depth / 2 - 0.05, high - drop / 2), (w * 0.94, 0.02, drop), part="panel")
    above = d.pick(("nothing", "hutch", "monitor"))
    if above == "hutch":
        tall, deep = d.uniform(0.2, 0.5), d.uniform(0.15, 0.25)
        y = depth / 2 - deep / 2
        for x in (-w / 2 + 0.015, w / 2 - 0.015):
            b.box((x, y, high + tall / 2), (0.03, deep, tall), part="extra")
        b.box((0, y, high + tall), (w, deep, 0.03), part="extra")
    elif above == "monitor":
        x, size = d.uniform(-0.2, 0.2) * w, d.uniform(0.35, 0.55)
        y, low = depth * 0.15, high + thick
        b.box((x, y, low + 0.1 + size * 0.3), (size, 0.03, size * 0.6), part="extra")
        b.cylinder((x, y + 0.03, low), (x, y + 0.03, low + 0.25), 0.02, part="extra")
        b.box((x, y, low + 0.01), (0.2, 0.15, 0.02), part="extra")


def _drawers(b: Builder, d: Draw, x: float, width: float, depth: float, low: float, high: float) -> None:
    b.box((x, 0, (low + high) / 2), (width, depth, high - low), part="drawer")
    n = d.count(2, 4)
    front, each = -depth / 2, (high - low) / n
    for k in range(n):
        z = low + each * (k + 0.5)
        b.box((x, front - 0.01, z), (width * 0.92, 0.02, each * 0.82), part="drawer")
        b.box((x, front - 0.035, z), (width * 0.35, 0.03, 0.02), part="drawer")


def bed(b: Builder, d: Draw) -> None:
    """A mattress in a frame with a headboard and pillows; a footboard, a canopy or a second storey on some."""
    w, length = d.uniform(0.9, 1.8), d.uniform(1.8, 2.1)
    low, thick = d.uniform(0.1, 0.35), d.uniform(0.15, 0.28)
    frame = d.uniform(0.08, 0.16)
    top = low + frame + thick
    b.box((0, 0, low + frame / 2), (w, length, frame), part="frame")
    b.box((0, -0.01, top - thick / 2), (w * 0.95, length * 0.96, thick), part="mattress")
    head = top + d.uniform(0.2, 0.7)
    _board(b, d, w, length / 2, head)
    if d.chance(0.45):
        _board(b, d, w, -length / 2, top + d.uniform(0.0, 0.3))
    pillows = 1 if w < 1.2 else 2
    for k in range(pillows):
        x = 0.0 if pillows == 1 else (k - 0.5) * w * 0.47
        size = (w / pillows * 0.75, d.uniform(0.35, 0.5), d.uniform(0.14, 0.22))
        b.ellipsoid((x, length / 2 - 0.35, top + 0.04), size, part="pillow")
    if d.chance(0.4):
        fold = length * d.uniform(0.3, 0.6)
        b.box((0, -length / 2 + fold / 2, top - 0.02), (w * 1.02, fold, 0.12), part="mattress")
    posts = d.chance(0.25)
    reach = head + d.uniform(0.3, 0.9)
    if posts and d.chance(0.4):
        b.box((0, 0, reach - thick), (w, length, thick), part="mattress")
    for sx in (-1, 1):
        for sy in (-1, 1):
            b.bar(
                (sx * w / 2, sy * length / 2, 0),
                (sx * w / 2, sy * length / 2, reach if posts else low + frame),
                d.uniform(0.05, 0.08),
                part="leg",
            )
    if posts and d.chance(0.7):
        for s in (-1, 1):
            b.bar((-w / 2, s * length / 2, reach), (w / 2, s * length / 2, reach), 0.05, part="leg")
            b.bar((s * w / 2, -length / 2, reach), (s * w / 2, length / 2, reach), 0.05, part="leg")


def _board(b: Builder, d: Draw, w: float, y: float, top: float) -> None:
    style = d.pick(("panel", "bars", "arch"))
    if style == "panel":
        b.box((0, y, top / 2 + 0.1), (w, d.uniform(0.04, 0.1), top - 0.2), part="board")
    elif style == "bars":
        b.bar((-w / 2, y, top), (w / 2, y, top), 0.05, part="board")
        n = d.count(4, 8)
        for k in range(n + 1):
            x = w * (k / n - 0.5)
            b.bar((x, y, 0.2), (x, y, top), 0.035, part="board")
    else:
        rise = d.uniform(0.1, 0.3)
        curve = [(w / 2 * math.cos(a), top - rise + rise * math.sin(a)) for a in angles(10)]
        b.prism([(-w / 2, 0.2), (w / 2, 0.2), *curve], -y - 0.03, -y + 0.03, part="board", plane="xz")


def shelf(b: Builder, d: Draw) -> None:
    """Boards one above another between sides or posts; a back, dividers, doors or books on some."""
    w, depth, high = d.uniform(0.6, 1.3), d.uniform(0.28, 0.5), d.uniform(0.9, 1.9)
    boards, thick = d.count(3, 6), d.uniform(0.02, 0.045)
    books = d.chance(0.4)
    low = d.pick((0.0, d.uniform(0.05, 0.2)))
    levels = [low + (high - low) * k / (boards - 1) for k in range(boards)]
    for z in levels:
        b.box((0, 0, z), (w, depth, thick), part="board")
    if d.chance(0.65):
        for s in (-1, 1):
            b.box((s * w / 2, 0, high / 2), (thick, depth, high + thick), part="side")
    else:
        for sx in (-1, 1):
            for sy in (-1, 1):
                b.bar((sx * w / 2, sy * depth / 2, 0), (sx * w / 2, sy * depth / 2, high + 0.03), 0.04, part="side")
    if d.chance(0.5):
        b.box((0, depth / 2 - 0.01, (low + high) / 2), (w, 0.02, high - low), part="back")
    if d.chance(0.4):
        for k in range(boards - 1):
            x = d.uniform(-0.25, 0.25) * w
            b.box((x, 0, (levels[k] + levels[k + 1]) / 2), (thick, depth, levels[k + 1] - levels[k]), part="side")
    if books:
        for k in range(1, boards - 1):
            run, tall = d.uniform(0.15, 0.6) * w, d.uniform(0.4, 0.8) * (levels[k + 1] - levels[k])
            x = d.uniform(-0.5, 0.5) * (w - run)
            b.box((x, 0, levels[k] + tall / 2), (run, depth * 0.6, tall), part="book")
    if d.chance(0.35):
        door = levels[1] - low
        for s in (-1, 1):
            b.box((s * w / 4, -depth / 2, low + door / 2), (w / 2 * 0.97, 0.02, door * 0.95), part="door")
            b.box((s * w * 0.04, -depth / 2 - 0.02, low + door / 2), (0.02, 0.03, door * 0.3), part="door")
