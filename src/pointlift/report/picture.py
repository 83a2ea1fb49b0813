"""`write_picture`: a run on one figure for a slide or a paper, drawn without a display."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from pointlift.core.errors import UsageError
from pointlift.engine.files import write_atomic
from pointlift.engine.run_folder import make
from pointlift.report import facts, scores, text
from pointlift.report.curves import epoch_ticks, value_at
from pointlift.report.gallery import Tile, gallery
from pointlift.report.page import class_names, title, up_axis
from pointlift.report.points import normals
from pointlift.report.run import RunFolder, read_run
from pointlift.tasks.metrics import confusion_matrix

ENDINGS = ("png", "pdf", "svg")
CLOUDS = 6
INK, SOFT, LINE = "#1c2127", "#5c6570", "#d9d6cf"
RIGHT, WRONG = "#0b66ad", "#c2500f"
LIGHT = np.array([-0.46, 0.62, 0.64])  # from the upper left, in front


def write_picture(run_dir: Path, out: Path) -> Path:
    """Write one figure of a run: score, learning curves, confusion matrix and a row of clouds.

    Args:
        run_dir: A run folder, as for `write_report`.
        out: Where it goes; the ending `.png`, `.pdf` or `.svg` decides what it is. Replaced in one step.

    Returns:
        The path of the figure.

    Raises:
        UsageError: Another ending.
        DataError: Not a run folder, or a file of it is malformed.
        PointLiftError: The file cannot be written.
    """
    out = Path(out)
    ending = out.suffix.lower().removeprefix(".")
    if ending not in ENDINGS:
        raise UsageError(f"a picture {out.name!r}", "a name that ends in .png, .pdf or .svg")
    run = read_run(Path(run_dir))
    figure = draw(run)
    buffer = io.BytesIO()
    # No time stamp: the same run gives the same bytes.
    stamp = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[ending]
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "pointlift", "svg.fonttype": "none"}):
        figure.savefig(buffer, format=ending, dpi=160, metadata={**stamp, "Title": title(run.record)})
    make(out.parent)
    write_atomic(out, buffer.getvalue(), hint="Give another place, or free some space")
    return out


def draw(run: RunFolder) -> Any:
    """The figure; parts whose file is missing say so."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    record, predictions = run.record, run.predictions
    classes = class_names(record, predictions)
    probabilities = scores.softmax(predictions.logits) if predictions else np.zeros((0, 0))
    tiles = chosen(gallery(predictions, probabilities)) if predictions and len(predictions.label) else []
    figure = Figure(figsize=(12, 8 if tiles else 6), facecolor="white")
    FigureCanvasAgg(figure)
    heading(figure, run, classes)
    upper = figure.add_gridspec(
        *(2, 2),
        width_ratios=[1, 1.12],
        left=0.05,
        right=0.975,
        top=0.85 if tiles else 0.8,
        bottom=0.37 if tiles else 0.16,  # names of classes stand below the matrix
        wspace=0.22,
        hspace=0.55,
    )
    curve(figure.add_subplot(upper[0, 0]), run, "overall_accuracy", "accuracy", "Accuracy")
    curve(figure.add_subplot(upper[1, 0]), run, "loss", "loss", "Loss")
    matrix(figure.add_subplot(upper[:, 1]), run, probabilities, classes)
    if tiles and predictions is not None and predictions.clouds is not None:
        row = figure.add_gridspec(1, CLOUDS, left=0.03, right=0.985, top=0.235, bottom=0.035, wspace=0.05)
        kept = {int(r): i for i, r in enumerate(predictions.cloud_rows)}
        for i, tile in enumerate(tiles):
            axes = figure.add_subplot(row[0, i])
            cloud(axes, predictions.clouds[kept[tile.row]], up_axis(record), RIGHT if tile.right else WRONG)
            sure = text.sureness(tile.probability)
            said = "recognised" if tile.right else f"taken for {short(classes[tile.predicted], 14)}"
            axes.set_title(short(classes[tile.true], 18), fontsize=9, color=INK, pad=2, parse_math=False)
            ink = SOFT if tile.right else WRONG
            axes.set_xlabel(f"{said}, {plain(sure)}", fontsize=8, color=ink, labelpad=2, parse_math=False)
    return figure


