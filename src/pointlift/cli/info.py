"""`pointlift info MODEL|FILE`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pointlift.cli.output import percent, print_json


def info(
    model: Annotated[str, typer.Argument(help="Registry name, run folder, or checkpoint file.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Shapes, parameters, FLOPs, licences, reported and measured scores; for a file, what it holds."""
    from pointlift.tasks.inspect import inspect_model

    about = inspect_model(model)
    if json:
        print_json(about)
        return
    print(f"{about['name']}: {about['arch']} ({about['paper']})")
    print(f"  input {about['input']}  output {about['output']}")
    print(f"  parameters {about['parameters']:,}  FLOPs {about['gflops']:.2f} G per cloud")
    for part, count in about["parameters_by_part"].items():
        print(f"    {part:12} {count:>12,}")
    if about["classes"]:
        print(f"  classes {', '.join(about['classes'])}")
    for key, value in about.get("file", {}).items():
        if key == "measured":
            _print_scores(value)
        elif value not in (None, [], {}):
            print(f"  {key}: {value}")
    for name, entry in about["weights"].items():
        scores = ", ".join(f"{k} {100 * v:.2f} % (reported)" for k, v in entry["reported"].items())
        print(f"  weights {name}: {entry['holds']}; {entry['licence']}; {entry['url']} {scores}".rstrip())


def _print_scores(measured: dict[str, Any]) -> None:
    metrics = measured["metrics"]
    print(
        f"  measured: {percent(metrics, 'overall_accuracy')} overall accuracy on {measured['split']} of "
        f"{measured['dataset']}, protocol {measured['protocol']}, weights {measured['epoch_rule']}"
    )
