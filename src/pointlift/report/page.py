"""`write_report`: one self-contained `report.html` from a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pointlift.report import facts, scores
from pointlift.report.beside import beside
from pointlift.report.curves import Panel, learning_curves
from pointlift.report.gallery import gallery
from pointlift.report.html import CLOUD_SCRIPTS, render_page, write_page
from pointlift.report.inside import runs_inside
from pointlift.report.matrix import MatrixView, matrix_view
from pointlift.report.reconstructions import shown as shown_reconstructions
from pointlift.report.run import Predictions, RunFolder, read_run
from pointlift.report.segments import category_rows
from pointlift.report.segments import shown as shown_segments
from pointlift.tasks.metrics import confusion_matrix, overall_accuracy

MISTAKES_SHOWN = 20
CONFUSIONS_SHOWN = 10


def write_report(run_dir: Path, *, out: Path | None = None) -> Path:
    """Write the report of a run: score with its record, curves, confusions, classes, mistakes, clouds.

    The page needs no network, no other file and no script to be read; scripts add sorting, reading values
    and turning clouds. Sections whose file is missing are absent, and a line says so.

    Args:
        run_dir: A run folder with `record.json` and, if there, `metrics.jsonl`, `predictions.npz`, `config.yaml`.
        out: Where the page goes; `report.html` of the run folder by default. Replaced in one step.

    Returns:
        The path of the page.

    Raises:
        DataError: Not a run folder, or a file of it is malformed.
        PointLiftError: The page cannot be written.
    """
    run = read_run(Path(run_dir))
    target = Path(out) if out is not None else run.path / "report.html"
    return write_page(render(run), target)


def render(run: RunFolder) -> str:
    """The page as text."""
    return render_page("page.html.j2", ("page.js", *CLOUD_SCRIPTS), context(run))


def context(run: RunFolder) -> dict[str, Any]:
    """Everything the template shows."""
    record, predictions = run.record, run.predictions
    classes = class_names(record, predictions)
    total = len(predictions.label) if predictions else len(run.segments.iou) if run.segments else 0
    probabilities = scores.softmax(predictions.logits) if predictions else np.zeros((0, len(classes)))
    matrix = np.zeros((len(classes), len(classes)), dtype=np.int64)
    if predictions is not None:
        matrix = confusion_matrix(probabilities.argmax(axis=1), predictions.label, len(classes))
    right = int(np.trace(matrix))
    counted = overall_accuracy(matrix) if predictions and total else None
    headline = facts.headline(record)
    recorded = facts.number_at(record, "metrics", headline)
    score = counted if recorded is None and headline == "overall_accuracy" else recorded
    decimals = 1 if 0 < total < 1000 else 2
    selected = facts.number_at(record, "epoch")
    panels = learning_curves(run.epochs, None if selected is None else int(selected))
    view = matrix_view(matrix, classes) if predictions and total else None
    tiles = gallery(predictions, probabilities) if predictions and total else []
    rebuilt = shown_reconstructions(run.reconstructions) if run.reconstructions else None
    segments = shown_segments(run.segments) if run.segments else None
    packed = rebuilt.packed if rebuilt else segments.packed if segments else [tile.points for tile in tiles]
    return {
        "title": title(record),
        "record": record,
        "record_json": json.dumps(record, indent=2, ensure_ascii=False),
        "config": run.config,
        "score": facts.metric_text(headline, score, decimals),
        "score_name": facts.metric_name(headline),
        "other_metrics": facts.other_metrics(record, decimals),
        "interval": scores.wilson_interval(right, total) if total and headline == "overall_accuracy" else None,
        "decimals": decimals,
        "total": total,
        "split": facts.plain(record.get("split") or "the scored split"),
        "command": record.get("command"),
        "groups": facts.record_groups(record),
        "notes": facts.notes(run, counted),
        "split_scores": facts.split_scores(record, decimals),
        "shares": facts.parameter_shares(record),
        "part_rows": facts.part_shares(record),
        "panels": panels,
        "epochs": [int(line["epoch"]) + 1 for line in run.epochs],
        "beside": beside(record, headline, score, decimals),
        "inside": runs_inside(run.path, record, decimals),
        "classes": classes,
        "matrix": view,
        "confusions": scores.top_confusions(matrix, CONFUSIONS_SHOWN),
        "class_rows": scores.class_rows(matrix, classes) if predictions and total else [],
        "segments": segments,
        "category_rows": category_rows(record),
        "mistakes": scores.confident_mistakes(probabilities, predictions.label, MISTAKES_SHOWN) if predictions else [],
        "wrong": total - right,
        "predictions": predictions,
        "tiles": tiles,
        "data": page_data(panels, view, run.epochs),
        "rebuilt": rebuilt,
        "why_not_rebuilt": None if rebuilt or not facts.is_pretraining(record) else why_not_rebuilt(run),
        "clouds": cloud_data(record, packed),
    }


def class_names(record: dict[str, Any], predictions: Predictions | None) -> list[str]:
    """The record's class names, or numbers when it has none."""
    names = facts.lookup(record, "dataset", "classes")
    if isinstance(names, list):
        return [facts.plain(name) for name in names]
    return [f"class {i}" for i in range(predictions.logits.shape[1] if predictions else 0)]


def title(record: dict[str, Any]) -> str:
    """`point_mae_tiny on shapes`."""
    arch = facts.plain(facts.lookup(record, "model", "arch") or "model")
    data = facts.lookup(record, "dataset", "name")
    return f"{arch} on {facts.plain(data)}" if data else arch


def page_data(panels: list[Panel], view: MatrixView | None, epochs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the scripts read: positions and texts of the curves, counts and orders of the matrix."""
    data: dict[str, Any] = {
        "epochs": [int(line["epoch"]) + 1 for line in epochs],
        "panels": {
            panel.key: {
                "xs": panel.xs,
                "shown": panel.shown,
                "series": [{"ys": line.ys, "texts": line.texts} for line in panel.series],
            }
            for panel in panels
        },
    }
    if view is not None:
        data["matrix"] = {
            "classes": view.classes,
            "cell": view.cell,
            "support": view.support,
            "cells": [[cell.row, cell.column, cell.count] for cell in view.cells],
            "orders": view.orders,
        }
    return data


def cloud_data(record: dict[str, Any], packed: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What the cloud scripts read: the up axis and the points of each tile; None where there are none."""
    return {"up": up_axis(record), "clouds": packed} if packed else None


def why_not_rebuilt(run: RunFolder) -> str:
    """Why the page of a pre-training run shows no clouds, and what to do."""
    again = "`pointlift report RUN --show 12` makes some from the run's data."
    if "keep_clouds: 0" in (run.config or "").splitlines():
        return f"No clouds were kept (keep_clouds is 0). {again}"
    return f"This run folder has no reconstructions (reconstructions.npz). {again}"


def up_axis(record: dict[str, Any]) -> str:
    """The record's up axis; z where it has none."""
    up = facts.lookup(record, "dataset", "up_axis")
    return up if up in ("x", "y", "z") else "z"
