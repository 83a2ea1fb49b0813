"""What a pre-training run rebuilt: the stored clouds read, and as rows of clouds that turn together on the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pointlift.report.colours import distinct
from pointlift.report.npz import check, load_arrays
from pointlift.report.points import Colouring, bytes_per_point, pack

MOST_SHOWN = 24
MOST_BYTES = 640_000  # of raw points on the page, shared by all clouds; a third more as base64
PARTS = ("whole", "given", "target", "rebuilt", "coarse")

SEEN, REBUILT, HIDDEN = 0, 1, 2
ROLES = ("seen", "rebuilt", "hidden")
ROLE_COLOURS = ((11, 102, 173), (217, 95, 14), (128, 128, 124))
LARGEST = 1e30  # scale of a cloud: its coordinates fit into float32
SAME = 2.0 / 32767  # what storing may move a point by, in clouds of about one unit
ROLE, CODE = "seen and rebuilt", "code"


@dataclass(frozen=True)
class Reconstruction:
    """One cloud, points (P, 3) float32 of each part.

    Attributes:
        name: Its name in the data set.
        whole: The cloud as the network's input.
        given: What the network saw; empty where it sees codes of all patches alone.
        target: The true points of what it was asked for.
        rebuilt: What it made of it.
        coarse: Its first sketch; mostly empty.
        centers: (G, 3) of the patches.
        codes: (G,) of the patches, or None.
        cd_l1: Chamfer distance between `target` and `rebuilt`, plain distances.
        cd_l2: The same with squared distances.
    """

    name: str
    whole: np.ndarray
    given: np.ndarray
    target: np.ndarray
    rebuilt: np.ndarray
    coarse: np.ndarray
    centers: np.ndarray
    codes: np.ndarray | None
    cd_l1: float
    cd_l2: float


@dataclass(frozen=True)
class Reconstructions:
    """The clouds of a file, and which part of the data they are from."""

    split: str
    items: tuple[Reconstruction, ...]

    @property
    def masked(self) -> bool:
        """Whether something was hidden; else the clouds were rebuilt from codes of all patches."""
        return any(len(item.given) for item in self.items)


def read_reconstructions(path: Path) -> Reconstructions:
    """The clouds of a `reconstructions.npz`, checked.

    Raises:
        FileFormatError: It is none.
    """
    arrays = load_arrays(path, "Make it anew: `pointlift report RUN --show 12`")
    cd_l2 = array(path, arrays, "cd_l2")
    check(path, "cd_l2", cd_l2, cd_l2.ndim == 1 and cd_l2.dtype.kind == "f", "(M,) floats")
    count = len(cd_l2)
    cd_l1, scale = (array(path, arrays, key) for key in ("cd_l1", "scale"))
    for key, values in (("cd_l1", cd_l1), ("scale", scale)):
        check(path, key, values, values.shape == (count,) and values.dtype.kind == "f", f"({count},) floats")
    check(path, "scale", scale, bool(((scale > 0) & (scale < LARGEST)).all()), "sizes above 0")
    for key, values in (("cd_l1", cd_l1), ("cd_l2", cd_l2)):
        check(path, key, values, bool(np.isfinite(values).all()), "finite distances")
    names = array(path, arrays, "names")
    check(path, "names", names, names.shape == (count,) and names.dtype.kind == "U", "one string per cloud")
    centers = array(path, arrays, "centers_i16")
    fits = centers.ndim == 3 and centers.shape[::2] == (count, 3) and centers.dtype == np.int16 and centers.shape[1] > 0
    check(path, "centers_i16", centers, fits, f"({count}, G, 3) int16")
    codes = arrays.get("codes")
    if codes is not None:
        check(path, "codes", codes, codes.shape == centers.shape[:2] and codes.dtype.kind in "iu", "a code per centre")
    parts = {part: clouds_of(path, arrays, part, scale) for part in PARTS}
    check(path, "whole_i16", arrays["whole_i16"], all(map(len, parts["whole"])), "points of every cloud")
    return Reconstructions(
        str(arrays.get("split", "")),
        tuple(
            Reconstruction(
                name=str(names[i]),
                **{part: clouds[i] for part, clouds in parts.items()},
                centers=centers[i] * (scale[i] / 32767),
                codes=None if codes is None else codes[i].astype(np.int64),
                cd_l1=float(cd_l1[i]),
                cd_l2=float(cd_l2[i]),
            )
            for i in range(count)
        ),
    )


def array(path: Path, arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    """An array that must be there."""
    found = arrays.get(name, np.zeros(0, "V1"))
    check(path, name, found, name in arrays, "an array of that name")
    return found


def clouds_of(path: Path, arrays: dict[str, np.ndarray], part: str, scale: np.ndarray) -> list[np.ndarray]:
    """The clouds of one part, (P, 3) float32 each."""
    xyz, sizes = array(path, arrays, f"{part}_i16"), array(path, arrays, f"{part}_count")
    check(path, f"{part}_i16", xyz, xyz.ndim == 2 and xyz.shape[1] == 3 and xyz.dtype == np.int16, "(P, 3) int16")
    fits = sizes.shape == scale.shape and sizes.dtype.kind in "iu" and bool((sizes >= 0).all())
    check(
        path, f"{part}_count", sizes, fits and int(sizes.sum()) == len(xyz), f"{len(scale)} numbers, {len(xyz)} in all"
    )
    pieces = np.split(xyz, np.cumsum(sizes)[:-1])
    return [(piece * (s / 32767)).astype(np.float32) for piece, s in zip(pieces, scale, strict=False)]


@dataclass(frozen=True)
class Panel:
    """One of the clouds of a row: what it is called, its number among the page's clouds, and how many points it has."""

    title: str
    cloud: int
    points: int


