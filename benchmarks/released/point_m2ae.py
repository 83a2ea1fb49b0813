"""Point-M2AE's pre-training (card point-m2ae, sections 1 to 4), with the accidents that its padding brings."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.released.parts import (
    Blocks,
    Encoder,
    chamfer_l2,
    group,
    pos_embed,
    random_mask,
    rates,
    square_distance,
)  # fmt: skip

GROUPS, SIZES, DIMS, DEPTHS, RADII = (512, 256, 64), (16, 8, 8), (96, 192, 384), (5, 5, 5), (0.32, 0.64, 1.28)
HEADS = 6


class Propagation(nn.Module):
    """Coarse tokens carried to finer centres and joined with what is known there."""

    def __init__(self, dim: int, coarse: int) -> None:
        super().__init__()
        self.fuse = nn.ModuleDict({"net": nn.Sequential(nn.Conv1d(dim + coarse, dim, 1), nn.BatchNorm1d(dim))})
        residual = {name: nn.Sequential(nn.Conv1d(dim, dim, 1), nn.BatchNorm1d(dim)) for name in ("net1", "net2")}
        self.extraction = nn.ModuleDict({"operation": nn.ModuleList([nn.ModuleDict(residual)])})

    def forward(self, center: Tensor, coarse_center: Tensor, known: Tensor, coarse: Tensor) -> Tensor:
        distance, idx = square_distance(center, coarse_center).sort(dim=-1)
        weight = 1.0 / (distance[:, :, :3] + 1e-8)
        weight = weight / weight.sum(dim=2, keepdim=True)
        rows = torch.arange(len(center))[:, None, None]
        carried = (coarse[rows, idx[:, :, :3]] * weight.unsqueeze(-1)).sum(dim=2)
        x = F.gelu(self.fuse["net"](torch.cat([known, carried], dim=-1).permute(0, 2, 1)))
        block = self.extraction["operation"][0]
        return F.gelu(block["net2"](F.gelu(block["net1"](x))) + x).permute(0, 2, 1)


class HierarchicalEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token_embed = nn.ModuleList([Encoder(DIMS[0])])
        for below, dim in pairwise(DIMS):
            self.token_embed.append(Encoder(dim, (below, below, dim), below))
        self.encoder_pos_embeds = nn.ModuleList(pos_embed(dim, dim) for dim in DIMS)
        drops, ends = rates(0.1, sum(DEPTHS)), (0, 5, 10, 15)
        self.encoder_blocks = nn.ModuleList(
            Blocks(dim, HEADS, drops[ends[i] : ends[i + 1]]) for i, dim in enumerate(DIMS)
        )
        self.encoder_norms = nn.ModuleList(nn.LayerNorm(dim) for dim in DIMS)

    @staticmethod
    def masks(top: Tensor, members: list[Tensor]) -> list[Tensor]:
        """From fine to coarse; an index times a visibility of 0 is 0, so the first token always stays visible."""
        masks = [top]
        for level in (2, 1):
            batch, groups = masks[-1].shape
            visible = (~masks[-1]).reshape(-1, 1).int()
            keep = (members[level].reshape(batch * groups, -1) * visible).reshape(-1).long()
            below = torch.ones(batch * GROUPS[level - 1]).scatter(0, keep, 0)
            masks.append(below.reshape(batch, -1).bool())
        return masks[::-1]

    def forward(
        self, patches: list[Tensor], centers: list[Tensor], members: list[Tensor], top: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        masks, seen, grid = self.masks(top, members), [], patches[0]
        for level in range(3):
            batch, groups, _ = centers[level].shape
            if level:
                flat = grid.reshape(batch * GROUPS[level - 1], -1)
                grid = flat[members[level], :].reshape(batch, groups, SIZES[level], -1)
            tokens = self.token_embed[level](grid)
            dim, visible = tokens.shape[2], ~masks[level]
            counts = visible.sum(-1).tolist()
            longest = max(counts)
            x, center = torch.zeros(batch, longest, dim), torch.zeros(batch, longest, 3)
            closed = torch.ones(batch, longest, longest)
            for i, count in enumerate(counts):
                x[i, :count] = tokens[i, visible[i]]
                center[i, :count] = centers[level][i, visible[i]]
                closed[i, :count, :count] = 0
            with torch.no_grad():
                far = (torch.cdist(center, center) >= RADII[level]).float()
            x = self.encoder_blocks[level](x, self.encoder_pos_embeds[level](center), closed * far)
            seen.append(x)
            grid = tokens.clone()
            for i, count in enumerate(counts):
                grid[i, visible[i]] = x[i, :count]
        return [norm(x) for norm, x in zip(self.encoder_norms, seen, strict=True)], masks


class PointM2AE(nn.Module):
    """The official sizes."""

    def __init__(self, mask_ratio: float = 0.8) -> None:
        super().__init__()
        self.hidden = int(mask_ratio * GROUPS[-1])
        self.h_encoder = HierarchicalEncoder()
        self.mask_token = nn.Parameter(torch.zeros(1, DIMS[2]))
        drops = rates(0.1, 2)
        self.h_decoder = nn.ModuleList(Blocks(dim, HEADS, [drop]) for dim, drop in zip((384, 192), drops, strict=True))
        self.decoder_pos_embeds = nn.ModuleList(pos_embed(dim, dim) for dim in (384, 192))
        self.token_prop = nn.ModuleList([Propagation(192, 384)])
        self.decoder_norm = nn.LayerNorm(192)
        self.rec_head = nn.Conv1d(192, 3 * SIZES[0], 1)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def draw(self, batch: int) -> dict[str, Tensor]:
        return {"mask": random_mask(batch, GROUPS[-1], self.hidden)}

    def forward(self, xyz: Tensor, mask: Tensor) -> Tensor:
        patches, centers, members = [], [], []
        for groups, size in zip(GROUPS, SIZES, strict=True):
            for found, kept in zip(group(xyz, groups, size), (patches, centers, members), strict=True):
                kept.append(found)
            xyz = centers[-1]
        seen, masks = self.h_encoder(patches, centers, members, mask)
        batch = len(xyz)
        visible = seen[2].reshape(-1, 384)
        count = GROUPS[2] - self.hidden
        center = torch.cat([xyz[~mask].reshape(batch, count, 3), xyz[mask].reshape(batch, -1, 3)], dim=1)
        x = torch.cat([visible.reshape(batch, count, -1), self.mask_token.expand(batch, self.hidden, -1)], dim=1)
        x = self.h_decoder[0](x, self.decoder_pos_embeds[0](center))
        known = torch.zeros(batch, GROUPS[1], 192)
        for i in range(batch):
            keep = ~masks[1][i]
            known[i, keep] = seen[1][i, : int(keep.sum())]
        x = self.token_prop[0](centers[1], center, known, x)
        x = self.h_decoder[1](x, self.decoder_pos_embeds[1](centers[1]))
        rebuilt = self.decoder_norm(x)[masks[1]]
        rebuilt = self.rec_head(rebuilt.unsqueeze(0).transpose(1, 2)).transpose(1, 2).reshape(len(rebuilt), -1, 3)
        return chamfer_l2(rebuilt, patches[1][masks[1]])
