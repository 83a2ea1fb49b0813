"""`pointlift demo`: the shipped weights learn procedural shapes, beside the same network from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pointlift.cli.output import say

RECIPE = "demo/shapes"
SCRATCH = "from_scratch"


def demo(
    out: Annotated[Path, typer.Option(help="Run folder; the run from scratch goes into from_scratch/ in it.")] = Path(
        "runs/demo"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted demo.")] = False,
) -> None:
    """Fine-tune the shipped weights on shapes made on the fly, then the same network from scratch, and compare the two
    on shapes that neither saw. A few minutes on two cores.
    """
    from pointlift.cli.finetune import summary
    from pointlift.cli.output import command_line
    from pointlift.cli.training import train_and_report
    from pointlift.report import write_comparison, write_report
    from pointlift.tasks.config import finetune_config
    from pointlift.tasks.finetune import finetune

    again = command_line("demo", "--out", str(out))
    for folder, overrides, title in (
        (out, {}, "from the shipped weights"),
        (out / SCRATCH, {"model": {"pretrained": False}}, "from scratch"),
    ):
        say(title)
        words = () if not overrides else ("--model.pretrained", "false")
        train_and_report(
            finetune,
            finetune_config(RECIPE, overrides),
            summary,
            out=folder,
            resume=resume,
            recipe=RECIPE,
            command=command_line("finetune", RECIPE, *words),
            again=again,
        )
    page = write_comparison([out, out / SCRATCH], out / "comparison.html")
    write_report(out)  # once more: it links to the comparison now
    say(f"compared  {page}")
