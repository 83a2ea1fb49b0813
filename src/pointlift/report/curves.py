"""Learning curves as geometry: panels with axes, ticks and polylines; the template draws them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pointlift.report import text

WIDTH, HEIGHT = 400.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 14.0, 12.0, 34.0


@dataclass(frozen=True)
class Series:
    """One line of a panel: where it runs, and what it says at each epoch (None where nothing was logged)."""

    label: str
    style: str
    path: str
    ys: list[float | None]
    texts: list[str | None]


@dataclass(frozen=True)
class Panel:
    """One chart, in the units of its SVG view box."""

    key: str
    title: str
    series: list[Series]
    xs: list[float]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    selected: int | None
    width: float = WIDTH
    height: float = HEIGHT
    box: tuple[float, float, float, float] = field(default=(LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM))

    @property
    def shown(self) -> int:
        """The epoch (as a position in `xs`) whose values the caption reads at first."""
        return len(self.xs) - 1 if self.selected is None else self.selected


def nice_ticks(low: float, high: float, target: int = 5) -> list[float]:
    """About `target` round numbers that enclose [low, high]."""
    if not high > low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / max(1, target - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def epoch_ticks(epochs: Sequence[int]) -> list[int]:
    """Whole epochs to label, at most about eight."""
    first, last = epochs[0], epochs[-1]
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**9) if (last - first) / s <= 7)
    return [e for e in range(first, last + 1) if e % step == 0]


def learning_curves(epochs: list[dict[str, Any]], selected: int | None) -> list[Panel]:
    """Panels for loss, accuracy and learning rate from the epoch lines; a panel without any value is left out.

    Args:
        epochs: Epoch lines of `metrics.jsonl`, in order.
        selected: The epoch whose weights were kept, counted from 0 as files do, or None. Panels count from 1.
    """
    if not epochs:
        return []
    held = "test" if any("test" in e for e in epochs) and not any("val" in e for e in epochs) else "val"
    held_label = {"val": "validation", "test": "test"}[held]
    plans: list[tuple[str, str, list[tuple[str, str, str, str | None]], Callable[[float], str]]] = [
        (
            "loss",
            "Loss",
            [("train", "a", "train", "loss"), (held_label, "b", held, "loss")],
            text.number,
        ),
        (
            "accuracy",
            "Accuracy",
            [
                ("train", "a", "train", "accuracy"),
                (held_label, "b", held, "overall_accuracy"),
                (f"{held_label}, mean over classes", "c", held, "mean_class_accuracy"),
                (f"{held_label}, instance mIoU", "c", held, "instance_miou"),
                ("linear SVM on frozen features", "b", held, "svm_accuracy"),
            ],
            text.percent,
        ),
        ("lr", "Learning rate", [("learning rate", "a", "lr", None)], text.number),
    ]
    numbers = [int(e["epoch"]) + 1 for e in epochs]  # people count from 1
    panels = []
    for key, title, lines, show in plans:
        found = [(label, style, [value_at(e, part, k) for e in epochs]) for label, style, part, k in lines]
        found = [line for line in found if any(v is not None for v in line[2])]
        if found:
            panels.append(panel(key, title, numbers, found, show, None if selected is None else selected + 1))
    return panels


def value_at(epoch: dict[str, Any], part: str, key: str | None) -> float | None:
    """One number of an epoch line, or None where it is absent or not a number."""
    value = epoch.get(part)
    if key is not None:
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def panel(
    key: str,
    title: str,
    epochs: list[int],
    lines: list[tuple[str, str, list[float | None]]],
    show: Callable[[float], str],
    selected: int | None,
) -> Panel:
    """Lay out one chart."""
    values = [v for _, _, line in lines for v in line if v is not None]
    if key == "accuracy":
        ticks = [t for t in nice_ticks(min(values), max(values)) if -1e-9 <= t <= 1 + 1e-9]
        if len(ticks) < 2:
            ticks = [0.0, 1.0]
    else:
        ticks = nice_ticks(min(0.0, *values), max(values)) if len(values) else [0.0, 1.0]
    x0, y0, x1, y1 = LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM
    span = max(1, epochs[-1] - epochs[0])

    def x(epoch: float) -> float:
        return round((x0 + x1) / 2 if len(epochs) == 1 else x0 + (x1 - x0) * (epoch - epochs[0]) / span, 1)

    def y(value: float) -> float:
        return round(y1 - (y1 - y0) * (value - ticks[0]) / (ticks[-1] - ticks[0]), 1)

    xs = [x(e) for e in epochs]
    series = [
        Series(
            label=label,
            style=style,
            path=polyline(xs, [None if v is None else y(v) for v in line]),
            ys=[None if v is None else y(v) for v in line],
            texts=[None if v is None else show(v) for v in line],
        )
        for label, style, line in lines
    ]
    return Panel(
        key=key,
        title=title,
        series=series,
        xs=xs,
        x_ticks=[(x(e), str(e)) for e in epoch_ticks(epochs)],
        y_ticks=[(y(t), f"{t * 100:g}{text.THIN}%" if key == "accuracy" else text.tick(t, ticks[-1])) for t in ticks],
        selected=epochs.index(selected) if selected in epochs else None,
    )


def polyline(xs: list[float], ys: list[float | None]) -> str:
    """An SVG path through the points that exist; a gap starts a new stroke, a lone point becomes a dot."""
    parts: list[str] = []
    drawing = False
    for x, y in zip(xs, ys, strict=True):
        if y is None:
            drawing = False
            continue
        parts.append(f"{'L' if drawing else 'M'}{x:g} {y:g}" + ("" if drawing else "h0"))
        drawing = True
    return "".join(parts)
