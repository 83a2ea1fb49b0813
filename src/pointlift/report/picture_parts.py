"""What pictures are made of: headings, curves, clouds, and the words for what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pointlift.report import facts, text
from pointlift.report.curves import epoch_ticks, value_at
from pointlift.report.points import normals
from pointlift.report.run import RunFolder

INK, SOFT, LINE = "#1c2127", "#5c6570", "#d9d6cf"
RIGHT, WRONG = "#0b66ad", "#c2500f"
LIGHT = np.array([-0.46, 0.62, 0.64])  # from the upper left, in front


def headings(figure: Any, name: str, line: str, score: str, under: str) -> None:
    """Title and what it is about on the left, the score and a second one on the right."""
    top = 1 - 0.42 / figure.get_figheight()
    low = top - 0.36 / figure.get_figheight()
    figure.text(0.05, top, short(name, 70), fontsize=17, weight="bold", color=INK, va="center", parse_math=False)
    figure.text(0.975, top, plain(score), fontsize=23, weight="bold", color=INK, ha="right", va="center")
    figure.text(0.05, low, short(line, 125), fontsize=9.5, color=SOFT, va="center", parse_math=False)
    figure.text(0.975, low, plain(under), fontsize=9.5, color=SOFT, ha="right", va="center", parse_math=False)


@dataclass(frozen=True)
class Line:
    """One line of a chart: what it is called, and where its numbers are in an epoch line."""

    label: str
    part: str
    key: str | None = None
    colour: str = RIGHT
    style: str = "-"


def held_out(run: RunFolder) -> tuple[str, str]:
    """The part of the epoch lines that is held out, and what it is called."""
    part = "val" if any("val" in line for line in run.epochs) else "test"
    return part, {"val": "validation", "test": "test"}[part]


def curve(axes: Any, run: RunFolder, name: str, lines: list[Line], *, percent: bool = False) -> None:
    """Values by epoch, counted from 1; the kept epoch as a dotted line."""
    from matplotlib.ticker import PercentFormatter

    epochs = [int(line["epoch"]) + 1 for line in run.epochs]
    found = False
    for line in lines:
        values = [value_at(epoch, line.part, line.key) for epoch in run.epochs]
        if any(value is not None for value in values):
            found = True
            ys = [np.nan if value is None else value for value in values]
            marker = "o" if len(ys) == 1 else None
            axes.plot(epochs, ys, line.style, color=line.colour, label=line.label, linewidth=1.7, marker=marker)
    axes.set_title(name, loc="left", fontsize=10.5, color=INK, weight="bold")
    tidy(axes)
    if not found:
        return absent(axes, "no epoch lines (metrics.jsonl)")
    kept = facts.number_at(run.record, "epoch")
    if kept is not None:
        axes.axvline(kept + 1, color=SOFT, linewidth=1, linestyle=":")
    axes.set_xticks(epoch_ticks(epochs))
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    axes.set_xlabel("epoch", fontsize=8.5, color=SOFT)
    axes.grid(axis="y", color=LINE, linewidth=0.7)
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if len(lines) == 1:
        return None  # the title says it
    axes.legend(fontsize=8.5, edgecolor="none", framealpha=0.9, loc="lower right" if percent else "upper right")


def cloud(axes: Any, xyz: np.ndarray, up: str, colour: str | np.ndarray, *, frame: np.ndarray | None = None) -> None:
    """One cloud from the side and a little above, far points first, lit like the page's.

    Args:
        axes: Where.
        xyz: (P, 3).
        up: Its up axis.
        colour: "#rrggbb", or a colour (P, 3) from 0 to 1 for each point.
        frame: (M, 3) points that decide place and scale instead of the cloud's own.
    """
    if not len(xyz):  # a stored cloud may lack a part that the others have
        return absent(axes, "no points")
    view, around = on_screen(xyz, up), on_screen(xyz if frame is None else frame, up)
    middle = (around.max(axis=0) + around.min(axis=0)) / 2
    view, around = view - middle, around - middle
    facing = normals(view)
    facing *= np.where(facing[:, 2:] < 0, -1, 1)  # a seen surface faces the eye
    light = 0.5 + 0.5 * facing @ LIGHT
    depth = (view[:, 2] - view[:, 2].min()) / (np.ptp(view[:, 2]) or 1.0)
    base = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255 if isinstance(colour, str) else colour
    shade = np.clip((0.5 + 0.75 * light**2) * (0.7 + 0.3 * depth), 0, 1.2)[:, None]
    rgb = np.clip(base * shade + (1 - depth[:, None]) * 0.18, 0, 1)
    order = np.argsort(view[:, 2])
    size = 9 * min(1.6, (1024 / len(view)) ** 0.5)
    axes.scatter(view[order, 0], view[order, 1], s=size, c=rgb[order], linewidths=0, rasterized=True)
    reach = 1.05 * float(np.abs(around[:, :2]).max() or 1.0)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal", frame_on=False)


def on_screen(xyz: np.ndarray, up: str) -> np.ndarray:
    """Columns right, up, towards the eye."""
    right, high, front, sign = {"x": (1, 0, 2, -1), "y": (0, 1, 2, 1), "z": (0, 2, 1, -1)}[up]
    return turned(np.stack([xyz[:, right], xyz[:, high], sign * xyz[:, front]], axis=1).astype(np.float64))


def turned(xyz: np.ndarray, yaw: float = 0.6, pitch: float = 0.32) -> np.ndarray:
    """Columns right, up, towards the eye, after turning about the upright and tipping forward."""
    x, y, z = xyz.T
    front = np.cos(yaw) * z - np.sin(yaw) * x
    return np.stack(
        [
            np.cos(yaw) * x + np.sin(yaw) * z,
            np.cos(pitch) * y - np.sin(pitch) * front,
            np.cos(pitch) * front + np.sin(pitch) * y,
        ],
        axis=1,
    )


def tidy(axes: Any) -> None:
    """Axes without a frame."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)
    axes.tick_params(labelsize=8.5, colors=SOFT, length=3)


def absent(axes: Any, why: str) -> None:
    """Say what is missing where it would be."""
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, f"Not there: {why}", transform=axes.transAxes, ha="center", va="center", fontsize=9, color=SOFT)


def plain(words: str) -> str:
    """Text that every font of matplotlib can draw: its own has no narrow space."""
    return words.replace(text.THIN, "\N{NO-BREAK SPACE}")


def short(words: str, length: int) -> str:
    """At most `length` characters in one line."""
    line = plain(" ".join(words.split()))
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"
