"""Curves and matrix as geometry: ticks, gaps, and class names that never overlap."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pointlift.report import text
from pointlift.report.curves import epoch_ticks, learning_curves, nice_ticks, polyline
from pointlift.report.matrix import LABEL_WIDTH, matrix_view


@pytest.mark.parametrize(("low", "high"), [(0, 2.57), (0.13, 0.99), (0, 5e-4), (3, 3), (-2, 7), (0, 0)])
def test_ticks_are_even_and_enclose_the_values(low, high):
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 2 <= len(ticks) <= 8
    np.testing.assert_allclose(np.diff(ticks), ticks[1] - ticks[0], rtol=1e-6)


def test_epoch_ticks_are_whole_and_few():
    assert epoch_ticks([0]) == [0]
    assert epoch_ticks(list(range(4))) == [0, 1, 2, 3]
    assert epoch_ticks(list(range(300))) == [0, 50, 100, 150, 200, 250]


def test_polyline_breaks_at_gaps():
    assert polyline([0, 1, 2, 3], [5, None, 6, 7]) == "M0 5h0M2 6h0L3 7"


def line(epoch: int, **parts) -> dict:
    return {"event": "epoch", "epoch": epoch, **parts}


def test_panels_show_what_was_logged_and_mark_the_kept_epoch():
    lines = [
        line(e, lr=0.1, train={"loss": 3.0 - e}, val={"loss": None if e == 1 else 2.0, "overall_accuracy": 0.5})
        for e in range(3)
    ]
    loss, accuracy, rate = learning_curves(lines, selected=2)
    assert [p.key for p in (loss, accuracy, rate)] == ["loss", "accuracy", "lr"]
    assert [s.label for s in loss.series] == ["train", "validation"]
    assert loss.series[1].texts == ["2.00", None, "2.00"]
    assert loss.selected == 2
    ys = loss.series[0].ys
    assert ys == sorted(ys), "a falling loss runs down the page, where y grows"
    assert len(accuracy.series) == 1
    assert learning_curves([], None) == []


def test_selection_by_test_is_named_so():
    panels = learning_curves([line(0, test={"loss": 1.0})], None)
    assert [s.label for s in panels[0].series] == ["test"]


@pytest.mark.parametrize("count", [1, 2, 3, 12, 16, 21, 22, 40, 55, 69, 100])
def test_class_names_never_overlap(count):
    names = [f"{'a rather long class name ' * (i % 3)}number {i}" for i in range(count)]
    view = matrix_view(np.eye(count, dtype=np.int64), names)
    pitch = view.cell * math.sin(math.pi / 4) if view.slanted else view.cell
    assert pitch >= view.font * 1.15
    assert view.cell >= view.font * 1.15
    assert all(text.text_width(name, view.font) <= LABEL_WIDTH for name in view.short)
    assert view.label_width >= max(text.text_width(name, view.font) for name in view.short)


def test_matrix_cells_and_orders():
    counts = np.array([[3, 1, 0], [0, 4, 0], [0, 2, 2]])
    view = matrix_view(counts, ["a", "b", "c"])
    assert {(c.row, c.column): c.count for c in view.cells} == {
        (0, 0): 3, (0, 1): 1, (1, 1): 4, (2, 1): 2, (2, 2): 2
    }  # fmt: skip
    assert view.orders["worst"] == [2, 0, 1]
    assert all(0 < c.strength <= 1 for c in view.cells)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (text.percent(0.8812), "88.1 %"),
        (text.percent(None), "–"),
        (text.points(-0.031), "−3.1"),
        (text.count(22771432), "22,771,432"),
        (text.short_count(22771432), "22.8 M"),
        (text.short_count(999_900), "1000 k"),
        (text.number(0.4127), "0.413"),
        (text.number(5e-4), "5e-4"),
        (text.sureness(0.9991), ">99 %"),
        (text.duration(754.2), "12 min 34 s"),
        (text.duration(2.31), "2.3 s"),
        (text.duration(7300), "2 h 1 min"),
        (text.moment("2026-11-21T14:48:39+00:00"), "2026-11-21 14:48:39 UTC"),
        (text.tick(2e-4, 6e-4), "2e-4"),
    ],
)
def test_numbers_as_people_read_them(shown, expected):
    assert shown.replace(text.THIN, " ") == expected
