"""Masked autoencoding of patches: Point-MAE's pre-training (and, with other targets, ACT's second stage).

Hide most patches, encode the visible ones, let a light decoder see them and where the hidden ones lie, and rebuild the
points of the hidden patches (Point-MAE, arXiv 2203.06604, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pointlift.layers.block import BlockConfig
from pointlift.layers.init import init_linears_, truncated, xavier
from pointlift.layers.patch_embed import PosEmbed, init_tokens_
from pointlift.layers.tokens import TokenState
from pointlift.layers.trunk import Trunk
from pointlift.models.point_transformer import PointTransformer
from pointlift.ops import Grouping, chamfer_l1, chamfer_l2
from pointlift.pretrain.masking import block_mask, num_hidden, random_mask, random_order
from pointlift.pretrain.objective import Batch, Losses, Noise, Objective, Picture

CHAMFER = {"cd_l1": chamfer_l1, "cd_l2": chamfer_l2}


@dataclass(frozen=True)
class MaskedConfig:
    """Masked autoencoding; the defaults are the released Point-MAE pre-training.

    Args:
        mask: "random" patches, or a "block" of neighbouring ones.
        mask_ratio: Share of patches that is hidden.
        loss: Chamfer distance with squared ("cd_l2") or plain ("cd_l1") distances.
        decoder_depth: Blocks of the decoder; it is as wide as the encoder.
        decoder_heads: Attention heads of the decoder.
        drop_path: Rate of the decoder's last block.
    """

    mask: Literal["random", "block"] = "random"
    mask_ratio: float = 0.6
    loss: Literal["cd_l1", "cd_l2"] = "cd_l2"
    decoder_depth: int = 4
    decoder_heads: int = 6
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio {self.mask_ratio}: expected a share above 0 and below 1")
        if self.decoder_depth < 1 or self.decoder_heads < 1:
            raise ValueError(f"decoder_depth {self.decoder_depth}, decoder_heads {self.decoder_heads}: expected >= 1")


class MaskedAutoencoder(Objective):
    """Point-MAE's pre-training on a point transformer without a class token."""

    backbone: PointTransformer
    config: MaskedConfig

    def __init__(self, backbone: PointTransformer, config: MaskedConfig) -> None:
        super().__init__()
        self.backbone, self.config = backbone, config
        sizes = backbone.config
        dim = sizes.embed_dim
        block = BlockConfig(
            dim, config.decoder_heads, int(dim * sizes.mlp_ratio), eps=sizes.eps, drop_path=config.drop_path
        )
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.decoder_pos = PosEmbed(dim, sizes.pos_hidden)
        self.decoder = Trunk(block, config.decoder_depth, pos=sizes.pos)
        self.predict = nn.Linear(dim, 3 * sizes.group_size)
        init_tokens_(self.mask_token)
        init_linears_(backbone, truncated)
        init_linears_(self.decoder, xavier)

    def no_weight_decay(self) -> set[str]:
        """The mask token is an embedding."""
        return {"mask_token"}

    @property
    def hidden(self) -> int:
        """Patches that are hidden in every cloud."""
        return num_hidden(self.backbone.config.num_groups, self.config.mask_ratio)

    def draw(self, batch: Batch, generator: torch.Generator) -> Noise:
        """`order` (B, G) for random masks, `anchor` (B,) for blocks."""
        count, groups = batch["xyz"].shape[0], self.backbone.config.num_groups
        if self.config.mask == "random":
            return {"order": random_order(count, groups, generator)}
        return {"anchor": torch.randint(groups, (count,), generator=generator, device=generator.device)}

    def forward(
        self, batch: Batch, noise: Noise, progress: float = 0.0, given: Mapping[str, Tensor] | None = None
    ) -> Losses:
        """Chamfer distance of the rebuilt hidden patches, in coordinates relative to their centres.

        Args:
            batch: `xyz` (B, N, 3).
            noise: From `draw`.
            progress: Not used.
            given: `mask` (B, G) instead of one drawn.

        Returns:
            `total`, and in `found` what the parity files name: centers, neighborhoods, visible, decoded, rebuilt,
            target; in evaluation mode also patch_tokens (in training those of hidden patches are not computed).
        """
        (grouping,) = self.backbone.groups(batch["xyz"])
        mask = self._mask(grouping, noise) if given is None or "mask" not in given else given["mask"]
        taps = [] if self.training else ["patch_tokens"]
        features = self.backbone.forward_features(batch, mask=mask, groups=[grouping], taps=taps)
        visible = features.levels[0].feats
        decoded = self._decode(visible, grouping.centers, mask)
        rebuilt = self.predict(decoded).reshape(-1, grouping.idx.shape[2], 3)
        target = grouping.neighborhoods[mask]
        found = {
            "mask": mask,
            "centers": grouping.centers,
            "neighborhoods": grouping.neighborhoods,
            **features.taps,
            "visible": visible,
            "decoded": decoded,
            "rebuilt": rebuilt,
            "target": target,
        }
        loss = CHAMFER[self.config.loss](rebuilt.float(), target)
        return Losses(loss, found=found)

    def _mask(self, grouping: Grouping, noise: Noise) -> Tensor:
        if self.config.mask == "random":
            return random_mask(noise["order"].to(grouping.centers.device), self.hidden)
        return block_mask(grouping.centers, noise["anchor"].to(grouping.centers.device), self.hidden)

    def _decode(self, visible: Tensor, centers: Tensor, mask: Tensor) -> Tensor:
        """Visible tokens (B, V, C) -> tokens of the hidden patches (B, M, C), in their order."""
        b, _, dim = visible.shape
        ordered = torch.cat([centers[~mask].view(b, -1, 3), centers[mask].view(b, -1, 3)], 1)
        hidden = ordered.shape[1] - visible.shape[1]
        state = TokenState(
            x=torch.cat([visible, self.mask_token.expand(b, hidden, dim).to(visible.dtype)], 1),
            pos=self.decoder_pos(ordered),
            spans=(("visible", visible.shape[1]), ("patch", hidden)),
        )
        return self.decoder(state)["patch"]

    @torch.no_grad()
    def show(self, batch: Batch, noise: Noise, given: Mapping[str, Tensor] | None = None) -> Picture:
        """Visible patches as they are, hidden ones as they were rebuilt; patches overlap, so points are about twice."""
        training = self.training
        found = self.eval()(batch, noise, given=given).found
        self.train(training)
        mask, centers, patches = found["mask"], found["centers"], found["neighborhoods"]
        b = len(centers)
        place = centers.unsqueeze(2)
        visible, target = ((patches + place)[of].view(b, -1, 3) for of in (~mask, mask))
        rebuilt = (found["rebuilt"] + centers[mask].unsqueeze(1)).view(b, -1, 3)
        return Picture(visible, rebuilt, target, batch["xyz"], centers, mask)
