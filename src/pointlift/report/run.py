"""Read a run folder: the record, the epoch lines, the predictions and the configuration.

Only `record.json` is needed; whatever else is missing leaves its section out of the page. Nothing read here
is executed: JSON, plain text, and numpy arrays without pickle.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pointlift.core.errors import DataError, FileFormatError
from pointlift.engine.logs import finite
from pointlift.report.npz import check, load_arrays
from pointlift.report.reconstructions import Reconstructions, read_reconstructions
from pointlift.report.segments import Segments, read_segments

EXPECTED_FILES = "record.json, and optionally metrics.jsonl, predictions.npz, reconstructions.npz, config.yaml"


@dataclass(frozen=True)
class Predictions:
    """What the model said about every cloud of the record's split.

    Attributes:
        logits: (N, C) float64; a row with a value that is not finite is all zeros.
        label: (N,) int64, the true class.
        index: (N,) int64, position in the data set.
        names: N file names, or empty strings.
        clouds: (M, P, 3) float32 in [-1, 1], clouds kept for the gallery, or None.
        cloud_rows: (M,) int64, the row of `logits` that each cloud belongs to.
        not_finite: How many rows of logits held NaN or infinity.
    """

    logits: np.ndarray
    label: np.ndarray
    index: np.ndarray
    names: tuple[str, ...]
    clouds: np.ndarray | None
    cloud_rows: np.ndarray
    not_finite: int


@dataclass(frozen=True)
class RunFolder:
    """The parts of a run folder that a page shows."""

    path: Path
    record: dict[str, Any]
    epochs: list[dict[str, Any]]
    unread_lines: int
    predictions: Predictions | None
    config: str | None
    reconstructions: Reconstructions | None = None
    segments: Segments | None = None


def read_run(run_dir: Path) -> RunFolder:
    """Read a run folder.

    Raises:
        DataError: The folder has no `record.json`.
        FileFormatError: A file of the folder is not what its name says.
    """
    path = Path(run_dir)
    record_file = path / "record.json"
    if not record_file.is_file():
        raise DataError(
            f"{path} has no record.json" if path.is_dir() else f"{path} is not a folder",
            f"a run folder with {EXPECTED_FILES}",
            "Give the --out folder of `pointlift finetune` or `pointlift demo`; "
            "a run that was stopped gets its record from `pointlift finetune … --resume`",
        )
    record = read_record(record_file)
    epochs, unread = read_epochs(path / "metrics.jsonl")
    classes = record["dataset"].get("classes") if isinstance(record.get("dataset"), dict) else None
    predictions_file = path / "predictions.npz"
    predictions, segments = None, None
    if predictions_file.is_file() and record.get("task") == "part_segmentation":
        segments = read_segments(predictions_file)
    elif predictions_file.is_file():
        predictions = read_predictions(predictions_file, classes)
    config_file = path / "config.yaml"
    config = config_file.read_text("utf-8", errors="replace") if config_file.is_file() else None
    rebuilt_file = path / "reconstructions.npz"
    rebuilt = read_reconstructions(rebuilt_file) if rebuilt_file.is_file() else None
    return RunFolder(path, record, epochs, unread, predictions, config, rebuilt, segments)


def read_record(path: Path) -> dict[str, Any]:
    """The record as a dict; NaN and infinity become None."""
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FileFormatError(
            f"{path} cannot be read as JSON ({error})",
            "one JSON object, as a finished run writes it",
            "Make the record anew with `pointlift evaluate` on the run folder",
        ) from error
    if not isinstance(record, dict):
        raise FileFormatError(f"{path} holds a {type(record).__name__}", "one JSON object")
    return finite(record)


def read_epochs(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The epoch lines of `metrics.jsonl` in order, and how many lines could not be read.

    A resumed run writes an epoch again; its last line counts. A run that was killed may end in half a line.
    """
    if not path.is_file():
        return [], 0
    by_epoch: dict[int, dict[str, Any]] = {}
    unread = 0
    for line in path.read_text("utf-8", errors="replace").splitlines():
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            unread += 1
            continue
        if not isinstance(event, dict):
            unread += 1
        elif event.get("event") == "epoch":
            epoch = event.get("epoch")
            if isinstance(epoch, int) and epoch >= 0:
                by_epoch[epoch] = finite(event)
            else:
                unread += 1
    return [by_epoch[epoch] for epoch in sorted(by_epoch)], unread


def read_predictions(path: Path, classes: Any) -> Predictions:
    """The arrays of `predictions.npz`, checked against each other and against the record's classes."""
    arrays = load_arrays(path)
    missing = [key for key in ("logits", "label") if key not in arrays]
    if missing:
        raise FileFormatError(f"{path} has no array {missing[0]!r}", "logits (N, C) and label (N,)")
    logits, label = np.asarray(arrays["logits"]), np.asarray(arrays["label"])
    check(path, "logits", logits, logits.ndim == 2 and logits.dtype.kind == "f", "(N, C) floats")
    fits = label.shape == logits.shape[:1] and label.dtype.kind in "iu"
    check(path, "label", label, fits, f"({len(logits)},) integers")
    count = logits.shape[1]
    if isinstance(classes, list) and len(classes) != count:
        raise FileFormatError(
            f"{path}: logits have {count} columns",
            f"one per class of record.json, which names {len(classes)}",
        )
    if len(label) and (label.min() < 0 or label.max() >= count):
        worst = int(label.min()) if label.min() < 0 else int(label.max())
        raise FileFormatError(f"{path}: label {worst} is outside the classes", f"0 to {count - 1}")
    index = np.asarray(arrays.get("index", np.arange(len(label))))
    fits = index.shape == label.shape and index.dtype.kind in "iu"
    check(path, "index", index, fits, f"({len(label)},) integers")
    names = np.asarray(arrays.get("names", np.full(len(label), "")))
    check(path, "names", names, names.shape == label.shape and names.dtype.kind == "U", "one string per cloud")

    logits = logits.astype(np.float64)
    bad = ~np.isfinite(logits).all(axis=1)
    logits[bad] = 0.0
    clouds, rows = read_clouds(path, arrays, index)
    return Predictions(
        logits,
        label.astype(np.int64),
        index.astype(np.int64),
        tuple(str(name) for name in names),
        clouds,
        rows,
        int(bad.sum()),
    )


def read_clouds(path: Path, arrays: dict[str, np.ndarray], index: np.ndarray) -> tuple[np.ndarray | None, Any]:
    """Clouds kept for the gallery, and the row of the predictions each belongs to."""
    if "xyz_i16" not in arrays:
        return None, np.zeros(0, np.int64)
    xyz, owner = np.asarray(arrays["xyz_i16"]), np.asarray(arrays.get("xyz_index"))
    fits = xyz.ndim == 3 and xyz.shape[-1] == 3 and xyz.dtype == np.int16 and xyz.shape[1] > 0
    check(path, "xyz_i16", xyz, fits, "(M, P, 3) int16, coordinates times 32767")
    fits = owner.shape == xyz.shape[:1] and owner.dtype.kind in "iu"
    check(path, "xyz_index", owner, fits, "the data-set index of each cloud in xyz_i16")
    row_of = {int(position): row for row, position in enumerate(index)}
    unknown = [int(position) for position in owner if int(position) not in row_of]
    if unknown:
        raise FileFormatError(f"{path}: xyz_index {unknown[0]} is not in index", "clouds of predicted samples")
    rows = np.array([row_of[int(position)] for position in owner], dtype=np.int64)
    return xyz.astype(np.float32) / 32767.0, rows
