"""`pointlift recipe show|copy NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pointlift.cli.output import say
from pointlift.core.errors import UsageError

app = typer.Typer(help="Show a packaged recipe, or copy it to edit.", no_args_is_help=True)


@app.command("show")
def show(name: Annotated[str, typer.Argument(help="A name of `pointlift list recipes`.")]) -> None:
    """Print a recipe as it is packaged."""
    from pointlift.core.config import recipe_text

    print(recipe_text(name)[0], end="")


@app.command("copy")
def copy(
    name: Annotated[str, typer.Argument(help="A name of `pointlift list recipes`.")],
    target: Annotated[Path, typer.Argument(help="New .yaml file.")],
) -> None:
    """Write a recipe to a file of your own."""
    from pointlift.core.config import recipe_text

    if target.suffix not in {".yaml", ".yml"}:
        raise UsageError(f"target {str(target)!r}", "a file name ending in .yaml")
    if target.exists():
        raise UsageError(f"{target} exists already", "a new file name")
    target.write_text(recipe_text(name)[0], encoding="utf-8")
    say(f"wrote {target}; run it with: pointlift finetune {target}")
