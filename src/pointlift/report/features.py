"""`write_features_page`: feature vectors as maps, each dot a cloud that can be looked at, with its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pointlift.core.errors import UsageError
from pointlift.report import scores
from pointlift.report.colours import distinct
from pointlift.report.feature_numbers import LEAST_FOR_TSNE, VOTERS, neighbour_votes, neighbours, principal, tsne
from pointlift.report.html import CLOUD_SCRIPTS, render_page, write_page
from pointlift.report.points import Colouring, bytes_per_point, pack
from pointlift.tasks.metrics import confusion_matrix

MOST_MAPPED = 1000  # dots; numbers are of all clouds
MOST_BYTES = 1_600_000  # of raw points behind the dots; a third more as base64
POINTS = 1024  # of a cloud at most
NEIGHBOURS = 8
COLOURING = "features"
SIDE, MARGIN = 460.0, 14.0  # of a map, in the units of its view box


@dataclass(frozen=True)
class ShownFeatures:
    """What the page shows.

    Attributes:
        features: (n, C) float32, one vector per cloud.
        names: n names.
        clouds: n arrays (P, 3).
        labels: (n,) int64 into `classes`; -1 where unknown.
        classes: Class names; empty where nothing is labelled.
        coloured: Positions of some clouds and the colour of each of their points, (P, 3) uint8.
        facts: What gave the vectors, as (name, value).
        up: The axis drawn upwards at first; the page has a switch.
    """

    features: np.ndarray
    names: Sequence[str]
    clouds: Sequence[np.ndarray]
    labels: np.ndarray
    classes: Sequence[str] = ()
    coloured: Sequence[tuple[int, np.ndarray]] = ()
    facts: Sequence[tuple[str, str]] = field(default=())
    up: str = "z"


@dataclass(frozen=True)
class Map:
    """One scatter plot: where each dot is, in the units of a square view box."""

    key: str
    title: str
    note: str
    places: list[tuple[float, float]]


def write_features_page(shown: ShownFeatures, out: Path, title: str = "Features") -> Path:
    """Write one self-contained page: PCA and t-SNE maps, neighbours, and how well they agree with the labels.

    Numbers are of all clouds. At most 1,000 are drawn, spread evenly over those given, with as many points as keep
    the page at about 3 MB; the page says so.

    Args:
        shown: Vectors, clouds and labels.
        out: The page; replaced in one step.
        title: Its heading.

    Raises:
        UsageError: Arrays that do not fit together, or `up` is no axis.
        PointLiftError: The page cannot be written.
    """
    check_shown(shown)
    return write_page(
        render_page("features.html.j2", ("page.js", *CLOUD_SCRIPTS, "map.js"), context(shown, title)), out
    )


def check_shown(shown: ShownFeatures) -> None:
    """Raise `UsageError` unless there is a name, a cloud and a label for every vector."""
    count = len(shown.features)
    if np.ndim(shown.features) != 2 or not count:
        raise UsageError(f"features of shape {np.shape(shown.features)}", "(n, C), n at least 1")
    lengths = {"names": len(shown.names), "clouds": len(shown.clouds), "labels": len(shown.labels)}
    wrong = {name: length for name, length in lengths.items() if length != count}
    if wrong:
        raise UsageError(f"{wrong} for {count} vectors", "one of each per vector")
    if not np.isfinite(shown.features).all():
        raise UsageError("features that are not finite", "sound weights")
    if shown.up not in ("x", "y", "z"):
        raise UsageError(f"up {shown.up!r}", "x, y or z")


def context(shown: ShownFeatures, title: str) -> dict[str, Any]:
    """Everything the template shows."""
    count = len(shown.features)
    drawn = (np.arange(min(count, MOST_MAPPED)) * count // min(count, MOST_MAPPED)).tolist()
    components = principal(shown.features)
    near, cosine = neighbours(shown.features[drawn], NEIGHBOURS)
    palette = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in distinct(max(1, len(shown.classes)))]
    limit = max(32, min(POINTS, MOST_BYTES // (bytes_per_point(()) * len(drawn))))
    clouds = [pack(shown.clouds[i], limit=limit) for i in drawn]
    coloured = []
    for i, rgb in shown.coloured:
        coloured.append((shown.names[i], class_name(shown, int(i)), len(clouds)))
        clouds.append(pack(shown.clouds[i], limit=POINTS, colourings=[Colouring("rgb", COLOURING, rgb)]))
    return {
        "title": title,
        "facts": shown.facts,
        "count": count,
        "width": shown.features.shape[1],
        "drawn": len(drawn),
        "points": limit if any(len(shown.clouds[i]) > limit for i in drawn) else None,
        "maps": maps(shown, drawn, components.places),
        "explained": [(k, float(components.explained[:k].sum())) for k in (2, 10, 50) if k < len(components.explained)],
        "side": SIDE,
        "palette": palette,
        "groups": groups(shown, drawn),
        "near": near.shape[1],
        "coloured": coloured,
        "too_few_for_tsne": LEAST_FOR_TSNE if count < LEAST_FOR_TSNE else None,
        **agreement(shown),
        "modes": [*([COLOURING] if coloured else []), "plain", "height"],
        "up": shown.up,
        "data": {
            "epochs": [],
            "panels": {},
            "map": {
                "names": [str(shown.names[i]) for i in drawn],
                "labels": [int(shown.labels[i]) for i in drawn],
                "classes": [str(name) for name in shown.classes],
                "palette": palette,
                "near": near.tolist(),
                "cosine": [[round(float(c), 3) for c in row] for row in cosine],
            },
        },
        "clouds": {"up": shown.up, "clouds": clouds},
    }


def class_name(shown: ShownFeatures, i: int) -> str:
    """The class of a cloud, or an empty string."""
    label = int(shown.labels[i])
    return str(shown.classes[label]) if 0 <= label < len(shown.classes) else ""


def agreement(shown: ShownFeatures) -> dict[str, Any]:
    """How often the neighbours of a cloud name its class, and how large the largest class is, of labelled ones."""
    known = np.flatnonzero((shown.labels >= 0) & (shown.labels < len(shown.classes)))
    if len(known) < 3 or len(set(shown.labels[known].tolist())) < 2:
        return {"knn": None, "largest": None, "class_rows": [], "voters": 0, "labelled": len(known)}
    labels = shown.labels[known]
    said = neighbour_votes(shown.features[known], labels, len(shown.classes))
    matrix = confusion_matrix(said, labels, len(shown.classes))
    rows = [row for row in scores.class_rows(matrix, list(shown.classes)) if row.support]
    return {
        "knn": float((said == labels).mean()),
        "largest": float(np.bincount(labels).max() / len(labels)),
        "class_rows": rows,
        "voters": min(VOTERS, len(known) - 1),
        "labelled": len(known),
    }


def maps(shown: ShownFeatures, drawn: list[int], places: np.ndarray) -> list[Map]:
    """The two maps of the clouds that are drawn."""
    made = [Map("pca", "Principal components", "first to the right, second upwards; distances mean something", [])]
    made[0].places.extend(boxed(places[drawn]))
    laid = tsne(shown.features[drawn])
    if laid is not None:
        note = "who is near whom; distances between groups and their sizes mean nothing"
        made.append(Map("tsne", "t-SNE", note, boxed(laid)))
    return made


def boxed(places: np.ndarray) -> list[tuple[float, float]]:
    """Places (n, 2) in the view box, with one scale for both axes."""
    low, high = places.min(axis=0), places.max(axis=0)
    scale = (SIDE - 2 * MARGIN) / (float((high - low).max()) or 1.0)
    centred = (places - (low + high) / 2) * scale * (1, -1) + SIDE / 2
    return [(round(float(x), 1), round(float(y), 1)) for x, y in centred]


def groups(shown: ShownFeatures, drawn: list[int]) -> list[tuple[int, str, list[int]]]:
    """Class number (-1: unknown), name, and the dots of it; classes without a dot are left out."""
    found: dict[int, list[int]] = {}
    for dot, i in enumerate(drawn):
        label = int(shown.labels[i])
        found.setdefault(label if 0 <= label < len(shown.classes) else -1, []).append(dot)
    return [(k, str(shown.classes[k]) if k >= 0 else "no label", found[k]) for k in sorted(found)]
