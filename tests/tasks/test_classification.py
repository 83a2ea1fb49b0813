"""The loss, and logits gathered in order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pointlift.tasks.classification import classification_losses, score


class Lookup(nn.Module):
    """Logits that say which cloud was read."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["xyz"][:, 0] * self.scale


def batch(*indices: int) -> dict[str, torch.Tensor]:
    index = torch.tensor(indices)
    xyz = torch.stack([index, -index, index % 3], 1).float().unsqueeze(1)
    return {"xyz": xyz, "label": index % 3, "index": index}


def test_label_smoothing_is_the_textbook_loss() -> None:
    losses = classification_losses(label_smoothing=0.3)(Lookup(), batch(1, 2, 5), 0.0)
    log_p = torch.log_softmax(batch(1, 2, 5)["xyz"][:, 0], 1)
    target = torch.nn.functional.one_hot(batch(1, 2, 5)["label"], 3) * 0.7 + 0.1
    assert losses["loss"].item() == pytest.approx(float(-(target * log_p).sum(1).mean()), rel=1e-6)
    assert losses["loss"].requires_grad
    assert not losses["accuracy"].requires_grad
    assert classification_losses()(Lookup(), batch(1), 0.0)["loss"] != losses["loss"]


def test_scores_are_in_order_and_count_every_cloud_once() -> None:
    with torch.no_grad():
        scores = score(Lookup(), [batch(3, 1), batch(0, 3), batch(2)])
    assert scores.index.tolist() == [0, 1, 2, 3]
    assert scores.label.tolist() == [0, 1, 2, 0]
    np.testing.assert_array_equal(scores.logits[:, 0], [0, 1, 2, 3])


def test_metrics_of_scores() -> None:
    with torch.no_grad():
        scores = score(Lookup(), [batch(0, 1, 2, 3)])
    found = scores.metrics()
    assert found.keys() == {"overall_accuracy", "mean_class_accuracy", "loss"}
    assert found["overall_accuracy"] == 0.5  # logits favour class 0, or 2 for cloud 2 by order: 0 and 3 are right
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(scores.logits), torch.from_numpy(scores.label))
    assert found["loss"] == pytest.approx(float(expected))
