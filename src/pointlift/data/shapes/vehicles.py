"""Plane and car, in several makes each."""

from __future__ import annotations

import math

from pointlift.data.shapes.builder import Builder
from pointlift.data.shapes.draw import Draw


def plane(b: Builder, d: Draw) -> None:
    """A fuselage with wings (straight, swept, delta, two storeys), a fin, jets or a propeller; wheels on some."""
    length, r = d.uniform(1.4, 2.1), d.uniform(0.07, 0.15)
    nose = d.uniform(0.08, 0.25)
    stations = (0.0, 0.02, 0.06, nose, 0.4, 0.65, 0.85, 1.0)
    swell = (0.0, 0.4, 0.7, 1.0, 1.0, 1.0, 0.6, d.uniform(0.12, 0.3))
    path = [(0, length * (t - 0.5), r * 0.5 * max(t - 0.65, 0)) for t in stations]
    b.tube(path, [r * s for s in swell], part="fuselage", normal=(0, 0, 1), flatten=d.uniform(0.9, 1.25), solid=True)
    style = d.pick(("straight", "swept", "swept", "delta"))
    chord = d.uniform(0.22, 0.34) if style != "delta" else d.uniform(0.6, 0.9)
    span = d.uniform(0.55, 1.1) if style != "delta" else d.uniform(0.45, 0.7)
    sweep = {"straight": d.uniform(-0.03, 0.06), "swept": d.uniform(0.25, 0.5), "delta": chord * 0.75}[style]
    at, level = length * (d.uniform(-0.14, 0.02) if style != "delta" else -0.08), r * d.uniform(-0.7, 0.8)
    tip = chord * (d.uniform(0.3, 0.9) if style == "straight" else d.uniform(0.2, 0.4))
    _wings(b, span, chord, tip, sweep, at, level, rise=d.uniform(-0.02, 0.14), part="wing")
    if style == "straight" and d.chance(0.4):
        other = level + d.uniform(0.18, 0.3)
        _wings(b, span * 0.9, chord, tip, sweep, at, other, rise=0.0, part="wing")
        for x in (-span * 0.6, span * 0.6):
            b.bar((x, at + chord / 2, level), (x, at + chord / 2, other), 0.02, part="wing")
    if d.chance(0.35):
        for x, y in ((0, -0.3 * length), (-2 * r, 0.06), (2 * r, 0.06)):
            b.cylinder((x / 2, y, -r * 0.7), (x, y, -2 * r), 0.012, part="gear")
            b.cylinder((x - 0.015, y, -2 * r), (x + 0.015, y, -2 * r), 0.05, part="gear")
    end = length / 2
    fin = d.uniform(0.2, 0.36)
    root = d.uniform(0.2, 0.3)
    lean = d.uniform(0.05, 0.2)
    outline = [(end - root, 0.0), (end, 0.0), (end + lean, r + fin), (end + lean - root * 0.5, r + fin)]
    b.prism(outline, -0.012, 0.012, part="tail", plane="yz")
    if style != "delta" or d.chance(0.4):
        high = r + fin * 0.95 if d.chance(0.3) else r * 0.4
        back = end - 0.16 + (lean if high > r else 0)
        _wings(b, span * d.uniform(0.3, 0.42), 0.17, 0.1, sweep * 0.35 + 0.03, back, high, rise=0.02, part="tail")
    _engines(b, d, r, span, at + sweep * 0.35, level, end)


def _wings(
    b: Builder, span: float, chord: float, tip: float, sweep: float, y: float, z: float, *, rise: float, part: str
) -> None:
    for side in (-1, 1):
        root = [(0, y, z), (0, y + chord, z)]
        end = [(side * span, y + sweep, z + rise), (side * span, y + sweep + tip, z + rise)]
        corners = [root[0], end[0], end[1], root[1]] if side > 0 else [root[1], end[1], end[0], root[0]]
        b.plate(corners, (0, 0, -0.025), part=part)


