"""The picture of a pre-training run: its curves, and a few clouds with what was seen of them and what was rebuilt."""

from __future__ import annotations

from typing import Any

import numpy as np

from pointlift.report import facts, text
from pointlift.report.curves import value_at
from pointlift.report.page import title, up_axis
from pointlift.report.picture_parts import (
    INK,
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
from pointlift.report.reconstructions import HIDDEN, REBUILT, SEEN, Reconstruction, Reconstructions, roles
from pointlift.report.run import RunFolder

CLOUDS = 6
HIDDEN_COLOUR = "#8a8d90"
COLOURS = {SEEN: RIGHT, REBUILT: WRONG, HIDDEN: HIDDEN_COLOUR}


def draw_pretraining(run: RunFolder) -> Any:
    """The figure; parts whose file is missing say so."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rebuilt = run.reconstructions
    figure = Figure(figsize=(12, 10), facecolor="white")
    FigureCanvasAgg(figure)
    heading(figure, run)
    upper = figure.add_gridspec(1, 2, left=0.05, right=0.975, top=0.86, bottom=0.665, wspace=0.16)
    part, name = held_out(run)
    losses = [Line("train", "train", "loss"), Line(name, part, "loss", WRONG, "--")]
    curve(figure.add_subplot(upper[0, 0]), run, "Loss", losses)
    beside = figure.add_subplot(upper[0, 1])
    if any(value_at(line, part, "svm_accuracy") is not None for line in run.epochs):
        curve(
            beside,
            run,
            "Accuracy of a linear SVM on frozen features",
            [Line("linear SVM on frozen features", part, "svm_accuracy")],
            percent=True,
        )
    else:
        curve(beside, run, "Learning rate", [Line("learning rate", "lr")])
    if rebuilt is None or not rebuilt.items:
        axes = figure.add_subplot(figure.add_gridspec(1, 1, left=0.05, right=0.975, top=0.56, bottom=0.05)[0, 0])
        tidy(axes)
        absent(axes, "no reconstructions (reconstructions.npz)")
    else:
        clouds(figure, rebuilt, up_axis(run.record))
    return figure


def heading(figure: Any, run: RunFolder) -> None:
    """What was learned, on what, and what it came to."""
    record = run.record
    key = facts.headline(record)
    score = facts.metric_text(key, facts.number_at(record, "metrics", key), 2)
    epochs, seen = facts.number_at(record, "epochs"), facts.number_at(record, "samples_seen")
    said = [
        f"objective {facts.plain(facts.lookup(record, 'objective', 'name'))}",
        f"{text.count(epochs)} epoch{'' if epochs == 1 else 's'}" if epochs else "",
        f"{text.count(seen)} clouds seen" if seen else "",
        f"{text.count(facts.number_at(record, 'points'))} points",
        f"seed {record['seed']}" if record.get("seed") is not None else "",
    ]
    line = ", ".join(part for part in said if part)
    headings(figure, title(record), line, score, f"{facts.metric_name(key)} on held-out clouds")


def clouds(figure: Any, rebuilt: Reconstructions, up: str) -> None:
    """A column per cloud, a row per part of it; all of a column in one frame."""
    items = rebuilt.items[:CLOUDS]
    rows = ("input", "seen", "prediction") if rebuilt.masked else ("input", "coarse", "rebuilt")
    grid = figure.add_gridspec(
        *(len(rows), CLOUDS), left=0.06, right=0.985, top=0.585, bottom=0.035, wspace=0.05, hspace=0.06
    )
    for column, item in enumerate(items):
        drawn = parts(item, masked=rebuilt.masked)
        frame = np.concatenate([xyz for xyz, _ in drawn])
        for row, (name, (xyz, colours)) in enumerate(zip(rows, drawn, strict=True)):
            axes = figure.add_subplot(grid[row, column])
            cloud(axes, xyz, up, colours, frame=frame)
            if row == 0:
                axes.set_title(
                    f"CD-L2 {plain(text.number(1000 * item.cd_l2))}", fontsize=9, color=INK, pad=2, parse_math=False
                )
            if column == 0:
                axes.set_ylabel(short(name, 14), fontsize=9.5, color=SOFT, labelpad=4)
    note = "grey: hidden from the network; orange: rebuilt; " if rebuilt.masked else ""
    figure.text(
        *(0.985, 0.012, f"{note}CD-L2: squared Chamfer distance of what was rebuilt, times 1,000"),
        fontsize=8, color=SOFT, ha="right",
    )  # fmt: skip


def parts(item: Reconstruction, *, masked: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Points and the colour of each, for the three rows."""
    if not masked:
        return [(xyz, painted(np.full(len(xyz), SEEN))) for xyz in (item.whole, item.coarse, item.rebuilt)]
    both = np.concatenate([item.given, item.rebuilt])
    role = np.repeat([SEEN, REBUILT], [len(item.given), len(item.rebuilt)])
    return [
        (item.whole, painted(roles(item))),
        (item.given, painted(np.full(len(item.given), SEEN))),
        (both, painted(role)),
    ]


def painted(role: np.ndarray) -> np.ndarray:
    """A colour (P, 3) from 0 to 1 for each point's role."""
    table = np.array([[int(COLOURS[k][i : i + 2], 16) / 255 for i in (1, 3, 5)] for k in sorted(COLOURS)])
    return table[role]
