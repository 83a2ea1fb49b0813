"""What a run learns and how it is scored, so that training, evaluation and record need not know which task it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pointlift.data.config import DataConfig
from pointlift.data.dataset import CloudDataset, CloudSplit, DatasetMeta
from pointlift.engine import distributed
from pointlift.models.base import PointModel


class TaskScores(Protocol):
    """What a model said of a split, enough for every metric."""

    @property
    def index(self) -> NDArray[np.int64]:
        """(N,) positions in the split, rising."""

    def metrics(self) -> dict[str, float]:
        """Scores as fractions, and `loss`."""


class Task(ABC):
    """One task on one data set, or of one model.

    Attributes:
        name: As in a recipe and a record.
        metric: The score that chooses an epoch.
        votes: Whether averaged logits of several passes are a protocol of it.
        outputs: Names of the logits.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    votes: ClassVar[bool]
    outputs: tuple[str, ...]

    def carrying(self, dataset: CloudDataset) -> CloudDataset:
        """The data set whose samples carry what is learned from.

        Raises:
            UsageError: It does not have that.
        """
        dataset.train.class_labels()  # says so when there are none
        return dataset

    @abstractmethod
    def model_options(self, arch: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options of a new network for this task, from those that a recipe gives."""

    @abstractmethod
    def fit_head(self, model: PointModel, source: str) -> None:
        """Give a network in memory a head for this task, or see that it has one.

        Args:
            source: What the data set is called, for messages.
        """

    @abstractmethod
    def name_outputs(self, model: PointModel) -> None:
        """Write into the model what its outputs mean."""

    @abstractmethod
    def aligned(self, split: CloudSplit, meta: DatasetMeta, model: PointModel) -> CloudSplit:
        """Clouds to score, with labels numbered as the model's.

        Raises:
            DataError: They have classes that the model does not know.
        """

    @abstractmethod
    def losses(self, model: nn.Module, batch: Mapping[str, Tensor], progress: float) -> dict[str, Tensor]:
        """`loss` and what is logged beside it, for `engine.fit`."""

    @abstractmethod
    def score(self, model: nn.Module, loader: Iterable[Mapping[str, Any]]) -> Any:
        """`TaskScores` of every cloud of a loader, gathered from all processes."""

    def evaluate(self, model: nn.Module, loader: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """The metrics of a loader, for `engine.fit`: the same numbers in every process."""
        return self.score(model, loader).metrics()

    def details(self, scores: Any) -> dict[str, Any]:
        """What the record says besides the metrics."""
        return {}

    @abstractmethod
    def write_predictions(
        self, out: Path, scores: Any, split: CloudSplit, meta: DatasetMeta, data: DataConfig, *, keep_clouds: int
    ) -> Path:
        """`predictions.npz` of a run folder."""


def score_rows(
    model: nn.Module, loader: Iterable[Mapping[str, Any]], rows: Callable[[dict[str, Tensor]], tuple[Tensor, ...]]
) -> list[np.ndarray]:
    """Arrays with a row per cloud, gathered from all processes in the order of the split, and `index` behind them.

    Args:
        rows: From a batch on the model's device to tensors (B, ...).
    """
    device = next(model.parameters()).device
    found: list[tuple[np.ndarray, ...]] = []
    for batch in loader:
        out = rows({k: v.to(device, non_blocking=True) for k, v in batch.items() if isinstance(v, Tensor)})
        found.append((*(tensor.cpu().numpy() for tensor in out), batch["index"].numpy()))
    parts = _gather(tuple(map(np.concatenate, zip(*found, strict=True))) if found else None)
    joined = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    # A cloud that two processes scored (padding of an uneven split) counts once.
    _, first = np.unique(joined[-1], return_index=True)
    return [array[first] for array in joined]


def _gather(part: tuple[np.ndarray, ...] | None) -> list[tuple[np.ndarray, ...]]:
    if distributed.world_size() == 1:
        gathered: list[Any] = [part]
    else:
        gathered = [None] * distributed.world_size()
        torch.distributed.all_gather_object(gathered, part)
    return [p for p in gathered if p is not None]
