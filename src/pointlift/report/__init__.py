"""Pages made from a run folder: one self-contained `report.html`, readable offline and on a phone.

`write_report` is loaded on first use, so importing this room does not import jinja2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pointlift.report.page import write_report as write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
    if name == "write_report":
        from pointlift.report.page import write_report

        return write_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
