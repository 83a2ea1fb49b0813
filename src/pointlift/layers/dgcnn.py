"""Edge convolutions on a fixed graph of patch centres (Point-BERT's dVAE and its part segmentation head).

A feature moves along the edges to its nearest neighbours in space. The graph depends on coordinates alone, so it is
found once (`neighbors`) and shared by all layers.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointlift.ops import gather, knn

SLOPE = 0.2  # of LeakyReLU behind every norm


def neighbors(query: Tensor, points: Tensor, k: int) -> Tensor:
    """The `k` nearest of `points` (B, N, 3), or all where there are fewer, for each of `query` (B, M, 3): (B, M, k)."""
    return knn(query, points, min(k, points.shape[1])).idx


class EdgeConv(nn.Module):
    """Edges [neighbour - own, own] -> Linear without bias, GroupNorm, LeakyReLU; maximum over a point's edges.

    Args:
        in_dim: Channels of a point.
        out_dim: Channels that come out.
        norm_groups: Of the GroupNorm; its statistics run over all edges of a cloud.
    """

    def __init__(self, in_dim: int, out_dim: int, norm_groups: int = 4) -> None:
        super().__init__()
        self.fc = nn.Linear(2 * in_dim, out_dim, bias=False)
        self.norm = nn.GroupNorm(norm_groups, out_dim)

    def forward(self, own: Tensor, others: Tensor, idx: Tensor) -> Tensor:
        """Features that have seen their neighbours.

        Args:
            own: (B, M, in_dim).
            others: Where the neighbours are (B, N, in_dim); `own` itself inside one set of points.
            idx: Neighbours of each point, (B, M, k).

        Returns:
            (B, M, out_dim).
        """
        if type(self.fc) is nn.Linear:
            # W [n - o, o] = W1 n + (W2 - W1) o: the layer runs on points, of which there are k times fewer.
            difference, itself = self.fc.weight.chunk(2, 1)
            edges = gather(F.linear(others, difference), idx) + F.linear(own, itself - difference).unsqueeze(2)
        else:  # swapped (LoRA): it must be called
            near = gather(others, idx)
            center = own.unsqueeze(2).expand_as(near)
            edges = self.fc(torch.cat([near - center, center], -1))
        # LeakyReLU keeps order, so it may follow the maximum. Of equal edges (points with the same code) the first
        # takes the gradient, as released; `amax` would share it out.
        return F.leaky_relu(_group_norm(self.norm, edges).max(2).values, SLOPE)


class Dgcnn(nn.Module):
    """Four edge convolutions on one graph, their outputs side by side, a linear layer with GroupNorm and LeakyReLU.

    Args:
        in_dim, out_dim: Channels.
        base: The layers are 2, 4, 4 and 8 times as wide.
        k: Neighbours of each point, itself among them.
    """

    def __init__(self, in_dim: int, out_dim: int, *, base: int = 128, k: int = 4) -> None:
        super().__init__()
        self.k = k
        widths = [base, 2 * base, 4 * base, 4 * base, 8 * base]
        self.fc_in = nn.Linear(in_dim, base)
        self.convs = nn.ModuleList(EdgeConv(a, b) for a, b in itertools.pairwise(widths))
        self.fc_out = nn.Linear(sum(widths[1:]), out_dim, bias=False)
        self.norm = nn.GroupNorm(4, out_dim)

    def forward(self, feats: Tensor, centers: Tensor) -> Tensor:
        """Features (B, G, in_dim) at `centers` (B, G, 3) -> (B, G, out_dim)."""
        idx = neighbors(centers, centers, self.k)
        x = self.fc_in(feats)
        seen = []
        for conv in self.convs:
            x = conv(x, x, idx)
            seen.append(x)
        x = self.fc_out(torch.cat(seen, -1))
        return F.leaky_relu(_group_norm(self.norm, x.unsqueeze(2)).squeeze(2), SLOPE)


def _group_norm(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """GroupNorm on channels that come last, (B, M, k, C): torch reads this order too, nothing is moved."""
    return norm(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
