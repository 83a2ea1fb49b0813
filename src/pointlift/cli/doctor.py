"""`pointlift doctor`: what is installed, what is active, what is wrong."""

from __future__ import annotations

from typing import Annotated

import typer

from pointlift.cli.output import print_json


def doctor(json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """Versions, devices, geometry back ends, and a check that they agree with the reference."""
    from pointlift.tasks.doctor import diagnose

    found = diagnose()
    if json:
        print_json(found)
    else:
        for section, value in found.items():
            if isinstance(value, dict):
                print(f"{section}:")
                for key, inner in value.items():
                    print(f"  {key}: {inner}")
            else:
                print(f"{section}: {value}")
    if not found["ops_agree_with_reference"]:
        raise typer.Exit(1)