def chosen(tiles: list[Tile]) -> list[Tile]:
    """Half mistakes, half right answers where there are as many, of as many classes as possible."""
    groups: dict[bool, list[Tile]] = {}
    for right in (False, True):
        of_kind = [tile for tile in tiles if tile.right is right]
        turn = [sum(other.true == tile.true for other in of_kind[:i]) for i, tile in enumerate(of_kind)]
        groups[right] = [of_kind[i] for i in np.argsort(turn, kind="stable")]
    wrong, right_ones = groups[False], groups[True]
    half = max(CLOUDS // 2, CLOUDS - len(right_ones))
    return [*wrong[:half], *right_ones][:CLOUDS]


def heading(figure: Any, run: RunFolder, classes: list[str]) -> None:
    """What was measured, on what."""
    record, predictions = run.record, run.predictions
    score = facts.number_at(record, "metrics", "overall_accuracy")
    mean = facts.number_at(record, "metrics", "mean_class_accuracy")
    top = 1 - 0.42 / figure.get_figheight()
    figure.text(
        0.05, top, short(title(record), 70), fontsize=17, weight="bold", color=INK, va="center", parse_math=False
    )
    figure.text(
        0.975, top, plain(text.percent(score, 2)), fontsize=23, weight="bold", color=INK, ha="right", va="center"
    )
    clouds = f"{len(predictions.label):,} " if predictions else ""
    points = facts.number_at(record, "points")
    parts = [
        f"overall accuracy on {clouds}{facts.plain(record.get('split') or '')} clouds of {len(classes)} classes",
        f"{points:,.0f} points" if points else "",
        f"adaptation {facts.plain(facts.lookup(record, 'model', 'adaptation') or 'not recorded')}",
        f"epoch {facts.plain(record['epoch_rule'])}" if record.get("epoch_rule") else "",
        f"seed {record['seed']}" if record.get("seed") is not None else "",
    ]
    line = ", ".join(part for part in parts if part)
    low = top - 0.36 / figure.get_figheight()
    figure.text(0.05, low, short(line, 125), fontsize=9.5, color=SOFT, va="center", parse_math=False)
    figure.text(
        *(0.975, low, f"mean class accuracy {plain(text.percent(mean, 2))}"),
        fontsize=9.5, color=SOFT, ha="right", va="center",
    )  # fmt: skip


def curve(axes: Any, run: RunFolder, held: str, trained: str, name: str) -> None:
    """Training and held-out values by epoch, counted from 1; the kept epoch as a dotted line."""
    from matplotlib.ticker import PercentFormatter

    epochs = [int(line["epoch"]) + 1 for line in run.epochs]
    part = "val" if any("val" in line for line in run.epochs) else "test"
    label = {"val": "validation", "test": "test"}[part]
    lines = [("train", RIGHT, "-", "train", trained), (label, WRONG, "--", part, held)]
    found = False
    for what, colour, style, where, key in lines:
        values = [value_at(line, where, key) for line in run.epochs]
        if any(value is not None for value in values):
            found = True
            ys = [np.nan if value is None else value for value in values]
            axes.plot(epochs, ys, style, color=colour, label=what, linewidth=1.7, marker="o" if len(ys) == 1 else None)
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
    if name == "Accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(
        fontsize=8.5, edgecolor="none", framealpha=0.9, loc="lower right" if name == "Accuracy" else "upper right"
    )


def matrix(axes: Any, run: RunFolder, probabilities: np.ndarray, classes: list[str]) -> None:
    """The confusion matrix as shares of its rows: blue is right, orange is wrong."""
    axes.set_title("Confusions (rows: true class)", loc="left", fontsize=10.5, color=INK, weight="bold")
    predictions = run.predictions
    if predictions is None or not len(predictions.label):
        tidy(axes)
        return absent(axes, "no predictions (predictions.npz)")
    counts = confusion_matrix(probabilities.argmax(axis=1), predictions.label, len(classes))
    strength = (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))[..., None] ** 0.6
    right, wrong = (np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)]) / 255 for c in (RIGHT, WRONG))
    colour = np.where(np.eye(len(classes), dtype=bool)[..., None], right, wrong)
    axes.imshow(1 - strength * (1 - colour), interpolation="nearest", aspect="equal")
    every = range(len(classes)) if len(classes) <= 45 else range(0, len(classes), -(-len(classes) // 45))
    size = 8.5 if len(classes) <= 18 else 6.5 if len(classes) <= 30 else 5
    names = [short(classes[i], 14) for i in every]
    axes.set_xticks(list(every), names, rotation=90, fontsize=size, color=SOFT, parse_math=False)
    axes.set_yticks(list(every), names, fontsize=size, color=SOFT, parse_math=False)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_color(LINE)
    if len(classes) <= 18:
        for i, j in zip(*np.nonzero(counts), strict=True):
            ink = "white" if strength[i, j, 0] > 0.6 else INK
            axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=6.5, color=ink)


def cloud(axes: Any, xyz: np.ndarray, up: str, colour: str) -> None:
    """One cloud from the side and a little above, far points first, lit like the page's."""
    right, high, front, sign = {"x": (1, 0, 2, -1), "y": (0, 1, 2, 1), "z": (0, 2, 1, -1)}[up]
    view = turned(np.stack([xyz[:, right], xyz[:, high], sign * xyz[:, front]], axis=1).astype(np.float64))
    view -= (view.max(axis=0) + view.min(axis=0)) / 2
    facing = normals(view)
    facing *= np.where(facing[:, 2:] < 0, -1, 1)  # a seen surface faces the eye
    light = 0.5 + 0.5 * facing @ LIGHT
    depth = (view[:, 2] - view[:, 2].min()) / (np.ptp(view[:, 2]) or 1.0)
    base = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    shade = np.clip((0.5 + 0.75 * light**2) * (0.7 + 0.3 * depth), 0, 1.2)[:, None]
    rgb = np.clip(base * shade + (1 - depth[:, None]) * 0.18, 0, 1)
    order = np.argsort(view[:, 2])
    size = 9 * min(1.6, (1024 / len(view)) ** 0.5)
    axes.scatter(view[order, 0], view[order, 1], s=size, c=rgb[order], linewidths=0, rasterized=True)
    reach = 1.05 * float(np.abs(view[:, :2]).max() or 1.0)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal", frame_on=False)


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
