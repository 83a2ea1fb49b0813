"""`pointlift features MODEL PATH… --out FILE.npz`: one vector per cloud."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pointlift.cli.output import say
from pointlift.core.errors import UsageError


def features(
    model: Annotated[str, typer.Argument(help="Run folder, file, or registry name.")],
    paths: Annotated[list[str], typer.Argument(help="Files, folders (with those below them) or patterns.")],
    out: Annotated[Path, typer.Option(help="Written: `features` (N, C) float32 and `paths` (N,).")],
    pooling: Annotated[
        str | None, typer.Option(help="max, mean, cls, mean+max or cls+max; default the model's.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Base weights of an adapter file.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Clouds per forward pass.")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, …")] = "auto",
) -> None:
    """Features of files of your own, for clustering, retrieval or a classifier of your choice.

    A file that cannot be read is named and left out.
    """
    import numpy as np

    from pointlift.tasks.files import write_arrays
    from pointlift.tasks.predict import features_many
    from pointlift.tasks.resolve import resolve_model

    if out.suffix != ".npz":
        raise UsageError(f"--out {out}", "a file name ending in .npz")
    network = resolve_model(model, base=base, device=device)
    if network.origin is None:
        say(f"{model} is untrained: these are features of random weights (seed 0)")
    rows, names, failed = [], [], 0
    for item, row in features_many(network, paths, pooling=pooling, batch_size=batch_size):
        for note in item.notes:
            say(f"{item.path}: {note}")
        if row is None:
            say(f"error: {item.error}")
            failed += 1
        else:
            rows.append(row)
            names.append(str(item.path))
    if rows:
        write_arrays(out, {"features": np.stack(rows), "paths": np.array(names)})
        say(f"wrote {out}: {len(rows)} vectors of {len(rows[0])}" + (f"; {failed} left out" if failed else ""))
    if failed:
        raise typer.Exit(1)
