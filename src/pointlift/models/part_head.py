"""Part segmentation on patch features: logits for every point of a cloud (Point-MAE's head, Point-BERT's head)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointlift.layers.dgcnn import EdgeConv, neighbors
from pointlift.layers.propagation import FeaturePropagation, PointMlp
from pointlift.models.batch_norm import batch_norm
from pointlift.models.features import Level


@dataclass(frozen=True)
class GraphConfig:
    """Levels between patches and points, with edge convolutions from each to the next finer one (Point-BERT).

    Args:
        levels: Points of each level, from fine to coarse: one level less than blocks that are read.
        hidden: Width inside a step between levels.
        neighbors: Edges of a point.
    """

    levels: tuple[int, ...] = (512, 256)
    hidden: int = 512
    neighbors: int = 4

    def __post_init__(self) -> None:
        if not self.levels or list(self.levels) != sorted(set(self.levels), reverse=True) or self.levels[-1] < 3:
            raise ValueError(f"levels {self.levels}: expected fewer points from level to level, at least 3")
        if self.hidden < 1 or self.neighbors < 1:
            raise ValueError(f"hidden {self.hidden}, neighbors {self.neighbors}: expected at least 1")


@dataclass(frozen=True)
class PartHeadConfig:
    """Sizes of a part segmentation head; the defaults are those released with Point-MAE for ShapeNetPart.

    Args:
        categories: Object categories; the head is told which one a cloud is.
        fetch: Blocks whose outputs are read, from 0; a hierarchy reads every level instead and names none.
        propagation: Widths of the layers that carry features to the points.
        category_dim: Width of the embedded category; with `graph` it is joined as it is.
        hidden: Widths between the joined features and the logits; dropout follows the first.
        graph: Carry features from patches to points by edge convolutions over levels (Point-BERT's head).
    """

    categories: int = 16
    fetch: tuple[int, ...] = (3, 7, 11)
    propagation: tuple[int, ...] = (1536, 1024)
    category_dim: int = 64
    hidden: tuple[int, ...] = (512, 256)
    graph: GraphConfig | None = None

    def __post_init__(self) -> None:
        for name in ("propagation", "hidden"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected at least one number")
        widths = (self.categories, self.category_dim, *self.propagation, *self.hidden)
        if min(widths) < 1 or min(self.fetch, default=0) < 0:
            raise ValueError("expected categories and widths of at least 1, blocks of at least 0")
        if self.graph is not None and len(self.graph.levels) != len(self.fetch) - 1:
            raise ValueError(f"graph.levels {self.graph.levels}: expected one level less than fetch {self.fetch}")


@dataclass(frozen=True)
class LevelsPartHeadConfig(PartHeadConfig):
    """The same for a hierarchy, whose every level is read; the defaults are those released with Point-M2AE."""

    fetch: tuple[int, ...] = ()
    hidden: tuple[int, ...] = (1024, 512, 256)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fetch:
            raise ValueError(f"fetch {self.fetch}: every level is read; expected none")


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
    """From features of a point and of its whole cloud to logits: a `PointMlp` and a linear layer.

    Args:
        cloud_first: Whether the first layer reads the cloud's features before the point's.
    """

    def __init__(
        self,
        point_dim: int,
        cloud_dim: int,
        hidden: Sequence[int],
        classes: int,
        dropout: float,
        *,
        cloud_first: bool = False,
    ) -> None:
        super().__init__()
        self.cloud_first = cloud_first
        # Columns of the first layer at which each part starts.
        self.point_at, self.cloud_at = (cloud_dim, 0) if cloud_first else (0, point_dim)
        self.mlp = PointMlp(point_dim + cloud_dim, hidden, dropout)
        self.fc = nn.Linear(hidden[-1], classes)

    def forward(self, points: Tensor, cloud: Tensor) -> Tensor:
        """Points (B, N, point_dim) and their clouds (B, cloud_dim) -> logits (B, N, classes)."""
        b, n, _ = points.shape
        cloud = cloud.unsqueeze(1)
        if self.mlp.splits:
            x = self.mlp.first(points, self.point_at, bias=False) + self.mlp.first(cloud, self.cloud_at, bias=True)
        else:
            both = (points, cloud.expand(b, n, -1))
            x = self.mlp.fcs[0](torch.cat(both[::-1] if self.cloud_first else both, -1))
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


class LevelsPartHead(nn.Module):
    """Point-M2AE's part segmentation head: every level carried to the points (card point-m2ae, section 6)."""

    def __init__(self, config: LevelsPartHeadConfig, dims: Sequence[int], classes: int, dropout: float) -> None:
        super().__init__()
        joined = config.propagation[-1] * len(dims)
        self.category = CategoryEmbed(config.categories, config.category_dim)
        self.propagations = nn.ModuleList(FeaturePropagation(3, dim, config.propagation) for dim in dims)
        self.logits = PointLogits(
            joined, joined + config.category_dim, config.hidden, classes, dropout, cloud_first=True
        )

    def forward(self, xyz: Tensor, levels: Sequence[Level], category: Tensor) -> Tensor:
        """Logits of every point (B, N, classes).

        Args:
            xyz: (B, N, 3), the cloud as it came in.
            levels: Features of the patches of each level, from fine to coarse.
            category: What the object is, numbers (B,).
        """
        points = torch.cat(
            [carry(xyz, at.xyz, xyz, at.feats) for carry, at in zip(self.propagations, levels, strict=True)], -1
        )
        cloud = torch.cat([points.amax(1) + points.mean(1), self.category(category)], -1)
        return self.logits(points, cloud)


class GraphStep(nn.Module):
    """Features of a coarse level to a finer one, then among the points of that one (Point-BERT's `DGCNN_Propagation`).

    Args:
        dim: Channels of both levels.
        hidden: Channels between the two edge convolutions.
        k: Edges of a point.
    """

    def __init__(self, dim: int, hidden: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.across = EdgeConv(dim, hidden)
        self.within = EdgeConv(hidden, dim)

    def forward(self, coarse_xyz: Tensor, coarse: Tensor, xyz: Tensor, feats: Tensor) -> Tensor:
        """Coarse points (B, S, 3) with features (B, S, dim), fine ones (B, N, 3) with theirs -> (B, N, dim)."""
        x = self.across(feats, coarse, neighbors(xyz, coarse_xyz, self.k))
        return self.within(x, x, neighbors(xyz, xyz, self.k))


class GraphPartHead(nn.Module):
    """Point-BERT's part segmentation head: block outputs carried to levels of points, and from level to level.

    The output of each block but the last is interpolated to a level of its own. Features then go from the patches,
    with the last block's output, through all levels to the points.
    """

    def __init__(self, config: PartHeadConfig, graph: GraphConfig, dim: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.categories, self.levels = config.categories, graph.levels
        self.lift = nn.ModuleList(FeaturePropagation(3, dim, config.propagation) for _ in graph.levels)
        width = config.propagation[-1]
        self.steps = nn.ModuleList(GraphStep(width, graph.hidden, graph.neighbors) for _ in graph.levels)
        self.propagation = FeaturePropagation(config.categories + 3, width, config.propagation)
        self.mlp = PointMlp(width, config.hidden, dropout)
        self.fc = nn.Linear(config.hidden[-1], classes)

    def forward(
        self, xyz: Tensor, spread: Tensor, centers: Tensor, feats: Sequence[Tensor], category: Tensor
    ) -> Tensor:
        """Logits of every point.

        Args:
            xyz: (B, N, 3), the cloud as it came in.
            spread: Its points in the order of farthest point sampling (B, S, 3), S the largest level's size.
            centers: Patch centres (B, G, 3).
            feats: Features of the patches (B, G, C), one tensor for each block that is read.
            category: What the object is, numbers (B,).

        Returns:
            (B, N, classes).
        """
        # Sampling is greedy: the first points of a large sample are the small sample.
        points = [*(spread[:, :size] for size in self.levels), centers]
        known = [lift(p, centers, p, f) for lift, p, f in zip(self.lift, points, feats, strict=False)]
        x = feats[-1]
        levels = list(zip(self.steps, itertools.pairwise(points), known, strict=True))
        for step, (fine, coarse), own in reversed(levels):
            x = step(coarse, x, fine, own)
        one_hot = F.one_hot(category.long(), self.categories).to(xyz).unsqueeze(1)
        skip = torch.cat([one_hot.expand(-1, xyz.shape[1], -1), xyz], -1)
        x = self.propagation(xyz, points[0], skip, x)
        b, n, _ = x.shape
        return self.fc(self.mlp.after_first(self.mlp.fcs[0](x).reshape(b * n, -1))).view(b, n, -1)


def build_part_head(config: PartHeadConfig, embed_dim: int, classes: int, dropout: float) -> PartHead | GraphPartHead:
    """The head that `config` describes, for patches of `embed_dim` channels."""
    if config.graph is not None:
        return GraphPartHead(config, config.graph, embed_dim, classes, dropout)
    return PartHead(config, embed_dim, classes, dropout)
