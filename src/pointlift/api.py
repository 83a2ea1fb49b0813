"""The verbs of `import pointlift as pl`: thin calls with Python's defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pointlift.adapt.io import load_model
from pointlift.core.config import merge
from pointlift.core.errors import UsageError
from pointlift.data.dataset import CloudDataset
from pointlift.engine import distributed
from pointlift.models.base import PointModel
from pointlift.report import write_report
from pointlift.tasks.config import finetune_config, pretrain_config
from pointlift.tasks.finetune import finetune as _finetune
from pointlift.tasks.inputs import Source
from pointlift.tasks.predict import Prediction
from pointlift.tasks.predict_parts import PartPrediction, answer
from pointlift.tasks.pretraining import pretrain as _pretrain
from pointlift.tasks.run import Run


def finetune(
    model: PointModel | str,
    dataset: CloudDataset | str | os.PathLike[str],
    *,
    out: str | Path,
    recipe: str | None = None,
    resume: bool = False,
    **options: Any,
) -> Run:
    """Fine-tune a model on labelled clouds and write a run folder with record and report.

    Args:
        model: A model (adapted or not), or a registry name.
        dataset: A data set, or the folder of one.
        out: A new or empty folder.
        recipe: A packaged recipe or YAML file to start from.
        resume: Go on with the run in `out`; everything else as it was.
        **options: Fields of `FinetuneConfig`: `epochs=50`, `optim={"lr": 1e-3}`, `adaptation="linear"`.

    Raises:
        ConfigError: Unknown options or wrong values, all at once.
        UsageError: `out` is not empty, model and data do not fit, or an option contradicts the model given.

    Example:
        >>> run = pl.finetune(model, pl.load_dataset("my_clouds/"), epochs=50, out="runs/mine")  # doctest: +SKIP
    """
    if isinstance(model, str):
        options["model"] = model
    elif "adaptation" in options and model.adaptation is not None:
        raise UsageError(
            f"adaptation={options['adaptation']!r} for a model that is adapted already: {model.adaptation.config.name}",
            "one of the two",
        )
    if isinstance(dataset, str | os.PathLike):
        options["data"] = merge(options.get("data", {}), {"root": os.fspath(dataset)})
    run = _finetune(
        finetune_config(recipe, options),
        out=out,
        resume=resume,
        model=None if isinstance(model, str) else model,
        dataset=dataset if isinstance(dataset, CloudDataset) else None,
        recipe=recipe,
    )
    if distributed.is_launched_main():
        write_report(run.out)
    return run


def pretrain(
    dataset: CloudDataset | str | os.PathLike[str] | None = None,
    *,
    out: str | Path,
    recipe: str | None = None,
    resume: bool = False,
    **options: Any,
) -> Run:
    """Pre-train a backbone on clouds without labels; `pl.create_model(…, pretrained=out)` starts from it.

    Args:
        dataset: A data set, or the folder of one; None takes what the recipe names.
        out: A new or empty folder.
        recipe: A packaged recipe or YAML file to start from.
        resume: Go on with the run in `out`; everything else as it was.
        **options: Fields of `PretrainConfig`: `epochs=50`, `model="point_mae_small"`, `objective="masked"`.

    Raises:
        ConfigError: Unknown options or wrong values, all at once.
        UsageError: `out` is not empty, or was started otherwise.
    """
    if isinstance(dataset, str | os.PathLike):
        options["data"] = merge(options.get("data", {}), {"root": os.fspath(dataset), "name": "auto", "options": {}})
    run = _pretrain(
        pretrain_config(recipe, options),
        out=out,
        resume=resume,
        dataset=dataset if isinstance(dataset, CloudDataset) else None,
        recipe=recipe,
    )
    if distributed.is_launched_main():
        write_report(run.out)
    return run


def load(path: str | os.PathLike[str], *, base: str | os.PathLike[str] | None = None) -> PointModel:
    """The model in a run folder, a model file, a released checkpoint or an adapter file, ready to predict.

    Args:
        base: The weights that an adapter was made on, when they are no longer where its file says.
    """
    return load_model(Path(path), base=None if base is None else Path(base))[0]


def predict(
    model: PointModel | str | os.PathLike[str], source: Source, category: str | None = None
) -> Prediction | PartPrediction:
    """The label of one cloud: a file, a `PointCloud`, or coordinates (N, 3). Of a model of parts, a part per point.

    Args:
        category: What the cloud is; models of parts that know several categories need it.

    Raises:
        UsageError: `model` is neither a model nor a path, or `category` is missing, unknown or too much.
    """
    if isinstance(model, str | os.PathLike):
        model = load(model)
    if not isinstance(model, PointModel):
        raise UsageError(f"a {type(model).__name__} as model", "a model or the path of one")
    return answer(model, source, category)
