"""`write_comparison`: one page that sets runs side by side, and says when they cannot be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pointlift.report import facts, scores, text
from pointlift.report.compare import (
    SEEDS_FOR_A_CLAIM,
    Compared,
    Disputed,
    Pair,
    differing,
    disputed,
    pairs,
    ranked,
    read_runs,
    same_clouds,
    seed_groups,
    with_keys,
)
from pointlift.report.curves import Panel, panel, value_at
from pointlift.report.gallery import MAX_BYTES, MAX_CLOUDS
from pointlift.report.html import CLOUD_SCRIPTS, render_page, write_page
from pointlift.report.page import class_names, title, up_axis
from pointlift.report.points import bytes_per_point, pack
from pointlift.tasks.metrics import confusion_matrix

DISPUTED_LISTED = 20
STYLES = 8  # line styles of the overlaid curves; more runs use them again


def write_comparison(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """Write a page that compares runs: scores, what differs, curves, classes, clouds in dispute.

    Runs on different data or splits are shown side by side with a warning, and are neither ranked nor tested.

    Args:
        run_dirs: Two or more run folders, each with `record.json`.
        out: The page; `comparison.html` beside the first run folder by default. Replaced in one step.

    Returns:
        The path of the page.

    Raises:
        UsageError: Fewer than two folders, or one given twice.
        DataError: Not a run folder, or a file of it is malformed.
        PointLiftError: The page cannot be written.
    """
    runs = read_runs(run_dirs)
    target = Path(out) if out is not None else Path(run_dirs[0]).resolve().parent / "comparison.html"
    return write_page(render_page("comparison.html.j2", ("page.js", *CLOUD_SCRIPTS), context(runs)), target)


def context(runs: list[Compared]) -> dict[str, Any]:
    """Everything the template shows."""
    same = all(same_clouds(runs[0], run) for run in runs[1:])
    if same:
        runs = with_keys(ranked(runs))
    answered = same and all(run.answers is not None and len(run.answers) for run in runs)
    classes = class_names(runs[0].run.record, runs[0].run.predictions)
    disputes = disputed(runs) if answered else []
    tiles = disputed_tiles(runs, disputes, classes)
    epochs, panels = overlaid(runs)
    tested = pairs(runs)
    return {
        "title": f"{len(runs)} runs compared",
        "same": same,
        "runs": [run_row(run) for run in runs],
        "warnings": warnings(runs, same),
        "differing": differing(runs),
        "without_config": [run.key for run in runs if run.config is None],
        "groups": seed_groups(runs),
        "enough": SEEDS_FOR_A_CLAIM,
        "of_parts": all(run.of_parts for run in runs),
        "pairs": [pair_row(pair) for pair in tested],
        "all_pairs": len(runs) <= 6,
        "panels": panels,
        "epochs": epochs,
        "classes": classes,
        "class_rows": class_rows(runs, classes) if answered else [],
        "total": len(runs[0].run.predictions.label) if answered and runs[0].run.predictions else 0,
        "disputes": len(disputes),
        "dispute_rows": [dispute_row(runs, d, classes) for d in disputes[:DISPUTED_LISTED]],
        "tiles": tiles,
        "data": {
            "epochs": epochs,
            "panels": {
                p.key: {"xs": p.xs, "shown": p.shown, "series": [{"ys": s.ys, "texts": s.texts} for s in p.series]}
                for p in panels
            },
        },
        "clouds": {"up": up_axis(runs[0].run.record), "clouds": [tile["points"] for tile in tiles]} if tiles else None,
    }


def run_row(run: Compared) -> dict[str, Any]:
    """One line of the table of runs."""
    record, right = run.run.record, run.right
    interval = scores.wilson_interval(int(right.sum()), len(right)) if right is not None and len(right) else None
    epoch, epochs = facts.number_at(record, "epoch"), facts.number_at(record, "epochs")
    return {
        "key": run.key,
        "name": run.name,
        "title": title(record),
        "accuracy": run.accuracy,
        "interval": interval,
        "mean": facts.number_at(record, "metrics", "class_miou" if run.of_parts else "mean_class_accuracy"),
        "trainable": facts.number_at(record, "model", "trainable"),
        "parameters": facts.number_at(record, "model", "parameters"),
        "adaptation": facts.plain(facts.lookup(record, "model", "adaptation") or "–"),
        "epoch": "–" if epoch is None else f"{epoch + 1:g}" + (f" of {epochs:g}" if epochs else ""),
        "rule": facts.plain(record.get("epoch_rule") or "–"),
        "seconds": facts.number_at(record, "time", "train_seconds"),
        "seed": facts.plain(record.get("seed") if record.get("seed") is not None else "–"),
    }


def warnings(runs: Sequence[Compared], same: bool) -> list[str]:
    """Why the runs cannot be compared, and what is wrong with single ones."""
    said = []
    if not same:
        unknown = [run.key for run in runs if run.data is None]
        if unknown:
            said.append(
                f"Not comparable: {', '.join(unknown)} recorded no content hash, so nobody can tell whether the clouds "
                "are the same. The runs stand in the order given, without ranking or tests across them."
            )
        elif all(run.data == runs[0].data for run in runs):
            said.append(
                "Not comparable: content hash and split agree, but not every run has predictions of the same clouds "
                "beside it to prove that the clouds are the same. The runs stand in the order given, without ranking."
            )
        else:
            said.append(
                "Not comparable: the runs were scored on different data or different splits. They stand in the order "
                "given, and there is no ranking and no test between runs on different clouds."
            )
    rules = {facts.plain(run.run.record.get("epoch_rule")) for run in runs}
    scored = {
        (facts.plain(run.run.record.get("protocol")), facts.number_at(run.run.record, "voting", "rounds"))
        for run in runs
    }
    if same and "best on test" in rules and len(rules) > 1:
        said.append("Some runs chose their epoch on the split they are scored on (best on test), others did not.")
    if len(scored) > 1:
        said.append("The runs were scored by different protocols (plain, votes): part of a difference is that.")
    for run in runs:
        said.extend(f"{run.key}: {note.text}" for note in facts.notes(run.run, counted(run)) if note.warning)
    return said


def counted(run: Compared) -> float | None:
    """Accuracy counted from the predictions."""
    return float(run.right.mean()) if run.right is not None and len(run.right) else None


def pair_row(pair: Pair) -> dict[str, Any]:
    """One test as the page writes it."""
    gap = None if pair.a.accuracy is None or pair.b.accuracy is None else pair.a.accuracy - pair.b.accuracy
    p = "< 0.0001" if pair.p < 1e-4 else f"{pair.p:.2g}" if pair.p < 0.1 else f"{pair.p:.2f}"
    return {"a": pair.a.key, "b": pair.b.key, "gap": gap, "only_a": pair.only_a, "only_b": pair.only_b, "p": p}


def overlaid(runs: Sequence[Compared]) -> tuple[list[int], list[Panel]]:
    """Curves of all runs over one epoch axis, counted from 1: held-out accuracy and loss, training loss."""
    by_epoch = [{int(line["epoch"]) + 1: line for line in run.run.epochs} for run in runs]
    epochs = sorted({epoch for lines in by_epoch for epoch in lines})
    plans: list[tuple[str, str, str, Callable[[float], str], bool]] = [
        ("accuracy", "Instance mIoU, held out", "instance_miou", text.percent, True)
        if all(run.of_parts for run in runs)
        else ("accuracy", "Accuracy, held out", "overall_accuracy", text.percent, True),
        ("loss", "Loss, held out", "loss", text.number, True),
        ("train", "Loss, training", "loss", text.number, False),
    ]
    panels = []
    for key, heading, metric, show, held in plans:
        lines = []
        for i, (run, known) in enumerate(zip(runs, by_epoch, strict=True)):
            part = "train" if not held else "val" if any("val" in line for line in known.values()) else "test"
            values = [value_at(known[e], part, metric) if e in known else None for e in epochs]
            if any(value is not None for value in values):
                lines.append((run.key, f"s{i % STYLES}", values))
        if lines:
            panels.append(panel(key, heading, epochs, lines, show, None))
    return epochs, panels


def class_rows(runs: Sequence[Compared], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Recall of every class in every run, and how far apart they are; the widest apart first."""
    recalls, support = [], np.zeros(len(classes), np.int64)
    for run in runs:
        predictions = run.run.predictions
        if predictions is None or run.answers is None:
            return []
        matrix = confusion_matrix(run.answers, predictions.label, len(classes))
        support = matrix.sum(axis=1)
        recalls.append([float(matrix[i, i] / n) if n else None for i, n in enumerate(support)])
    rows = []
    for i, name in enumerate(classes):
        values = [recall[i] for recall in recalls]
        there = [value for value in values if value is not None]
        gap = None if not there else there[0] - there[1] if len(runs) == 2 else max(there) - min(there)
        best = max(there, default=None)
        rows.append({"name": name, "support": int(support[i]), "recall": values, "gap": gap, "best": best})
    return sorted(rows, key=lambda row: -abs(row["gap"] or 0.0))


