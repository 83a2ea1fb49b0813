"""From a feature to the points of a patch: a few coarse points, each unfolded into a small square (FoldingNet)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointlift.layers.propagation import PointMlp

GRID = 2  # points along one side of a square
SIDE = 0.05  # half the side, in the unit of the patch's coordinates


class Folded(NamedTuple):
    """Points of each patch, relative to its centre."""

    coarse: Tensor
    """(B, G, K / 4, 3)."""
    fine: Tensor
    """(B, G, K, 3): four points around each coarse one, in its order."""


class FoldingDecoder(nn.Module):
    """Point-BERT's decoder (section 3.2, after FoldingNet): an MLP sets coarse points, a second one unfolds them.

    Args:
        in_dim: Channels of a patch's feature.
        num_points: Points of a patch, a multiple of four.
        hidden: Width of the MLP that sets coarse points.
        folding: Width of the one that unfolds them.
    """

    grid: Tensor

    def __init__(self, in_dim: int, num_points: int, hidden: int = 1024, folding: int = 512) -> None:
        super().__init__()
        self.in_dim, self.num_coarse = in_dim, num_points // GRID**2
        self.fc1 = nn.Linear(in_dim, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, 3 * self.num_coarse)
        self.fold = PointMlp(in_dim + 2 + 3, (folding, folding))
        self.offset = nn.Linear(folding, 3)
        steps = torch.linspace(-SIDE, SIDE, GRID)
        # The first coordinate runs fastest; not learned, so not part of the state.
        self.register_buffer("grid", torch.cartesian_prod(steps, steps).flip(-1), persistent=False)

    def forward(self, feats: Tensor) -> Folded:
        """Features (B, G, in_dim) -> points of the patches."""
        b, g, _ = feats.shape
        hidden = F.relu(self.fc2(F.relu(self.fc1(feats))))
        coarse = self.fc3(hidden).view(b, g, self.num_coarse, 3)
        rows = self._unfold(feats, coarse)
        offset = self.offset(self.fold.after_first(rows.flatten(0, 3)))
        fine = offset.view(*rows.shape[:4], 3) + coarse.unsqueeze(3)
        return Folded(coarse, fine.flatten(2, 3))

    def _unfold(self, feats: Tensor, coarse: Tensor) -> Tensor:
        """First layer on [feature, grid point, coarse point]: (B, G, K / 4, 4, C).

        Its shares of the three are added, so that the feature's costs one row per patch instead of one per point.
        """
        feats, points, grid = feats[:, :, None, None], coarse.unsqueeze(3), self.grid.to(feats.dtype)
        if self.fold.splits:
            shares = [
                self.fold.first(feats, 0, bias=True),
                self.fold.first(grid, self.in_dim, bias=False),
                self.fold.first(points, self.in_dim + 2, bias=False),
            ]
            return shares[0] + shares[1] + shares[2]
        shape = (*coarse.shape[:3], len(grid))
        parts = [part.expand(*shape, part.shape[-1]) for part in (feats, grid, points)]
        return self.fold.fcs[0](torch.cat(parts, -1))
