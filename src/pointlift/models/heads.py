"""Heads: from one vector per cloud to logits."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from pointlift.models.batch_norm import batch_norm

HeadKind = Literal["mlp3", "mlp2", "linear", "parts"]


class MlpHead(nn.Module):
    """Three linear layers with BatchNorm, ReLU and dropout between them (Point-MAE's classifier head)."""

    def __init__(
        self, in_dim: int, num_classes: int, *, hidden: tuple[int, int] = (256, 256), dropout: float = 0.5
    ) -> None:
        super().__init__()
        first, second = hidden
        self.fc1 = nn.Linear(in_dim, first)
        self.bn1 = nn.BatchNorm1d(first)
        self.fc2 = nn.Linear(first, second)
        self.bn2 = nn.BatchNorm1d(second)
        self.fc3 = nn.Linear(second, num_classes)
        self.dropout = nn.Dropout(dropout)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_dim) -> logits (B, num_classes)."""
        x = self.dropout(self.act(batch_norm(self.bn1, self.fc1(x))))
        x = self.dropout(self.act(batch_norm(self.bn2, self.fc2(x))))
        return self.fc3(x)


class Mlp2Head(nn.Module):
    """Two linear layers with ReLU and dropout between them (Point-BERT's classifier head)."""

    def __init__(self, in_dim: int, num_classes: int, *, hidden: int = 256, dropout: float = 0.5) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_dim, hidden)
        self.fc2 = nn.Linear(hidden, num_classes)
        self.dropout = nn.Dropout(dropout)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_dim) -> logits (B, num_classes)."""
        return self.fc2(self.dropout(self.act(self.fc1(x))))


class LinearHead(nn.Module):
    """One linear layer (the linear protocol of ACT)."""

    def __init__(self, in_dim: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_dim) -> logits (B, num_classes)."""
        return self.fc(x)


def build_head(kind: HeadKind, in_dim: int, num_classes: int, *, hidden: tuple[int, int], dropout: float) -> nn.Module:
    """The head of this kind for whole clouds; `num_classes` 0 gives the features themselves.

    Of `hidden`, "mlp2" uses the first.
    """
    if num_classes == 0:
        return nn.Identity()
    if kind == "linear":
        return LinearHead(in_dim, num_classes)
    if kind == "mlp2":
        return Mlp2Head(in_dim, num_classes, hidden=hidden[0], dropout=dropout)
    return MlpHead(in_dim, num_classes, hidden=hidden, dropout=dropout)
