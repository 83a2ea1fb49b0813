"""`pointlift report RUN`: write the page of a run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(help="A finished run folder.")]) -> None:
    """Write report.html of a run folder and print its path."""
    from pointlift.report import write_report

    print(write_report(run))
