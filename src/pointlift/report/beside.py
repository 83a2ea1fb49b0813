"""This run's score among the reported ones, as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pointlift.report import text
from pointlift.report.facts import lookup, metric_name, plain
from pointlift.weights.reported import Beside, rows_for

FULL_BAR = 0.5  # bars start here, or lower where a score is: all of them near 90 % would look alike


@dataclass(frozen=True)
class BesideRow:
    """One line: this run (`own`) or a published score, its length as a bar in percent."""

    system: str
    value: str
    length: float
    own: bool = False
    same: bool = True
    differs: str = ""
    paper: str = ""
    source: str = ""


@dataclass(frozen=True)
class BesideTable:
    """This run among reported scores of one metric, best first.

    Attributes:
        same: Whether any of them is on the same data.
        common: What differs from this run in all of them.
        custom: How papers come by scores of this protocol, in a sentence; empty where they differ in that.
    """

    metric: str
    rows: list[BesideRow]
    same: bool
    common: str
    custom: str = ""


def beside(record: dict[str, Any], metric: str, value: float | None, decimals: int) -> BesideTable | None:
    """The table, or None where no paper reports the record's data set, protocol and metric.

    Args:
        record: Of the run.
        metric: The one that the page shows large.
        value: The run's, as the page shows it.
        decimals: Of the run's own score.
    """
    found = [b for b in rows_for(record) if b.row.metric == metric]
    if not found or value is None:
        return None
    low = min(FULL_BAR, value, *(b.row.value for b in found))
    arch = plain(lookup(record, "model", "arch") or "this run")
    pretrained = lookup(record, "model", "pretrained")
    name = f"{arch}, {plain(pretrained)}" if pretrained else arch
    rows = [(value, BesideRow(name, text.percent(value, decimals), _length(value, low), own=True))]
    common = [phrase for phrase in found[0].differs if all(phrase in b.differs for b in found)]
    rows += [(b.row.value, _published(b, low, common)) for b in found]
    same = any(b.same_data for b in found)
    # Without a common data set there is no order to claim: the run stands on top, apart.
    ordered = sorted(rows, key=lambda row: -row[0]) if same else rows
    return BesideTable(metric_name(metric), [row for _, row in ordered], same, "; ".join(common), custom(found))


def custom(found: Sequence[Beside]) -> str:
    """What holds for every row; the rows of a table share their protocol."""
    if not all(b.row.best_on_test for b in found):
        return ""
    if all(b.row.std is not None for b in found):
        return "Papers choose the best epoch of each fold on its test clouds and report mean and standard deviation."
    return "Papers choose the best epoch on the test split and report one run."


def _published(found: Beside, low: float, common: list[str]) -> BesideRow:
    row = found.row
    setting = f", {row.setting}" if row.setting else ""
    voted = ", voted" if row.protocol == "vote" else ""
    value = text.percent(row.value, 2)
    return BesideRow(
        system=f"{row.system}, {row.points:,} points{voted}{setting}",
        value=value if row.std is None else f"{value} ± {100 * row.std:.1f}",
        length=_length(row.value, low),
        same=found.same_data,
        differs="; ".join(phrase for phrase in found.differs if phrase not in common),
        paper=row.paper,
        source=row.source,
    )


def _length(value: float, low: float) -> float:
    return round(100 * (value - low) / max(1e-9, 1 - low), 1)
