"""Classification: what is learned and how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pointlift.engine import distributed
from pointlift.tasks.metrics import confusion_matrix, mean_class_accuracy, overall_accuracy


def classification_losses(
    label_smoothing: float = 0.0,
) -> Callable[[nn.Module, Mapping[str, Tensor], float], dict[str, Tensor]]:
    """Cross entropy for `engine.fit`, with the training accuracy logged beside it."""

    def losses(model: nn.Module, batch: Mapping[str, Tensor], progress: float) -> dict[str, Tensor]:
        logits = model(batch)
        loss = F.cross_entropy(logits.float(), batch["label"], label_smoothing=label_smoothing)
        with torch.no_grad():
            accuracy = (logits.argmax(1) == batch["label"]).float().mean()
        return {"loss": loss, "accuracy": accuracy}

    return losses


@dataclass(frozen=True)
class Scores:
    """Logits of a split with their labels.

    Attributes:
        logits: (N, C) float32, in the order of `index`.
        label: (N,) int64.
        index: (N,) int64, positions in the split, rising.
    """

    logits: NDArray[np.float32]
    label: NDArray[np.int64]
    index: NDArray[np.int64]

    def metrics(self) -> dict[str, float]:
        """`overall_accuracy`, `mean_class_accuracy` and `loss`."""
        matrix = confusion_matrix(self.logits.argmax(1), self.label, self.logits.shape[1])
        loss = F.cross_entropy(torch.from_numpy(self.logits), torch.from_numpy(self.label))
        return {
            "overall_accuracy": overall_accuracy(matrix),
            "mean_class_accuracy": mean_class_accuracy(matrix),
            "loss": float(loss),
        }


def score(model: nn.Module, loader: Iterable[Mapping[str, Any]]) -> Scores:
    """Logits for every cloud of a loader, gathered from all processes and sorted by index."""
    device = next(model.parameters()).device
    logits, labels, indices = [], [], []
    for batch in loader:
        out = model({k: v.to(device, non_blocking=True) for k, v in batch.items() if isinstance(v, Tensor)})
        logits.append(out.float().cpu().numpy())
        labels.append(batch["label"].numpy())
        indices.append(batch["index"].numpy())
    parts = _gather((np.concatenate(logits), np.concatenate(labels), np.concatenate(indices)) if logits else None)
    joined = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    # A cloud that two processes scored (padding of an uneven split) counts once.
    _, first = np.unique(joined[2], return_index=True)
    return Scores(joined[0][first], joined[1][first], joined[2][first])


def _gather(part: tuple[np.ndarray, ...] | None) -> list[tuple[np.ndarray, ...]]:
    if distributed.world_size() == 1:
        gathered: list[Any] = [part]
    else:
        gathered = [None] * distributed.world_size()
        torch.distributed.all_gather_object(gathered, part)
    return [p for p in gathered if p is not None]


def evaluate_classification(model: nn.Module, loader: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The metrics of a loader, for `engine.fit`: the same numbers in every process."""
    return score(model, loader).metrics()
