"""`write_predictions_page`: what a model says of files of one's own, as one page to look at and pass on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pointlift.core.errors import UsageError
from pointlift.core.seeds import generator
from pointlift.report.html import CLOUD_SCRIPTS, render_page, write_page
from pointlift.report.points import MOST_POINTS, Colouring, bytes_per_point, pack

if TYPE_CHECKING:
    from pointlift.tasks.predict import Prediction
    from pointlift.tasks.predict_parts import PartPrediction

MOST_BYTES = 9_000_000  # of raw points in one page, shared by its clouds; a third more as base64
MOST_DRAWN = 400  # clouds drawn; the table lists all
TOP = 5  # classes shown per cloud

SALIENCY = "saliency"
SALIENCY_MEANS = (
    "Saliency is how much the probability of the label falls when the points around a place are removed: orange "
    "places speak for the label, blue ones against it, grey ones hardly matter. It shows what this model looks at, "
    "not what makes the object what it is. Every cloud has its own scale."
)


@dataclass(frozen=True)
class ShownPrediction:
    """One cloud of the page.

    Attributes:
        name: What the page calls it, the file's name for example.
        xyz: (N, 3) float32; (0, 3) where the file could not be read.
        prediction: What a model said; one with `error` set is listed among the errors.
        saliency: (N,) float32, how much each point's neighbourhood speaks for the label, or None.
        colors: (N, 3) uint8, or None.
        part: (N,) integers, a class per point, or None.
        part_names: Names of those classes.
    """

    name: str
    xyz: np.ndarray
    prediction: Prediction | PartPrediction
    saliency: np.ndarray | None = None
    colors: np.ndarray | None = None
    part: np.ndarray | None = None
    part_names: Sequence[str] = ()

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the per-point arrays that are there."""
        return tuple(n for n in ("xyz", "saliency", "colors", "part") if getattr(self, n) is not None)

    @property
    def colourings(self) -> list[Colouring]:
        """The ways to colour it beyond plain and height, the most telling first."""
        made = []
        if self.saliency is not None:
            made.append(Colouring("ramp", SALIENCY, self.saliency, ends=("against the label", "for the label")))
        if self.part is not None:
            made.append(Colouring("classes", "parts", self.part, self.part_names))
        if self.colors is not None:
            made.append(Colouring("rgb", "own colours", self.colors))
        return made


@dataclass(frozen=True)
class Kept:
    """A cloud thinned for the page, its points in random order; `of` is how many it had."""

    item: ShownPrediction
    of: int

    @property
    def size(self) -> int:
        return len(self.item.xyz)

    def first(self, count: int) -> Kept:
        """The first `count` points."""
        if count >= self.size:
            return self
        arrays: dict[str, Any] = {name: np.array(getattr(self.item, name)[:count]) for name in self.item.arrays}
        return Kept(replace(self.item, **arrays), self.of)


def write_predictions_page(
    items: Iterable[ShownPrediction], out: Path, title: str = "Predictions", *, up: str = "z"
) -> Path:
    """Write one self-contained page: each cloud with its label, probabilities and colours, and the files that failed.

    A cloud keeps at most 200,000 points, fewer where many clouds share the page; the page says so. Items may come
    from a generator: what is not drawn is let go.

    Args:
        items: Clouds with their predictions, in the order of the page.
        out: The page; replaced in one step.
        title: Its heading.
        up: The axis drawn upwards at first; the page has a switch.

    Raises:
        UsageError: Per-point arrays do not have a row per point, or `up` is no axis.
        PointLiftError: The page cannot be written.
    """
    if up not in ("x", "y", "z"):
        raise UsageError(f"up {up!r}", "x, y or z")
    out = Path(out)
    return write_page(render_page("predictions.html.j2", ("page.js", *CLOUD_SCRIPTS), context(items, title, up)), out)


def context(items: Iterable[ShownPrediction], title: str, up: str) -> dict[str, Any]:
    """Everything the template shows."""
    rows: list[dict[str, Any]] = []
    errors: list[tuple[str, str]] = []
    drawn: list[Kept] = []
    for item in items:
        error = getattr(item.prediction, "error", None)
        if error:
            errors.append((item.name, str(error)))
            continue
        check_rows(item)
        row = said(item)
        if len(drawn) < MOST_DRAWN and len(item.xyz):
            row["cloud"] = len(drawn)
            drawn.append(shuffled(item))
            if sum(kept.size * point_bytes(kept) for kept in drawn) > 2 * MOST_BYTES:
                drawn = share(drawn)
        rows.append(row)
    drawn = share(drawn)
    clouds = [pack(kept.item.xyz, colourings=kept.item.colourings, of=kept.of) for kept in drawn]
    known = [mode for mode in (SALIENCY, "parts", "own colours") if any(mode in titles(cloud) for cloud in clouds)]
    return {
        "title": title,
        "rows": rows,
        "errors": errors,
        "counts": Counter(row["label"] for row in rows).most_common(),
        "modes": [*known, "plain", "height"],
        "saliency_means": SALIENCY_MEANS if SALIENCY in known else "",
        "thinned": [kept.size for kept in drawn if kept.size < kept.of],
        "drawn": len(drawn),
        "up": up,
        "data": {"epochs": [], "panels": {}},
        "clouds": {"up": up, "clouds": clouds} if clouds else None,
    }


def titles(cloud: dict[str, Any]) -> list[str]:
    """Colourings of a packed cloud."""
    return [colouring["title"] for colouring in cloud["colours"]]


def said(item: ShownPrediction) -> dict[str, Any]:
    """What the page writes of one cloud; `cloud` is its number among the drawn ones."""
    prediction = item.prediction
    ranked = sorted(prediction.probabilities.items(), key=lambda pair: -pair[1])
    return {
        "name": item.name,
        "label": prediction.label,
        "probability": prediction.probability,
        "top": ranked[:TOP],
        "parted": item.part is not None,
        "listed": "Share of the points" if item.part is not None else f"Most probable of {len(ranked)} classes",
        "points": len(item.xyz),
        "notes": list(prediction.notes),
        "cloud": None,
    }


def check_rows(item: ShownPrediction) -> None:
    """Raise `UsageError` unless every per-point array has a row per point."""
    shape = np.shape(item.xyz)
    if len(shape) != 2 or shape[1] != 3:
        raise UsageError(f"{item.name}: xyz of shape {shape}", "(N, 3)")
    for name in item.arrays:
        expected = (shape[0], 3) if name in ("xyz", "colors") else (shape[0],)
        if np.shape(getattr(item, name)) != expected:
            raise UsageError(f"{item.name}: {name} of shape {np.shape(getattr(item, name))}", f"{expected}")


def shuffled(item: ShownPrediction) -> Kept:
    """At most 200,000 points of a cloud, in a random order that is the same every time."""
    count = len(item.xyz)
    order = generator("report", "predictions", count).permutation(count)[:MOST_POINTS]
    arrays: dict[str, Any] = {name: np.asarray(getattr(item, name))[order] for name in item.arrays}
    return Kept(replace(item, **arrays), count)


def point_bytes(kept: Kept) -> int:
    return bytes_per_point(kept.item.colourings)


def share(drawn: list[Kept]) -> list[Kept]:
    """The clouds thinned to one common limit, as large as the page's size allows; smaller ones stay whole."""
    low, high = 1, MOST_POINTS
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(kept.size, middle) * point_bytes(kept) for kept in drawn) <= MOST_BYTES:
            low = middle
        else:
            high = middle - 1
    return [kept.first(low) for kept in drawn]
