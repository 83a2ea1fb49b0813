"""`pointlift predict MODEL PATH…`: labels for files of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pointlift.cli.output import print_json, print_table, say


def predict(
    model: Annotated[str, typer.Argument(help="Run folder, file, or registry name.")],
    paths: Annotated[list[str], typer.Argument(help="Files, folders or patterns.")],
    base: Annotated[str | None, typer.Option(help="Base weights of an adapter file.")] = None,
    quirks: Annotated[
        str | None, typer.Option(help="paper or upstream, instead of what the weights were trained with.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, …")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write predictions.json into this folder.")] = None,
) -> None:
    """Say what each cloud is, with its probability."""
    from pointlift.tasks.files import write_json
    from pointlift.tasks.predict import predict_many
    from pointlift.tasks.resolve import resolve_model

    predictions = list(predict_many(resolve_model(model, base=base, device=device, quirks=quirks), paths))
    document = {"model": model, "predictions": [p.to_dict() for p in predictions]}
    if out is not None:
        say(f"wrote {write_json(out / 'predictions.json', document)}")
    if json:
        print_json(document)
        return
    rows = []
    for p in predictions:
        ranked = sorted(p.probabilities.items(), key=lambda item: -item[1])[:top]
        rows += [(p.path if i == 0 else "", name, f"{100 * share:.1f} %") for i, (name, share) in enumerate(ranked)]
    print_table(("file", "label", "probability"), rows)
