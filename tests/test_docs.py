"""The docs name only records that are there, and hold no number that still has to be filled in."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_records_that_the_docs_name_are_there() -> None:
    named = {name for page in PAGES for name in re.findall(r"docs/results/([\w-]+\.json)", page.read_text())}
    assert {"ops.json", "demo_shapes.json", "point_mae_modelnet40_cpu.json"} <= named
    for name in named:
        assert json.loads((ROOT / "docs" / "results" / name).read_text())["command"]


def test_numbers_in_the_docs_are_those_of_the_records() -> None:
    page = (ROOT / "docs" / "point_mae.md").read_text()
    assert not re.search(r"[A-Z]{4,}_[A-Z]{2,}", page.replace("OBJ_", "")), "a placeholder"
    for name in ("demo_shapes", "point_mae_modelnet40_cpu"):
        metrics = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())["metrics"]
        row = next(line for line in page.splitlines() if f"{name}.json" in line)
        assert f"{100 * metrics['overall_accuracy']:.2f} %" in row
        assert f"{100 * metrics['mean_class_accuracy']:.2f} %" in row