def _engines(b: Builder, d: Draw, r: float, span: float, y: float, z: float, end: float) -> None:
    style = d.pick(("wing", "wing", "tail", "nose", "none"))
    size, long = d.uniform(0.04, 0.075), d.uniform(0.16, 0.3)
    if style == "wing":
        for share in d.pick(((0.35,), (0.35, 0.62))):
            for side in (-1, 1):
                x = side * span * share
                b.cylinder((x, y - 0.08, z - size), (x, y - 0.08 + long, z - size), size, size * 0.75, part="engine")
    elif style == "tail":
        for side in (-1, 1):
            x = side * (r + size * 0.9)
            b.cylinder((x, end - 0.5, r * 0.5), (x, end - 0.5 + long, r * 0.5), size, size * 0.75, part="engine")
    elif style == "nose":
        turn, blade = d.unit() * math.pi, d.uniform(0.16, 0.28)
        x, up = blade * math.cos(turn), blade * math.sin(turn)
        b.bar((-x, -end - 0.02, -up), (x, -end - 0.02, up), 0.04, 0.02, part="engine")
        b.cylinder((0, -end - 0.05, 0), (0, -end + 0.03, 0), 0.03, 0.05, part="engine")


def car(b: Builder, d: Draw) -> None:
    """A body and a cabin on four wheels: saloon, hatchback, van, pick-up or lorry."""
    length, w = d.uniform(1.5, 2.1), d.uniform(0.7, 0.85)
    wheel, low, belt = d.uniform(0.13, 0.2), d.uniform(0.1, 0.18), d.uniform(0.38, 0.5)
    style = d.pick(("saloon", "saloon", "hatchback", "van", "pickup", "lorry"))
    roof = belt + d.uniform(0.2, 0.32) + (0.2 if style in ("van", "lorry") else 0.0)
    front, back = -length / 2, length / 2
    hood = d.uniform(0.02, 0.1)
    body = [(front, low), (back, low), (back, belt), (0, belt), (front + 0.05, belt - hood)]
    b.prism(body, -w / 2, w / 2, part="body", plane="yz")
    b.cover((0, 0, (low + belt - hood) / 2), (w * 0.999, length * 0.93, belt - hood - low))
    windscreen = front + length * {"van": 0.03, "lorry": 0.02}.get(style, d.uniform(0.2, 0.3))
    rear = {
        "saloon": back - length * d.uniform(0.12, 0.22),
        "hatchback": back - 0.03,
        "van": back - 0.02,
        "pickup": d.uniform(0.0, 0.1),
        "lorry": front + length * d.uniform(0.2, 0.3),
    }[style]
    slope = d.uniform(0.1, 0.28) if style not in ("van", "lorry") else d.uniform(0.03, 0.12)
    drop = {"saloon": slope, "hatchback": slope * 0.8}.get(style, 0.03)
    cabin = [(windscreen, belt - hood * 0.5), (rear, belt - 0.02), (rear - drop, roof), (windscreen + slope, roof)]
    inset = w / 2 * d.uniform(0.86, 0.97)
    b.prism(cabin, -inset, inset, part="cabin", plane="yz")
    if style == "lorry":
        top = roof + d.uniform(-0.2, 0.15)
        b.box((0, (rear + 0.05 + back) / 2, (belt + top) / 2), (w, back - rear - 0.05, top - belt), part="body")
    elif style == "pickup":
        for x in (-w / 2 + 0.03, w / 2 - 0.03):
            b.box((x, (rear + back) / 2, belt + 0.05), (0.05, back - rear, 0.1), part="body")
        b.box((0, back - 0.025, belt + 0.05), (w, 0.05, 0.1), part="body")
    if d.chance(0.25):
        for x in (-inset * 0.7, inset * 0.7):
            b.bar((x, windscreen + slope, roof + 0.05), (x, rear - drop, roof + 0.05), 0.03, part="cabin")
    width = d.uniform(0.12, 0.17)
    for y in (front + length * d.uniform(0.16, 0.22), back - length * d.uniform(0.16, 0.24)):
        for side in (-1, 1):
            outer = side * (w / 2 + 0.02)
            b.cylinder((outer - side * width, y, wheel), (outer, y, wheel), wheel, part="wheel")