@dataclass(frozen=True)
class Row:
    """One cloud of the page: its panels, and how far what was rebuilt lies from what was asked for."""

    name: str
    panels: list[Panel]
    cd_l1: float
    cd_l2: float


@dataclass(frozen=True)
class Shown:
    """The section of the page.

    Attributes:
        rows: The clouds.
        packed: Their points, as the scripts read them.
        modes: Ways to colour them, the first one first shown.
        split: Which part of the data they are from.
        masked: Whether something was hidden.
        stored: How many clouds the file has.
    """

    rows: list[Row]
    packed: list[dict[str, Any]]
    modes: list[str]
    split: str
    masked: bool
    stored: int


def shown(found: Reconstructions) -> Shown:
    """The clouds as rows of panels, thinned so that the page stays small."""
    items = found.items[:MOST_SHOWN]
    palette = code_palette(items)
    panels = [panels_of(item, palette) for item in items]
    each = sum(bytes_per_point(colourings) for panels_ in panels for _, _, colourings in panels_)
    limit = max(1, MOST_BYTES // max(1, each))
    rows: list[Row] = []
    packed: list[dict[str, Any]] = []
    for item, several in zip(items, panels, strict=True):
        frame = np.concatenate([xyz for _, xyz, _ in several])
        row = Row(item.name, [], item.cd_l1, item.cd_l2)
        for title, xyz, colourings in several:
            row.panels.append(Panel(title, len(packed), len(xyz)))
            packed.append(pack(xyz, limit=limit, colourings=colourings, frame=frame))
        rows.append(row)
    titles = [c["title"] for c in packed[0]["colours"]] if packed else []
    return Shown(rows, packed, [*titles, "plain", "height"], found.split, found.masked, len(found.items))


def panels_of(
    item: Reconstruction, palette: dict[int, np.ndarray]
) -> list[tuple[str, np.ndarray, tuple[Colouring, ...]]]:
    """Title, points and colourings of the clouds that stand side by side."""
    if not len(item.given):
        three = (("input", item.whole), ("coarse", item.coarse), ("rebuilt", item.rebuilt))
        return [(title, xyz, by_code(item, xyz, palette)) for title, xyz in three if len(xyz)]
    both = np.concatenate([item.given, item.rebuilt])
    four = (
        ("input", item.whole, roles(item)),
        ("seen", item.given, np.full(len(item.given), SEEN)),
        ("hidden", item.target, np.full(len(item.target), HIDDEN)),
        ("prediction", both, np.repeat([SEEN, REBUILT], [len(item.given), len(item.rebuilt)])),
    )
    return [
        (title, xyz, (Colouring("classes", ROLE, role, ROLES, palette=ROLE_COLOURS), *by_code(item, xyz, palette)))
        for title, xyz, role in four
        if len(xyz)
    ]


def roles(item: Reconstruction) -> np.ndarray:
    """Which points of the whole cloud the network saw, (P,)."""
    from scipy.spatial import cKDTree

    apart, _ = cKDTree(item.given).query(item.whole)
    return np.where(apart < 3 * SAME, SEEN, HIDDEN)


def by_code(item: Reconstruction, xyz: np.ndarray, palette: dict[int, np.ndarray]) -> tuple[Colouring, ...]:
    """Points in the colour of the code of the nearest patch, where the patches have codes."""
    if item.codes is None:
        return ()
    from scipy.spatial import cKDTree

    _, nearest = cKDTree(item.centers).query(xyz)
    return (Colouring("rgb", CODE, np.stack([palette[int(item.codes[k])] for k in nearest])),)


def code_palette(items: tuple[Reconstruction, ...]) -> dict[int, np.ndarray]:
    """A colour for every code that occurs, the same on all clouds."""
    used = sorted({int(code) for item in items if item.codes is not None for code in item.codes})
    return dict(zip(used, distinct(len(used)), strict=True))
