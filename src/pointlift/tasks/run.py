"""A run folder in memory."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from pointlift.adapt.io import load_model
from pointlift.core.config import build, parse_yaml
from pointlift.core.errors import DataError
from pointlift.models.base import PointModel
from pointlift.tasks.config import FinetuneConfig
from pointlift.tasks.predict import Prediction, Source, predict
from pointlift.tasks.record import Record

CONFIG = "config.yaml"


class Run:
    """A finished run: its record, its model, and predictions with it."""

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out)

    @cached_property
    def record(self) -> Record:
        """What was measured."""
        return Record.read(self.out)

    @cached_property
    def config(self) -> FinetuneConfig:
        """How the run was configured."""
        return read_run_config(self.out)

    @cached_property
    def model(self) -> PointModel:
        """The selected weights, in evaluation mode."""
        return load_model(self.out / "model")[0]

    def predict(self, source: Source) -> Prediction:
        """The label of one cloud (a file, a cloud, or an array)."""
        return predict(self.model, source)

    def __repr__(self) -> str:
        return f"Run({str(self.out)!r})"


def read_run_config(out: Path) -> FinetuneConfig:
    """The configuration in a run folder.

    Raises:
        DataError: There is none.
    """
    path = out / CONFIG
    if not path.is_file():
        raise DataError(f"no {CONFIG} in {out}", "a run folder")
    return build(FinetuneConfig, parse_yaml(path.read_text(encoding="utf-8"), str(path)), where=str(path))
