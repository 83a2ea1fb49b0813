"""A run folder: how it was started, and in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pointlift.adapt.io import load_model
from pointlift.core.config import build, dump_yaml, merge, parse_yaml, to_dict
from pointlift.core.errors import DataError
from pointlift.engine.files import remove_temporaries
from pointlift.models.base import PointModel
from pointlift.tasks.config import FinetuneConfig, PretrainConfig, RunConfig
from pointlift.tasks.files import write_json, write_text
from pointlift.tasks.inputs import Source
from pointlift.tasks.predict import Prediction
from pointlift.tasks.predict_parts import PartPrediction, answer
from pointlift.tasks.record import Record

CONFIG, ORIGIN = "config.yaml", "origin.json"
_LOCK = ".lock"
KINDS: dict[str, type[RunConfig]] = {
    "classification": FinetuneConfig,
    "part_segmentation": FinetuneConfig,
    "pretraining": PretrainConfig,
}

# What says which data; the rest of a data configuration says what becomes of it.
_WHICH_DATA = ("name", "root", "variant", "options", "up_axis", "unit", "limit")


@dataclass(frozen=True)
class Origin:
    """How a run was started; the record says this also when the run was resumed.

    Attributes:
        recipe: The recipe as it was given.
        command: The command line, or None from Python.
        started: ISO time.
        pretrained: What the weights were before training, or None for new ones.
        weights: sha256 of the weights before training.
        data: `CloudDataset.content_hash`.
    """

    recipe: str | None
    command: str | None
    started: str
    pretrained: str | None
    weights: str
    data: str


class Run:
    """A finished run: its record, its model, and predictions with it."""

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out)

    @cached_property
    def record(self) -> Record:
        """What was measured."""
        return Record.read(self.out)

    @cached_property
    def config(self) -> RunConfig:
        """How the run was configured."""
        return read_run_config(self.out)

    @cached_property
    def model(self) -> PointModel:
        """The selected weights, in evaluation mode."""
        return load_model(self.out / "model")[0]

    def predict(self, source: Source, category: str | None = None) -> Prediction | PartPrediction:
        """What the model says of one cloud (a file, a cloud, or an array).

        Args:
            category: What the cloud is; for models of parts, which answer with the part of every point.
        """
        return answer(self.model, source, category)

    def __repr__(self) -> str:
        return f"Run({str(self.out)!r})"


def write_start(out: Path, config: RunConfig, origin: Origin) -> None:
    """`origin.json` and, after it, `config.yaml`: a folder with a configuration is a run that can be resumed."""
    write_json(out / ORIGIN, asdict(origin))
    write_text(out / CONFIG, dump_yaml(to_dict(config)))


def read_origin(out: Path) -> Origin:
    """How the run in `out` was started.

    Raises:
        DataError: `origin.json` is absent or damaged.
    """
    path = out / ORIGIN
    try:
        return Origin(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}", "the file that the run began with") from error


def has_run(out: Path) -> bool:
    """Whether `out` holds a run that can be resumed."""
    return (out / CONFIG).is_file()


def tidy(out: Path) -> None:
    """Remove what a process left behind that was killed while it wrote, or before its run began.

    Only the holder of the folder's lock may call this. A folder that holds anything but a run is left as it is.
    """
    run = has_run(out)
    if run or all(path.name in (_LOCK, ORIGIN) or path.name.startswith(".writing-") for path in out.iterdir()):
        remove_temporaries(out)
        if not run:
            (out / ORIGIN).unlink(missing_ok=True)


def read_run_config(out: Path) -> RunConfig:
    """The configuration in a run folder.

    Raises:
        DataError: There is none.
    """
    path = out / CONFIG
    if not path.is_file():
        raise DataError(f"no {CONFIG} in {out}", "a run folder")
    values = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    kind = KINDS.get(str(values.get("task")))
    if kind is None:
        raise DataError(f"{path}: task {values.get('task')!r}", f"one of {', '.join(KINDS)}")
    return build(kind, values, where=str(path))


def data_of_run(out: Path, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Data options to score a run with: those of its own data, or how it treats clouds when others are named.

    The held-out fractions and their seed stay in either case, so that data which only moved is split as in training.
    """
    own = to_dict(read_run_config(out).data)
    other = any(key in overrides and overrides[key] != own[key] for key in ("name", "root"))
    kept = {k: v for k, v in own.items() if not (other and k in _WHICH_DATA)}
    return merge(kept, overrides)


def training_of_run(out: Path) -> dict[str, Any]:
    """How the weights of a finished run came about, for the record of an evaluation of them."""
    record = Record.read(out).data
    keys = ("recipe", "seed", "epoch_rule", "epoch", "epochs", "checkpoint_sha256", "dataset")
    return {key: record.get(key) for key in keys}
