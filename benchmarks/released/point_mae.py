"""Point-MAE's pre-training (card point-mae, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.released.parts import Blocks, Decoder, Encoder, chamfer_l2, group, pos_embed, random_mask, rates


class MaskedEncoder(nn.Module):
    """All patches are embedded; the visible ones go through the transformer."""

    def __init__(self, dim: int, depth: int, heads: int, widths: tuple[int, int, int], pos_hidden: int) -> None:
        super().__init__()
        self.encoder = Encoder(dim, widths)
        self.pos_embed = pos_embed(dim, pos_hidden)
        self.blocks = Blocks(dim, heads, rates(0.1, depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, patches: Tensor, center: Tensor, mask: Tensor) -> Tensor:
        tokens = self.encoder(patches)
        batch, _, dim = tokens.shape
        visible = tokens[~mask].reshape(batch, -1, dim)
        pos = self.pos_embed(center[~mask].reshape(batch, -1, 3))
        return self.norm(self.blocks(visible, pos))


class PointMAE(nn.Module):
    """The official sizes by default."""

    def __init__(
        self,
        groups: int = 64,
        size: int = 32,
        dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        decoder_depth: int = 4,
        decoder_heads: int = 6,
        widths: tuple[int, int, int] = (128, 256, 512),
        pos_hidden: int = 128,
        mask_ratio: float = 0.6,
    ) -> None:
        super().__init__()
        self.groups, self.size, self.hidden = groups, size, int(mask_ratio * groups)
        self.MAE_encoder = MaskedEncoder(dim, depth, heads, widths, pos_hidden)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.decoder_pos_embed = pos_embed(dim, pos_hidden)
        self.MAE_decoder = Decoder(dim, decoder_heads, rates(0.1, decoder_depth))
        self.increase_dim = nn.Sequential(nn.Conv1d(dim, 3 * size, 1))
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def draw(self, batch: int) -> dict[str, Tensor]:
        return {"mask": random_mask(batch, self.groups, self.hidden)}

    def forward(self, xyz: Tensor, mask: Tensor) -> Tensor:
        patches, center, _ = group(xyz, self.groups, self.size)
        visible = self.MAE_encoder(patches, center, mask)
        batch, _, dim = visible.shape
        pos_visible = self.decoder_pos_embed(center[~mask]).reshape(batch, -1, dim)
        pos_hidden = self.decoder_pos_embed(center[mask]).reshape(batch, -1, dim)
        count = pos_hidden.shape[1]
        full = torch.cat([visible, self.mask_token.expand(batch, count, -1)], dim=1)
        rebuilt = self.MAE_decoder.tail(full, torch.cat([pos_visible, pos_hidden], dim=1), count)
        rebuilt = self.increase_dim(rebuilt.transpose(1, 2)).transpose(1, 2).reshape(batch * count, -1, 3)
        return chamfer_l2(rebuilt, patches[mask].reshape(batch * count, -1, 3))
