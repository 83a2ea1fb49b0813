"""Mug, bottle, vase, bowl, and the lamp: turned bodies, told apart by openings, necks, handles and shades."""

from __future__ import annotations

import math
from itertools import pairwise

from pointlift.data.shapes.builder import TURN, Builder, angles
from pointlift.data.shapes.draw import Draw


def _handle(b: Builder, d: Draw, *, at: float, low: float, high: float, reach: float, turn: float = 0.0) -> None:
    """An ear from a wall at radius `at`, between two heights, `reach` wide; round, or angular."""
    n, square = 10, d.pick((1.0, 1.0, 0.55))
    path = []
    for k in range(n + 1):
        c, s = math.cos(math.pi * (k / n - 0.5)), math.sin(math.pi * (k / n - 0.5))
        out = at + reach * c**square
        height = (low + high) / 2 + (high - low) / 2 * math.copysign(abs(s) ** square, s)
        path.append((out * math.cos(turn), out * math.sin(turn), height))
    b.tube(
        path,
        d.uniform(0.025, 0.05),
        part="handle",
        flatten=d.uniform(0.7, 1.6),
        normal=(-math.sin(turn), math.cos(turn), 0.0),
        caps=False,
    )


def mug(b: Builder, d: Draw) -> None:
    """An open cup, straight, tapered or barrel-shaped, with one handle; on a saucer sometimes."""
    r, high, wall = d.uniform(0.28, 0.42), d.uniform(0.55, 1.2), d.uniform(0.025, 0.06)
    taper, belly = d.uniform(0.75, 1.25), d.pick((0.0, d.uniform(-0.06, 0.1)))
    steps = (0, 0.2, 0.4, 0.6, 0.8, 1)
    outside = [(r * (1 + (taper - 1) * t) + belly * math.sin(math.pi * t), high * t) for t in steps]
    inside = [(max(x - wall, 0.05), max(z, 2 * wall)) for x, z in reversed(outside)]
    b.lathe([(0, 0), *outside, *inside, (0, 2 * wall)], part="body")
    low, top = d.uniform(0.12, 0.3) * high, d.uniform(0.65, 0.92) * high
    at = min(outside[1][0], outside[4][0]) - wall / 2
    _handle(b, d, at=at, low=low, high=top, reach=d.uniform(0.18, 0.34), turn=d.unit() * TURN)
    if d.chance(0.2):
        wide = r * d.uniform(1.4, 2.0)
        b.lathe([(0, -0.03), (wide * 0.6, -0.03), (wide, 0.06), (wide * 0.6, 0), (0, 0)], part="saucer")


def bottle(b: Builder, d: Draw) -> None:
    """A closed body with a shoulder, a narrow neck and a cap; an ear at the neck on some."""
    r, neck = d.uniform(0.2, 0.34), d.uniform(0.055, 0.13)
    body, rise, throat = d.uniform(0.25, 0.95), d.uniform(0.06, 0.5), d.uniform(0.06, 0.6)
    waist = d.pick((0.0, d.uniform(0.0, 0.2)))
    side = [(r * (1 - waist * math.sin(math.pi * t)), 0.03 + (body - 0.03) * t) for t in (0, 0.25, 0.5, 0.75, 1)]
    power = d.pick((1.0, d.uniform(0.5, 2.0)))
    shoulder = [(neck + (r - neck) * (1 - t**power), body + rise * t) for t in (0.2, 0.4, 0.6, 0.8, 1)]
    top = body + rise + throat
    b.lathe([(0, 0), (r * 0.92, 0), *side, *shoulder], part="body")
    b.lathe([(neck, body + rise), (neck * d.uniform(0.75, 1.0), top), (0, top)], part="neck")
    if d.chance(0.2):
        low, reach = body * d.uniform(0.6, 1.0), d.uniform(0.15, 0.3)
        _handle(b, d, at=neck * 0.9, low=low, high=top - 0.02, reach=r + reach - neck, turn=d.unit() * TURN)
    cap, tall = neck * d.uniform(1.05, 1.5), d.uniform(0.05, 0.16)
    style = d.pick(("screw", "screw", "pump", "cork"))
    if style == "screw":
        b.cylinder((0, 0, top - tall / 2), (0, 0, top + tall / 2), cap, part="cap")
    elif style == "cork":
        b.cylinder((0, 0, top - 0.02), (0, 0, top + tall), neck * 0.85, neck * 1.1, part="cap")
    else:
        b.cylinder((0, 0, top - 0.02), (0, 0, top + tall), neck * 0.5, part="cap")
        turn = d.unit() * TURN
        spout = (0.22 * math.cos(turn), 0.22 * math.sin(turn), top + tall)
        b.bar((0, 0, top + tall), spout, 0.06, part="cap")


def vase(b: Builder, d: Draw) -> None:
    """An open vessel with a foot, a belly and a neck that is narrower than belly and lip; two handles on some."""
    belly, high, wall = d.uniform(0.25, 0.45), d.uniform(0.8, 1.2), 0.02
    foot, neck = belly * d.uniform(0.4, 0.8), belly * d.uniform(0.35, 0.6)
    lip = neck * d.uniform(1.4, 2.1)
    at, throat = d.uniform(0.25, 0.5), d.uniform(0.72, 0.88)
    knots = [(foot, 0.0), (foot * 0.85, 0.06), (belly, at), (neck, throat), (lip, 1.0)]
    outside = _smooth(knots, 4)
    outside = [(r, z * high) for r, z in outside]
    inside = [(max(r - wall, 0.02), max(z, 0.08)) for r, z in reversed(outside)]
    b.lathe([(0, 0), *outside[:4]], part="foot")
    b.lathe([*outside[3:], *inside[:-3], (0, 0.08)], part="body")
    if d.chance(0.35):
        turn = d.unit() * TURN
        reach = d.uniform(0.1, 0.25)
        for half in (0.0, math.pi):
            _handle(b, d, at=neck, low=high * (at + throat) / 2, high=high * 0.95, reach=reach, turn=turn + half)


