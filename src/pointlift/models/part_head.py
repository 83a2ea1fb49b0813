"""Part segmentation on patch features: logits for every point of a cloud (card point-mae, section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointlift.layers.propagation import FeaturePropagation, PointMlp
from pointlift.models.batch_norm import batch_norm


@dataclass(frozen=True)
class PartHeadConfig:
    """Sizes of a part segmentation head; the defaults are those released with Point-MAE for ShapeNetPart.

    Args:
        categories: Object categories; the head is told which one a cloud is.
        fetch: Blocks whose outputs are read, from 0.
        propagation: Widths of the layers that carry features to the points.
        category_dim: Width of the embedded category.
        hidden: Widths between the joined features and the logits; dropout follows the first.
    """

    categories: int = 16
    fetch: tuple[int, ...] = (3, 7, 11)
    propagation: tuple[int, ...] = (1536, 1024)
    category_dim: int = 64
    hidden: tuple[int, ...] = (512, 256)

    def __post_init__(self) -> None:
        for name in ("fetch", "propagation", "hidden"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected at least one number")
        if min(self.categories, self.category_dim, *self.propagation, *self.hidden) < 1 or min(self.fetch) < 0:
            raise ValueError("expected categories and widths of at least 1, blocks of at least 0")


class CategoryEmbed(nn.Module):
    """One-hot category -> Linear without bias, BatchNorm, LeakyReLU."""

    def __init__(self, categories: int, dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(categories, dim, bias=False)
        self.bn = nn.BatchNorm1d(dim)

    def forward(self, category: Tensor) -> Tensor:
        """Category numbers (B,) -> (B, dim)."""
        one_hot = F.one_hot(category.long(), self.fc.in_features).to(self.fc.weight.dtype)
        return F.leaky_relu(batch_norm(self.bn, self.fc(one_hot)), 0.2)


class PointLogits(nn.Module):
    """From features of a point and of its whole cloud to logits: a `PointMlp` and a linear layer."""

    def __init__(self, point_dim: int, cloud_dim: int, hidden: Sequence[int], classes: int, dropout: float) -> None:
        super().__init__()
        self.point_dim = point_dim
        self.mlp = PointMlp(point_dim + cloud_dim, hidden, dropout)
        self.fc = nn.Linear(hidden[-1], classes)

    def forward(self, points: Tensor, cloud: Tensor) -> Tensor:
        """Points (B, N, point_dim) and their clouds (B, cloud_dim) -> logits (B, N, classes)."""
        b, n, _ = points.shape
        cloud = cloud.unsqueeze(1)
        if self.mlp.splits:
            x = self.mlp.first(points, 0, bias=False) + self.mlp.first(cloud, self.point_dim, bias=True)
        else:
            x = self.mlp.fcs[0](torch.cat([points, cloud.expand(b, n, -1)], -1))
        return self.fc(self.mlp.after_first(x.reshape(b * n, -1))).view(b, n, -1)


class PartHead(nn.Module):
    """Point-MAE's part segmentation head: one level of patches, outputs of several blocks side by side."""

    def __init__(self, config: PartHeadConfig, embed_dim: int, classes: int, dropout: float) -> None:
        super().__init__()
        joined = embed_dim * len(config.fetch)
        self.category = CategoryEmbed(config.categories, config.category_dim)
        self.propagation = FeaturePropagation(3, joined, config.propagation)
        self.logits = PointLogits(
            config.propagation[-1], 2 * joined + config.category_dim, config.hidden, classes, dropout
        )

    def forward(self, xyz: Tensor, centers: Tensor, feats: Tensor, category: Tensor) -> Tensor:
        """Logits of every point.

        Args:
            xyz: (B, N, 3), the cloud as it came in.
            centers: Patch centres (B, G, 3).
            feats: Features of the patches (B, G, C).
            category: What the object is, numbers (B,).

        Returns:
            (B, N, classes).
        """
        cloud = torch.cat([feats.amax(1), feats.mean(1), self.category(category)], -1)
        return self.logits(self.propagation(xyz, centers, xyz, feats), cloud)
