"""`pointlift verify RECORD`: run a record's command again, and say same or different."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pointlift.cli.output import print_json


def verify(
    ctx: typer.Context,
    record: Annotated[Path, typer.Argument(help="A record.json, or a run folder.")],
    tolerance: Annotated[float, typer.Option(min=0.0, help="How much a metric may differ.")] = 1e-6,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run the command of RECORD again and compare data and metrics. Data elsewhere: --data.root DIR."""
    from pointlift.tasks.verify import read_record_file
    from pointlift.tasks.verify import verify as run_verify

    verdict = run_verify(read_record_file(record), ctx.args, tolerance=tolerance)
    if json:
        print_json(
            {"same": verdict.same, "differences": list(verdict.differences), "metrics": verdict.metrics}
            | {"command": verdict.command}
        )
    else:
        print("same" if verdict.same else "different\n  " + "\n  ".join(verdict.differences))
    if not verdict.same:
        raise typer.Exit(1)
