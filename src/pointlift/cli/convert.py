"""`pointlift convert IN OUT`: a checkpoint of a released system as a pointlift file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pointlift.cli.output import print_json, say


def convert(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(help="Released checkpoint (.pth) or pointlift file.")],
    target: Annotated[Path, typer.Argument(help="New .safetensors file.")],
    json: Annotated[bool, typer.Option("--json", help="Print the load report as JSON.")] = False,
) -> None:
    """Convert, and say what became of every tensor. What tensors do not tell can be set: --num_groups 512
    --preprocess.points 8192 …
    """
    from dataclasses import asdict

    from pointlift.core.config import parse_overrides
    from pointlift.tasks.convert import convert_checkpoint

    options = parse_overrides(ctx.args)
    preprocess = options.pop("preprocess", {})
    done = convert_checkpoint(source, target, options, preprocess=preprocess)
    if json:
        print_json({**asdict(done), "source": str(done.source), "target": str(done.target)})
        return
    say(f"{done.source}: {done.holds}" + (f" of {done.system}" if done.system else ""))
    print(f"{done.target}: {done.arch}; {done.report}")
    for label, names in (("dropped on purpose", done.report.dropped), ("new", done.report.new)):
        if names:
            say(f"{label}: {', '.join(names[:6])}{', …' if len(names) > 6 else ''}")
