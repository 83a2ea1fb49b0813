"""The verbs of `import pointlift as pl`: thin calls with Python's defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, overload

from pointlift.adapt.base import Adaptation, AdaptationHandle
from pointlift.adapt.io import load_model
from pointlift.adapt.memory_bank import MemoryBank
from pointlift.adapt.registry import adapt_model as _adapt_model
from pointlift.adapt.shared import SharedTrunk
from pointlift.core.config import merge
from pointlift.core.errors import UsageError
from pointlift.data.dataset import CloudDataset
from pointlift.engine import distributed
from pointlift.models.base import PointModel
from pointlift.report import write_report
from pointlift.tasks.config import finetune_config, pretrain_config
from pointlift.tasks.finetune import finetune as _finetune
from pointlift.tasks.inputs import Source
from pointlift.tasks.memory_bank import remember_folder
from pointlift.tasks.predict import Prediction
from pointlift.tasks.predict_parts import PartPrediction, answer
from pointlift.tasks.predict_shared import predict_by_all
from pointlift.tasks.pretraining import pretrain as _pretrain
from pointlift.tasks.run import Run
from pointlift.weights.hub import PREFIX, on_hub


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


def adapt_model(
    model: PointModel,
    adaptation: str | Adaptation,
    *,
    bank: MemoryBank | str | os.PathLike[str] | None = None,
    **options: Any,
) -> AdaptationHandle:
    """Adapt `model` in place: freeze, insert, and return the handle.

    A model has one adaptation at a time; `model.adaptation.remove()` takes it off.

    Args:
        adaptation: A registry name (`pl.list_adaptations()`), or a config.
        bank: For an adaptation that looks things up (`point_peft`): a memory bank, its file, or a folder of clouds to
            make it of (of a data set in several parts: the training part). None: `pl.finetune` makes it of the clouds
            that it trains on.
        **options: Fields of the adaptation's config when a name is given.

    Raises:
        UnknownNameError, ConfigError: An unknown name or option.
        UsageError: The model has no head to train, is adapted already, or cannot be adapted so.
        CheckpointError: A bank that cannot be read, or was made by other weights.
        DataError: A folder without usable clouds.

    Example:
        >>> adapter = pl.adapt_model(model, "point_peft", bank="my_clouds/train")  # doctest: +SKIP
    """
    if isinstance(bank, str | os.PathLike):
        bank = Path(bank)
        if bank.is_dir():
            handle = _adapt_model(model, adaptation, **options)
            remember_folder(handle, bank)
            return handle
    return _adapt_model(model, adaptation, bank=bank, **options)


def load(
    path: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    bank: MemoryBank | str | os.PathLike[str] | None = None,
) -> PointModel:
    """The model in a run folder, a file (model, released checkpoint, adapter) or `hf://org/name`, ready to predict.

    Args:
        base: The weights that an adapter was made on, when they are no longer where its file says; with anything else
            a `UsageError`.
        bank: The memory bank of a model that looks things up, or its file, when none lies beside the model's.
    """
    bank = os.fspath(bank) if isinstance(bank, os.PathLike) else bank
    return load_model(os.fspath(path), base=None if base is None else os.fspath(base), bank=bank)[0]


def from_pretrained(
    name: str | os.PathLike[str], *, base: str | os.PathLike[str] | None = None, revision: str | None = None
) -> PointModel:
    """A model from the Hugging Face Hub (`org/name`), or from a folder or file on this machine, ready to predict.

    Args:
        base: The weights that an adapter was made on, when they are not where its file says.
        revision: Branch, tag or commit on the Hub.

    Raises:
        UsageError: `huggingface_hub` is not installed (`pip install "pointlift[hf]"`), or `revision` of a local path.
        CheckpointError: It cannot be had or read.
    """
    name = os.fspath(name)
    if not (on_hub(name) or Path(name).exists()):
        name = f"{PREFIX}{name}" + (f"@{revision}" if revision else "")
    elif revision is not None:
        raise UsageError(f"revision {revision!r} of {name}", "a revision of org/name on the Hub")
    return load(name, base=base)


@overload
def predict(model: SharedTrunk, source: Source, category: None = None) -> dict[str, Prediction]: ...


@overload
def predict(
    model: PointModel | str | os.PathLike[str], source: Source, category: str | None = None
) -> Prediction | PartPrediction: ...


def predict(
    model: PointModel | SharedTrunk | str | os.PathLike[str], source: Source, category: str | None = None
) -> Prediction | PartPrediction | dict[str, Prediction]:
    """The label of one cloud: a file, a `PointCloud`, or coordinates (N, 3). Of a model of parts, a part per point.

    Args:
        model: A model or the path of one; several adapters on one trunk answer by name.
        category: What the cloud is; models of parts that know several categories need it.

    Raises:
        UsageError: `model` is neither a model nor a path, or `category` is missing, unknown or too much.
    """
    if isinstance(model, SharedTrunk):
        if category is not None:
            raise UsageError(f"category {category!r} for several adapters, which label whole clouds", "no category")
        return predict_by_all(model, source)
    if isinstance(model, str | os.PathLike):
        model = load(model)
    if not isinstance(model, PointModel):
        raise UsageError(f"a {type(model).__name__} as model", "a model or the path of one")
    return answer(model, source, category)
