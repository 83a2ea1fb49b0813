"""`pointlift demo`: a point transformer learns procedural shapes and is scored on ones that it never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RECIPE = "demo/shapes"


def demo(
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted demo.")] = False,
) -> None:
    """Train on shapes made on the fly, score on held-out ones, write a report. A few minutes on two cores."""
    from pointlift.cli.finetune import summary
    from pointlift.cli.output import command_line
    from pointlift.cli.training import train_and_report
    from pointlift.tasks.config import finetune_config
    from pointlift.tasks.finetune import finetune

    command = command_line("demo", "--out", str(out))
    train_and_report(
        finetune,
        finetune_config(RECIPE),
        summary,
        out=out,
        resume=resume,
        recipe=RECIPE,
        command=command,
        again=command,
    )