def _smooth(knots: list[tuple[float, float]], steps: int) -> list[tuple[float, float]]:
    """Points between knots (radius, height) along half cosine waves, so that knots are the extremes."""
    points = []
    for (r0, z0), (r1, z1) in pairwise(knots):
        for k in range(steps):
            t = k / steps
            points.append((r0 + (r1 - r0) * (0.5 - 0.5 * math.cos(math.pi * t)), z0 + (z1 - z0) * t))
    return [*points, knots[-1]]


def bowl(b: Builder, d: Draw) -> None:
    """An open vessel that widens all the way up to its rim, on a foot ring or a stem; fruit in some."""
    r, high, wall = d.uniform(0.35, 0.5), d.uniform(0.25, 0.7), d.uniform(0.02, 0.05)
    foot, power = r * d.uniform(0.3, 0.55), d.uniform(0.35, 0.9)
    stem = d.pick((0.04, 0.04, d.uniform(0.15, 0.4)))
    narrow = foot if stem < 0.1 else foot * d.uniform(0.3, 0.6)
    b.lathe([(0, 0), (foot, 0), (narrow, stem * 0.4), (narrow, stem)], part="foot")
    steps = (0, 0.06, 0.15, 0.3, 0.5, 0.75, 1)
    outside = [(narrow * 0.8 + (r - narrow * 0.8) * t**power, stem + high * t) for t in steps]
    rim = [(r * d.uniform(1.0, 1.2), outside[-1][1] + 0.01)]
    inside = [(max(x - wall, 0.01), z + wall * 0.7) for x, z in reversed(outside[1:])]
    b.lathe([(0, stem), *outside, *rim, *inside, (0, stem + wall)], part="body")
    if d.chance(0.3):
        for _ in range(d.count(2, 5)):
            size, angle, away = d.uniform(0.18, 0.3), d.unit() * TURN, d.uniform(0.1, 0.45) * r
            at = (away * math.cos(angle), away * math.sin(angle), stem + high - size * d.uniform(-0.1, 0.4))
            b.ellipsoid(at, (size, size, size), part="fruit", steps=8)


def lamp(b: Builder, d: Draw) -> None:
    """A base, a pole (straight, bent over or jointed) and a hollow shade."""
    high, base, pole = d.uniform(0.7, 1.5), d.uniform(0.16, 0.32), d.uniform(0.012, 0.035)
    style = d.pick(("straight", "body", "arc", "jointed"))
    head = (0.0, 0.0, high)
    foot = d.pick(("disc", "tripod", "block"))
    if foot == "disc":
        b.lathe([(0, 0), (base, 0), (base, 0.03), (base * 0.4, d.uniform(0.03, 0.12)), (0, 0.12)], part="base")
    elif foot == "tripod":
        for k in range(3):
            tip = (1.1 * base * math.cos(TURN * k / 3), 1.1 * base * math.sin(TURN * k / 3), 0.0)
            b.cylinder((0, 0, high * d.uniform(0.2, 0.5)), tip, 0.02, part="base")
    else:
        b.box((0, 0, 0.04), (1.5 * base, 1.5 * base, 0.08), part="base")
    if style == "straight":
        b.cylinder((0, 0, 0), head, pole, part="pole")
    elif style == "body":
        swell = d.uniform(0.1, 0.22)
        knots = [(0.06, 0.03), (swell, high * d.uniform(0.2, 0.5)), (0.03, high * 0.7), (0.03, high)]
        b.lathe(_smooth(knots, 4), part="pole")
    elif style == "arc":
        reach = d.uniform(0.25, 0.6)
        half, level = reach / 2, high - reach / 2
        bend = [(half * (1 - math.cos(a)), 0.0, level + half * math.sin(a)) for a in angles(8)]
        b.tube([(0, 0, 0), *bend], pole, part="pole", normal=(0, 1, 0))
        head = (bend[-1][0], 0.0, bend[-1][2])
    else:
        elbow = (-d.uniform(0.1, 0.35), 0.0, high * d.uniform(0.4, 0.6))
        head = (d.uniform(0.15, 0.5), 0.0, high)
        b.cylinder((0, 0, 0.03), elbow, pole, part="pole")
        b.cylinder(elbow, head, pole, part="pole")
    _shade(b, d, head, hangs=style == "arc")


def _shade(b: Builder, d: Draw, head: tuple[float, float, float], *, hangs: bool) -> None:
    wide, tall = d.uniform(0.18, 0.36), d.uniform(0.16, 0.38)
    narrow = wide * d.uniform(0.35, 0.95)
    low = -tall * (0.9 if hangs else 0.6)
    style = d.pick(("cone", "cone", "dome", "globe"))
    if style == "cone":
        b.lathe(
            [(wide, low), (narrow, low + tall), (narrow - 0.015, low + tall), (wide - 0.015, low)],
            center=head,
            part="shade",
        )
    elif style == "dome":
        curve = [(wide * math.cos(a), low + tall * math.sin(a)) for a in (0, 0.3, 0.6, 0.9, 1.2, 1.5)]
        b.lathe([*curve, *((r * 0.94, z - 0.012) for r, z in reversed(curve))], center=head, part="shade")
    else:
        x, y, z = head
        b.ellipsoid((x, y, z + low + tall / 2), (2 * narrow, 2 * narrow, tall * 1.2), part="shade", low=-0.9)
    if d.chance(0.5):
        x, y, z = head
        b.ellipsoid((x, y, z + low + tall * 0.45), (0.1, 0.1, 0.14), part="shade")
