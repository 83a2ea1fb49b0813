"""`pointlift features MODEL PATH… --out FILE.npz`: one vector per cloud."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pointlift.cli.output import say
from pointlift.core.errors import UsageError


def features(
    model: Annotated[str, typer.Argument(help="Run folder, file, or registry name.")],
    paths: Annotated[list[str], typer.Argument(help="Files, folders or patterns.")],
    out: Annotated[Path, typer.Option(help="Written: `features` (N, C) float32 and `paths` (N,).")],
    pooling: Annotated[
        str | None, typer.Option(help="max, mean, cls, mean+max or cls+max; default the model's.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Base weights of an adapter file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, …")] = "auto",
) -> None:
    """Features of files of your own, for clustering, retrieval or a classifier of your choice."""
    import numpy as np

    from pointlift.tasks.files import write_arrays
    from pointlift.tasks.predict import features_many
    from pointlift.tasks.resolve import resolve_model

    if out.suffix != ".npz":
        raise UsageError(f"--out {out}", "a file name ending in .npz")
    network = resolve_model(model, base=base, device=device)
    if network.origin is None:
        say(f"{model} is untrained: these are features of random weights (seed 0)")
    found = list(features_many(network, paths, pooling=pooling))
    arrays = {"features": np.stack([f for _, f in found]), "paths": np.array([str(c.path) for c, _ in found])}
    write_arrays(out, arrays)
    say(f"wrote {out}: {len(found)} vectors of {len(found[0][1])}")
