"""Chair, stool, bench, sofa: told apart by backs, arms, slats and cushions, not by their boxes."""

from __future__ import annotations

import math

from pointlift.data.shapes.builder import TURN, Builder, angles
from pointlift.data.shapes.draw import Draw
from pointlift.data.shapes.supports import four_legs, panels, pedestal, rungs, sled


def chair(b: Builder, d: Draw) -> None:
    """A thin seat with a back, on four legs, a pedestal or a sled; arms on some."""
    w, depth, high = d.uniform(0.42, 0.62), d.uniform(0.4, 0.6), d.uniform(0.35, 0.6)
    thick = d.uniform(0.03, 0.08)
    x, y = w / 2 - 0.03, depth / 2 - 0.03
    base = d.pick(("legs", "legs", "pedestal", "sled"))
    if base == "legs":
        feet = four_legs(b, d, x, y, high, part="leg", splay=d.uniform(0, 0.25))
        if d.chance(0.4):
            rungs(b, d, feet, x, y, high, part="leg")
    elif base == "pedestal":
        pedestal(b, d, max(x, y) * d.uniform(0.8, 1.2), high, part="leg")
    else:
        sled(b, d, x, y, high, part="leg")
    if d.chance(0.25):
        b.lathe([(0, high), (w / 2, high), (w / 2, high + thick), (0, high + thick)], part="seat", squash=depth / w)
    else:
        b.box((0, 0, high + thick / 2), (w, depth, thick), part="seat")
    _chair_back(b, d, w, y, high + thick)
    if d.chance(0.4):
        level, run = high + d.uniform(0.16, 0.28), d.uniform(0.6, 1.0)
        for side in (-x, x):
            front = y - 2 * y * run
            b.bar((side, front, level), (side, y, level), 0.05, 0.03, part="arm")
            b.bar((side, front + 0.03, high), (side, front + 0.03, level), 0.035, part="arm")


def _chair_back(b: Builder, d: Draw, w: float, y: float, low: float) -> None:
    tall, lean, thick = d.uniform(0.3, 0.75), d.uniform(0.0, 0.2), d.uniform(0.025, 0.06)
    style = d.pick(("panel", "curved", "bars", "slats", "hoop"))
    x, top = w / 2 - 0.03, low + tall
    if style == "panel":
        gap = d.uniform(0.0, 0.4) * tall
        start = y + lean * gap / tall
        b.bar((0, start, low + gap), (0, y + lean, top), w, thick, part="back")
        if gap > 0.06:
            for side in (-x * 0.6, x * 0.6):
                b.bar((side, y, low - 0.02), (side, start, low + gap), 0.035, part="back")
    elif style == "curved":
        bend, gap = d.uniform(0.06, 0.2), d.uniform(0.0, 0.2)
        lower = [(-w / 2 * math.cos(a), y + bend * (math.sin(a) - 1), low + gap) for a in angles(8)]
        upper = [(px, py + lean, top) for px, py, _ in lower]
        b.sheet(lower, upper, part="back", thickness=(0, thick, 0))
        if gap > 0.03:
            b.bar((0, y, low - 0.02), (0, y, low + gap + 0.05), 0.08, 0.03, part="back")
    elif style == "hoop":
        rises = [(a, abs(math.sin(a)) ** 0.7) for a in angles(12)]
        arch = [(-x * math.cos(a), y + lean * rise, low + tall * rise) for a, rise in rises]
        b.tube(arch, 0.022, part="back", normal=(0, 1, 0))
        for k in range(d.count(2, 5)):
            px = x * (-0.6 + 1.2 * d.unit()) if k else 0.0
            rise = math.sqrt(max(0.05, 1 - (px / x) ** 2)) ** 0.7
            b.cylinder((px, y, low), (px, y + lean * rise, low + tall * rise), 0.012, part="back")
    else:
        for side in (-x, x):
            b.bar((side, y, low - 0.02), (side, y + lean, top), 0.045, part="back")
        if style == "bars":
            b.bar((-x, y + lean, top - 0.03), (x, y + lean, top - 0.03), 0.03, 0.07, part="back")
            n = d.count(3, 6)
            for k in range(n):
                px = x * (2 * (k + 1) / (n + 1) - 1)
                b.bar((px, y, low), (px, y + lean, top - 0.04), 0.022, part="back")
        else:
            n = d.count(2, 4)
            for k in range(n):
                share = 0.3 + 0.7 * k / max(n - 1, 1)
                py, pz = y + lean * share, low + tall * share - 0.04
                b.bar((-x, py, pz), (x, py, pz), 0.02, d.uniform(0.05, 0.09), part="back")


