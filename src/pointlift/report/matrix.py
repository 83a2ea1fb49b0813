"""The confusion matrix as geometry: cell size, labels that never overlap, and orders to sort it by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pointlift.report import text
from pointlift.report.scores import similar_order

LABEL_WIDTH = 118.0  # most pixels a class name may take beside or above the matrix
GAP = 6.0


@dataclass(frozen=True)
class Cell:
    """A count that is not zero. `strength` in (0, 1] is how strongly it is coloured."""

    row: int
    column: int
    count: int
    strength: float


@dataclass(frozen=True)
class MatrixView:
    """Everything the template needs to draw a confusion matrix, in pixels."""

    classes: list[str]
    short: list[str]
    cell: float
    font: float
    label_width: float
    header_height: float
    slanted: bool
    overhang: float
    show_counts: bool
    cells: list[Cell]
    support: list[int]
    orders: dict[str, list[int]]

    @property
    def size(self) -> float:
        """Width and height of the square of cells."""
        return self.cell * len(self.classes)


def matrix_view(matrix: np.ndarray, classes: Sequence[str]) -> MatrixView:
    """Lay out a confusion matrix (rows true, columns predicted) of 1 to about 100 classes."""
    count = len(classes)
    cell = float(np.clip(round(520 / count), 15 if count <= 48 else 13, 64))
    font = 12.0 if cell >= 22 else 11.0 if cell >= 15 else 10.0
    short = [text.shorten(name, font, LABEL_WIDTH) for name in classes]
    longest = max(text.text_width(name, font) for name in short)
    # Slanted names need a pitch of a line height times the square root of two; below that they stand upright.
    slanted = cell >= 24
    reach = longest * 0.7072 + font * 0.7 if slanted else longest
    support = matrix.sum(axis=1)
    shares = matrix / np.maximum(support[:, None], 1)
    cells = [
        Cell(int(r), int(c), int(matrix[r, c]), round(float(shares[r, c] ** 0.6), 3))
        for r, c in zip(*np.nonzero(matrix), strict=True)
    ]
    recall = np.where(support > 0, np.diag(shares), 2.0)  # classes without clouds come last
    return MatrixView(
        classes=list(classes),
        short=short,
        cell=cell,
        font=font,
        label_width=round(longest + GAP * 2, 1),
        header_height=round(reach + GAP * 2, 1),
        slanted=slanted,
        overhang=round(max(0.0, reach - cell / 2), 1) if slanted else 0.0,
        show_counts=bool(cell >= 24 and matrix.max(initial=0) < 10 ** (cell // 8)),
        cells=cells,
        support=[int(s) for s in support],
        orders={
            "given": list(range(count)),
            "worst": [int(i) for i in np.argsort(recall, kind="stable")],
            "similar": similar_order(matrix),
        },
    )
