"""`pointlift report RUN…`: the page of a run again, several runs compared, or a picture for a slide."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pointlift.core.errors import UsageError


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Finished run folders; several are compared.")],
    out: Annotated[
        Path | None,
        typer.Option(help="The page: report.html in the run folder, or comparison.html beside the first one."),
    ] = None,
    png: Annotated[
        Path | None, typer.Option(help="Write a picture of the one run instead (.png, .pdf or .svg).")
    ] = None,
    show: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="First let a pre-training run rebuild N clouds of its data; 0: forget them."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="With --show: the folder of the run's data, if it is not where it was.")
    ] = None,
) -> None:
    """Write the page of a run, or a comparison of several, and print its path. The run's data are not needed."""
    from pointlift.report import write_comparison, write_picture, write_report

    if show is None and data is not None:
        raise UsageError("--data without --show", "--show N --data DIR: only what is rebuilt anew needs data")
    if show is not None:
        if len(runs) > 1:
            raise UsageError("--show with several runs", "--show N and one run")
        from pointlift.tasks.reconstructions import reconstruct

        reconstruct(runs[0], show, root=data)
    if png is not None:
        if len(runs) > 1 or out is not None:
            raise UsageError("--png with " + ("several runs" if len(runs) > 1 else "--out"), "--png FILE and one run")
        print(write_picture(runs[0], png))
    elif len(runs) == 1:
        print(write_report(runs[0], out=out))
    else:
        print(write_comparison(runs, out))