def said_of(runs: Sequence[Compared], row: int, classes: Sequence[str]) -> list[dict[str, Any]]:
    """What every run says of one cloud."""
    found = []
    for run in runs:
        if run.answers is not None and run.sure is not None and run.right is not None:
            answer = classes[int(run.answers[row])]
            found.append(
                {"key": run.key, "answer": answer, "sure": float(run.sure[row]), "right": bool(run.right[row])}
            )
    return found


def dispute_row(runs: Sequence[Compared], dispute: Disputed, classes: Sequence[str]) -> dict[str, Any]:
    """A cloud in dispute as the table writes it."""
    predictions = runs[0].run.predictions
    if predictions is None:
        raise ValueError("a dispute without predictions")
    return {
        "name": predictions.names[dispute.row] or str(predictions.index[dispute.row]),
        "true": classes[int(predictions.label[dispute.row])],
        "said": said_of(runs, dispute.row, classes),
    }


def disputed_tiles(
    runs: Sequence[Compared], disputes: Sequence[Disputed], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Clouds in dispute that some run kept to look at."""
    shown = [dispute for dispute in disputes if dispute.kept is not None][:MAX_CLOUDS]
    limit = MAX_BYTES // (bytes_per_point(()) * max(1, len(shown)))
    tiles = []
    for dispute in shown:
        if dispute.kept is None:
            continue
        owner, position = dispute.kept
        predictions = runs[owner].run.predictions
        if predictions is not None and predictions.clouds is not None:
            points = pack(predictions.clouds[position], limit=limit)
            tiles.append({**dispute_row(runs, dispute, classes), "points": points})
    return tiles
