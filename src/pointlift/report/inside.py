"""Runs that lie inside a run's folder: what it is to be seen beside, as the demo's run from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pointlift.core.errors import PointLiftError
from pointlift.report import facts
from pointlift.report.run import read_record

COMPARISON = "comparison.html"


@dataclass(frozen=True)
class InsideRow:
    """One run: its name, what it began from, and its score."""

    name: str
    began: str
    value: str
    own: bool = False


@dataclass(frozen=True)
class InsideTable:
    """This run and those inside its folder.

    Attributes:
        metric: What the scores are.
        page: Name of the comparison page in the folder; empty where there is none.
    """

    metric: str
    rows: list[InsideRow]
    page: str


def runs_inside(path: Path, record: dict[str, Any], decimals: int) -> InsideTable | None:
    """The table, or None where the folder holds no other finished run on the same clouds."""
    metric, clouds = facts.headline(record), facts.lookup(record, "dataset", "content_hash")
    rows = []
    for file in sorted(path.glob("*/record.json")):
        try:
            other = read_record(file)
        except PointLiftError:  # a damaged file of another run is no reason to go without this one's page
            continue
        if clouds is not None and facts.lookup(other, "dataset", "content_hash") == clouds:
            rows.append(_row(file.parent.name, other, metric, decimals))
    if not rows:
        return None
    page = COMPARISON if (path / COMPARISON).is_file() else ""
    return InsideTable(facts.metric_name(metric), [_row("this run", record, metric, decimals, own=True), *rows], page)


def _row(name: str, record: dict[str, Any], metric: str, decimals: int, *, own: bool = False) -> InsideRow:
    began = facts.lookup(record, "model", "pretrained")
    value = facts.metric_text(metric, facts.number_at(record, "metrics", metric), decimals)
    return InsideRow(name.replace("_", " "), facts.plain(began) if began else "random weights", value, own)
