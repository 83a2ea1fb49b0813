"""What a part segmentation run said of every point: read, and as rows of true and predicted parts side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pointlift.report import facts
from pointlift.report.colours import distinct
from pointlift.report.npz import check, load_arrays
from pointlift.report.points import Colouring, bytes_per_point, pack

MOST_SHOWN = 24
MOST_BYTES = 640_000  # of raw points on the page, shared by all clouds; a third more as base64
RIGHT_OR_WRONG = ((11, 102, 173), (217, 95, 14))


@dataclass(frozen=True)
class Segments:
    """Answers and truth of every cloud of the record's split.

    Attributes:
        pred: (N, P) predicted parts.
        part: (N, P) true ones.
        category: (N,) index into `categories`.
        iou: (N,) mean IoU of each cloud's parts.
        names: N file names, or empty strings.
        categories: Names of the categories.
        parts: Names of the parts.
        clouds: (M, P, 3) float32 in [-1, 1], clouds kept to look at, or None; points in the order of `pred`.
        cloud_rows: (M,) which cloud each is.
    """

    pred: np.ndarray
    part: np.ndarray
    category: np.ndarray
    iou: np.ndarray
    names: tuple[str, ...]
    categories: tuple[str, ...]
    parts: tuple[str, ...]
    clouds: np.ndarray | None
    cloud_rows: np.ndarray


def read_segments(path: Path) -> Segments:
    """The arrays of a part run's `predictions.npz`, checked against each other.

    Raises:
        FileFormatError: It is none.
    """
    arrays = load_arrays(path)
    keys = ("pred", "part", "category", "iou", "index", "names", "categories", "parts")
    found = {key: np.asarray(arrays.get(key, np.zeros((), "V1"))) for key in keys}
    for key, array in found.items():
        check(path, key, array, key in arrays, "an array of that name")
    pred, part, iou = found["pred"], found["part"], found["iou"]
    count = len(iou) if iou.ndim == 1 else 0
    check(path, "iou", iou, iou.ndim == 1 and iou.dtype.kind == "f" and bool(np.isfinite(iou).all()), "(N,) floats")
    for key in ("categories", "parts"):
        check(path, key, found[key], found[key].ndim == 1 and found[key].dtype.kind == "U", "names")
    for key, names in (("pred", found["parts"]), ("part", found["parts"]), ("category", found["categories"])):
        array = found[key]
        fits = array.dtype.kind in "iu" and array.ndim == (1 if key == "category" else 2) and len(array) == count
        fits = fits and (not array.size or (array.min() >= 0 and array.max() < len(names)))
        check(path, key, array, bool(fits), f"{count} rows of numbers below {len(names)}")
    check(path, "part", part, part.shape == pred.shape, f"{pred.shape}, that of pred")
    check(path, "pred", pred, pred.shape[1] > 0, "at least one point per cloud")
    index = found["index"]
    check(path, "index", index, index.shape == (count,) and index.dtype.kind in "iu", f"({count},) integers")
    names = found["names"]
    check(path, "names", names, names.shape == (count,) and names.dtype.kind == "U", "one string per cloud")
    clouds, rows = _clouds(path, arrays, index, pred.shape[1])
    return Segments(
        pred, part, found["category"], iou, tuple(map(str, names)), tuple(map(str, found["categories"])),
        tuple(map(str, found["parts"])), clouds, rows,
    )  # fmt: skip


def _clouds(
    path: Path, arrays: dict[str, np.ndarray], index: np.ndarray, points: int
) -> tuple[np.ndarray | None, np.ndarray]:
    if "xyz_i16" not in arrays:
        return None, np.zeros(0, np.int64)
    xyz, owner = np.asarray(arrays["xyz_i16"]), np.asarray(arrays.get("xyz_index", np.zeros(0)))
    check(path, "xyz_i16", xyz, xyz.shape[1:] == (points, 3) and xyz.dtype == np.int16, f"(M, {points}, 3) int16")
    known = {int(position): row for row, position in enumerate(index)}
    fits = owner.shape == xyz.shape[:1] and owner.dtype.kind in "iu" and all(int(i) in known for i in owner)
    check(path, "xyz_index", owner, fits, "the position in `index` of each cloud in xyz_i16")
    return xyz.astype(np.float32) / 32767.0, np.array([known[int(i)] for i in owner], np.int64)


@dataclass(frozen=True)
class Key:
    """A part in the legend of one cloud: its colour as `r, g, b`, and its IoU in that cloud."""

    name: str
    colour: str
    iou: float


@dataclass(frozen=True)
class Row:
    """One cloud of the page: numbers of its two drawings among the page's clouds."""

    name: str
    category: str
    iou: float
    keys: list[Key]
    true: int
    predicted: int


