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
from pointlift.report.gallery import Tile, gallery
from pointlift.report.page import class_names, title, up_axis
from pointlift.report.picture_parts import (
    INK,
    LINE,
    RIGHT,
    SOFT,
    WRONG,
    Line,
    absent,
    cloud,
    curve,
    headings,
    held_out,
    plain,
    short,
    tidy,
)
from pointlift.report.run import RunFolder, read_run
from pointlift.tasks.metrics import confusion_matrix

ENDINGS = ("png", "pdf", "svg")
CLOUDS = 6


def write_picture(run_dir: Path, out: Path) -> Path:
    """Write one figure of a run: score, learning curves, confusion matrix and a row of clouds.

    Of a pre-training run: its curves, and clouds with what was seen of them and what was rebuilt.

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
    if run.record.get("task") == "part_segmentation":
        raise UsageError("a picture of a part segmentation run", "its page, which shows the clouds", "Leave --png out")
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
    if facts.is_pretraining(run.record):
        from pointlift.report.picture_rebuilt import draw_pretraining

        return draw_pretraining(run)
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
    part, name = held_out(run)
    accuracy = [Line("train", "train", "accuracy"), Line(name, part, "overall_accuracy", WRONG, "--")]
    curve(figure.add_subplot(upper[0, 0]), run, "Accuracy", accuracy, percent=True)
    losses = [Line("train", "train", "loss"), Line(name, part, "loss", WRONG, "--")]
    curve(figure.add_subplot(upper[1, 0]), run, "Loss", losses)
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
    headings(figure, title(record), line, text.percent(score, 2), f"mean class accuracy {text.percent(mean, 2)}")


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