def stool(b: Builder, d: Draw) -> None:
    """A thick cushion or a dished disc without a back, on splayed legs with rungs or a column with a foot ring."""
    r, high = d.uniform(0.17, 0.28), d.uniform(0.4, 0.9)
    thick = d.uniform(0.07, 0.16)
    squash = d.pick((1.0, 1.0, d.uniform(0.6, 1.0)))
    if d.chance(0.45):
        legs, spread = d.count(3, 4), d.uniform(1.1, 1.5)
        turn, thickness = d.unit() * TURN, d.uniform(0.02, 0.035)
        level = d.uniform(0.25, 0.55)
        ring = []
        for k in range(legs):
            c, s = math.cos(turn + TURN * k / legs), math.sin(turn + TURN * k / legs)
            inner, outer = r * 0.7, r * spread
            b.cylinder((inner * c, inner * s, high), (outer * c, outer * s, 0), thickness, thickness * 0.7, part="leg")
            at = outer + (inner - outer) * level
            ring.append((at * c, at * s, high * level))
        if d.chance(0.5):
            for start, end in zip(ring, ring[1:] + ring[:1], strict=True):
                b.cylinder(start, end, 0.014, part="rung")
        else:
            _ring(b, math.hypot(*ring[0][:2]), high * level)
    elif d.chance(0.5):
        x = r * 0.72
        feet = four_legs(b, d, x, x * squash, high, part="leg", splay=d.uniform(0.2, 0.5), thickness=0.045)
        rungs(b, d, feet, x, x * squash, high, part="rung")
    else:
        pedestal(b, d, r * d.uniform(0.8, 1.15), high, part="leg")
        level, reach = high * d.uniform(0.3, 0.5), r * d.uniform(0.6, 0.85)
        _ring(b, reach, level)
        for k in range(3):
            c, s = math.cos(TURN * k / 3), math.sin(TURN * k / 3)
            b.cylinder((0, 0, level), (reach * c, reach * s, level), 0.012, part="rung")
    if d.chance(0.6):
        swell = d.uniform(1.0, 1.12)
        profile = [(0, high), (r, high), (r * swell, high + thick / 2), (r * 0.95, high + thick), (0, high + thick)]
        if d.chance(0.3):
            profile = [*profile[:-1], (0, high + thick * 0.6)]
        b.lathe(profile, part="seat", squash=squash)
    else:
        b.box((0, 0, high + thick / 2), (1.8 * r, 1.8 * r * squash, thick), part="seat")


def _ring(b: Builder, radius: float, height: float) -> None:
    path = [(radius * math.cos(a), radius * math.sin(a), height) for a in angles(16, TURN)[1:]]
    b.tube(path, 0.016, part="rung", normal=(0, 0, 1), closed=True)


def bench(b: Builder, d: Draw) -> None:
    """A seat of slats on two side frames, with a back of slats on most and arm rests on some."""
    w, depth, high = d.uniform(0.9, 1.5), d.uniform(0.38, 0.55), d.uniform(0.38, 0.5)
    slats, thick = d.count(3, 5), d.uniform(0.025, 0.045)
    pitch = depth / slats
    for k in range(slats):
        y = -depth / 2 + (k + 0.5) * pitch
        b.box((0, y, high), (w, pitch * 0.6, thick), part="seat")
    x, y = w / 2 * d.uniform(0.75, 0.95), depth / 2 - 0.03
    if d.chance(0.4):
        panels(b, d, x, y, high, part="side")
    else:
        sled(b, d, x, y, high, part="side")
    tall = d.uniform(0.28, 0.5)
    if d.chance(0.65):
        lean, n = d.uniform(0.03, 0.18), d.count(2, 4)
        for side in (-x, x):
            b.bar((side, y, high), (side, y + lean, high + tall), 0.05, part="side")
        for k in range(n):
            share = 0.35 + 0.6 * k / max(n - 1, 1)
            at = (y + lean * share, high + tall * share)
            b.bar((-w / 2, *at), (w / 2, *at), thick, 0.55 * tall / n, part="back")
    if d.chance(0.4):
        level = high + tall * 0.5
        for side in (-x, x):
            b.bar((side, -y, level), (side, y + 0.05, level), 0.06, 0.03, part="arm")
            b.bar((side, -y, high), (side, -y, level), 0.05, part="arm")


def sofa(b: Builder, d: Draw) -> None:
    """A thick base with cushions, a thick back and arms, on short feet or a plinth; a chaise on some."""
    w, depth = d.uniform(0.9, 1.9), d.uniform(0.65, 0.85)
    low, seat = d.uniform(0.05, 0.16), d.uniform(0.34, 0.46)
    back, arm = d.uniform(0.12, 0.24), d.uniform(0.08, 0.22)
    top, rest = seat + d.uniform(0.25, 0.5), seat + d.uniform(0.08, 0.25)
    base = seat - d.uniform(0.1, 0.16)
    b.box((0, 0, (low + base) / 2), (w, depth, base - low), part="base")
    b.box((0, depth / 2 - back / 2, (low + top) / 2), (w, back, top - low), part="back")
    n, room = d.count(1, 3), w - 2 * arm
    for k in range(n):
        x = -room / 2 + room * (k + 0.5) / n
        b.box((x, -back / 2, (base + seat) / 2), (room / n * 0.97, depth - back, seat - base), part="cushion")
        if d.chance(0.6):
            b.bar(
                (x, depth / 2 - back * 1.2, seat),
                (x, depth / 2 - back * 0.8, top + 0.03),
                room / n * 0.9,
                0.1,
                part="cushion",
            )
    style = d.pick(("box", "roll", "low"))
    for side in (-1, 1):
        x = side * (w / 2 - arm / 2)
        height = rest if style != "low" else seat + 0.05
        b.box((x, 0, (low + height) / 2), (arm, depth, height - low), part="arm")
        if style == "roll":
            b.cylinder((x, -depth / 2, rest), (x, depth / 2, rest), arm * 0.62, part="arm")
    if d.chance(0.25):
        side, reach = d.pick((-1, 1)), d.uniform(0.3, 0.6)
        x = side * (room / 2 - room / 2 / n)
        b.box((x, -depth / 2 - reach / 2, (low + seat) / 2), (room / n, reach, seat - low), part="cushion")
    for sx in (-1, 1):
        for sy in (-1, 1):
            b.box((sx * (w / 2 - 0.05), sy * (depth / 2 - 0.05), low / 2), (0.06, 0.06, low), part="foot")