@dataclass(frozen=True)
class Shown:
    """The section of the page: its clouds, their points as the scripts read them, and ways to colour them."""

    rows: list[Row]
    packed: list[dict[str, Any]]
    modes: tuple[str, ...] = ("parts", "mistakes", "plain", "height")


def shown(found: Segments) -> Shown | None:
    """The kept clouds, the worst first, thinned so that the page stays small; None where none were kept."""
    if found.clouds is None or not len(found.clouds):
        return None
    order = np.argsort(found.iou[found.cloud_rows], kind="stable")[:MOST_SHOWN]
    rows: list[Row] = []
    packed: list[dict[str, Any]] = []
    for i in order:
        row, xyz = int(found.cloud_rows[i]), found.clouds[i]
        numbers, colours = _legend(found, int(found.category[row]))
        true, pred = found.part[row], found.pred[row]
        wrong = Colouring("classes", "mistakes", (true != pred).astype(int), ("right", "wrong"), palette=RIGHT_OR_WRONG)
        for answer in (true, pred):
            tones = Colouring("rgb", "parts", colours[np.searchsorted(numbers, answer)])
            limit = max(1, MOST_BYTES // (2 * len(order) * bytes_per_point((tones, wrong))))
            packed.append(pack(xyz, limit=limit, colourings=(tones, wrong)))
        keys = [
            Key(found.parts[n], ", ".join(map(str, colour)), _iou(pred == n, true == n))
            for n, colour in zip(numbers, colours, strict=True)
            if n in true or n in pred
        ]
        name, category = found.names[row], found.categories[found.category[row]]
        rows.append(Row(name, category, float(found.iou[row]), keys, len(packed) - 2, len(packed) - 1))
    return Shown(rows, packed)


def _legend(found: Segments, category: int) -> tuple[np.ndarray, np.ndarray]:
    """The parts that occur in a category's clouds, rising, and a colour for each."""
    own = found.category == category
    numbers = np.union1d(found.part[own], found.pred[own])
    return numbers, distinct(len(numbers))


def _iou(said: np.ndarray, true: np.ndarray) -> float:
    return float((said & true).sum() / max(1, int((said | true).sum())))


@dataclass(frozen=True)
class CategoryRow:
    """One category of the table: how many clouds, their mean IoU, and the IoU of its parts, the lowest first."""

    name: str
    clouds: int
    iou: float
    parts: list[tuple[str, float]]


def category_rows(record: dict[str, Any]) -> list[CategoryRow]:
    """The table of categories as the record holds it; empty without one."""
    said = facts.lookup(record, "categories")
    rows = []
    for name, entry in said.items() if isinstance(said, dict) else ():
        iou, clouds = facts.number_at({"at": entry}, "at", "iou"), facts.number_at({"at": entry}, "at", "clouds")
        parts = facts.lookup({"at": entry}, "at", "parts")
        if iou is None or clouds is None:
            continue
        known = [(str(k).removeprefix(f"{name}/"), v) for k, v in (parts if isinstance(parts, dict) else {}).items()]
        shares = [(part, float(v)) for part, v in known if isinstance(v, int | float)]
        rows.append(CategoryRow(str(name), int(clouds), float(iou), sorted(shares, key=lambda pair: pair[1])))
    return rows
