"""`pointlift predict` for models of parts: what it prints and writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pointlift.cli.output import exit_if_failed, print_json, print_table, say, say_what_is_amiss

if TYPE_CHECKING:
    from pointlift.models.base import PointModel
    from pointlift.report.predictions import ShownPrediction
    from pointlift.tasks.predict_parts import PartPrediction


def predict_parts(
    network: PointModel,
    model: str,
    paths: list[str],
    category: str | None,
    *,
    json: bool,
    out: Path | None,
    html: Path | None,
) -> None:
    """Say how many points of each cloud are which part; write coloured clouds and a page where asked.

    Args:
        model: What the network is called.
        category: What the clouds are.
        out: Folder for `<name>.parts.ply` and predictions.json.
    """
    from pointlift.data.files import write
    from pointlift.report.part_cloud import coloured
    from pointlift.tasks.files import write_json
    from pointlift.tasks.predict_parts import segment_many

    predictions: list[PartPrediction] = []
    taken: set[str] = set()
    for p, cloud in segment_many(network, paths, category):
        predictions.append(p)
        say_what_is_amiss(p)
        if out is not None and cloud is not None:
            say(f"wrote {write(coloured(cloud, p), out / _free_name(p.path, taken))}")
    document = {"model": model, "predictions": [p.to_dict() for p in predictions]}
    if json:
        print_json(document)
    elif any(p.error is None for p in predictions):
        print_table(("part", "points", "share", "file"), _rows(predictions))
    if out is not None:
        say(f"wrote {write_json(out / 'predictions.json', document)}")
    if html is not None:
        from pointlift.report.predictions import write_predictions_page

        say(f"wrote {write_predictions_page(_shown(predictions), html, title=f'Parts by {model}')}")
    exit_if_failed(predictions)


def _rows(predictions: list[PartPrediction]) -> Iterator[tuple[str, str, str, str]]:
    for p in predictions:
        if p.error is not None:
            yield "(failed)", "", "", str(p.path)
            continue
        for i, (name, count) in enumerate(p.counts.items()):
            yield name, f"{count:,}", f"{100 * count / len(p.part):.1f} %", str(p.path) if i == 0 else ""


def _free_name(path: Path | None, taken: set[str]) -> str:
    """`chair.parts.ply`, or `chair-2.parts.ply` for the second chair of another folder."""
    stem = "cloud" if path is None else path.stem
    name, number = f"{stem}.parts.ply", 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}.parts.ply"
    taken.add(name)
    return name


def _shown(predictions: list[PartPrediction]) -> Iterator[ShownPrediction]:
    """The clouds of the page, each read again: only one is in memory at a time."""
    from dataclasses import replace

    import numpy as np

    from pointlift.core.errors import PointLiftError
    from pointlift.data.files import read
    from pointlift.report.part_cloud import positions
    from pointlift.report.predictions import ShownPrediction

    nothing = np.empty((0, 3), np.float32)
    for i, p in enumerate(predictions):
        if p.error is None and p.path is not None:
            try:
                xyz = read(p.path).xyz
                if len(xyz) != len(p.part):
                    raise PointLiftError(f"{p.path} is no longer the file that was read")
                yield ShownPrediction(str(p.path), xyz, p, part=positions(p), part_names=tuple(p.parts.values()))
                continue
            except PointLiftError as error:
                say(f"error: {error}")
                predictions[i] = replace(p, error=str(error))
        yield ShownPrediction(str(p.path), nothing, predictions[i])
