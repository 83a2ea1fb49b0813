"""Masked autoencoding in levels: Point-M2AE's pre-training (arXiv 2205.14401, section 3).

Hide patches of the coarsest level; the finer levels show what belongs to a visible patch. Encode that from fine to
coarse, decode it from coarse to fine with what the encoder knew at each level, and rebuild the hidden patches of the
second finest level: each is made of centres of the finest one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointlift.core.errors import UsageError
from pointlift.layers.block import BlockConfig
from pointlift.layers.init import init_linears_, xavier
from pointlift.layers.patch_embed import PosEmbed, init_tokens_
from pointlift.layers.propagation import FeaturePropagation, ResidualMlp
from pointlift.layers.tokens import TokenState
from pointlift.layers.trunk import Trunk
from pointlift.layers.visible import Visible, most_shown
from pointlift.models.features import PointFeatures
from pointlift.models.point_m2ae import PointM2AE
from pointlift.ops import Grouping, chamfer, gather
from pointlift.pretrain.masking import num_hidden, random_mask, random_order
from pointlift.pretrain.objective import Batch, Losses, Noise, Objective, Picture

# The level whose patches are rebuilt.
REBUILT = 1


@dataclass(frozen=True)
class HierarchicalConfig:
    """Masked autoencoding in levels; the defaults are the released Point-M2AE pre-training.

    Args:
        mask_ratio: Share of the coarsest level's patches that is hidden.
        decoder_depth: Blocks of each stage of the decoder, from the coarsest level to the second finest; a stage is
            as wide as the encoder's level.
        decoder_heads: Attention heads of the decoder.
        up_blocks: Residual blocks behind each step from a stage to the next.
        drop_path: Rate of the decoder's last block.
        predicted_points: Points that a rebuilt patch has; None: as many as the patch.
    """

    mask_ratio: float = 0.8
    decoder_depth: tuple[int, ...] = (1, 1)
    decoder_heads: int = 6
    up_blocks: tuple[int, ...] = (1,)
    drop_path: float = 0.1
    predicted_points: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio {self.mask_ratio}: expected a share above 0 and below 1")
        if not self.decoder_depth or min(*self.decoder_depth, self.decoder_heads) < 1:
            raise ValueError(f"decoder_depth {self.decoder_depth}, decoder_heads {self.decoder_heads}: expected >= 1")
        if len(self.up_blocks) != len(self.decoder_depth) - 1 or min(self.up_blocks, default=0) < 0:
            raise ValueError(f"up_blocks {self.up_blocks}: expected a number for each stage but the first")
        if self.predicted_points is not None and self.predicted_points < 1:
            raise ValueError(f"predicted_points {self.predicted_points}: expected at least 1, or null")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path {self.drop_path}: expected a rate from 0 to below 1")


class TokenPropagation(nn.Module):
    """Tokens of a coarse level carried to the next finer one, joined with what the encoder knew there."""

    def __init__(self, dim: int, coarse_dim: int, blocks: int) -> None:
        super().__init__()
        self.fuse = FeaturePropagation(dim, coarse_dim, (dim,), act=F.gelu)
        self.blocks = nn.Sequential(*(ResidualMlp(dim) for _ in range(blocks)))

    def forward(self, centers: Tensor, coarse: Tensor, known: Tensor, tokens: Tensor) -> Tensor:
        """Centres (B, G, 3), coarse centres (B, H, 3), known (B, G, C), coarse tokens (B, H, D) -> (B, G, C)."""
        return self.blocks(self.fuse(centers, coarse, known, tokens))


class Stage(nn.Module):
    """One level of the decoder: tokens from the stage before, positions, blocks that see every token."""

    def __init__(self, block: BlockConfig, rates: Sequence[float], before: int | None, up_blocks: int) -> None:
        super().__init__()
        self.token_prop = None if before is None else TokenPropagation(block.dim, before, up_blocks)
        self.pos_embed = PosEmbed(block.dim, block.dim)
        self.trunk = Trunk(block, len(rates), norm=False, drop_path_rates=rates)

    def forward(self, tokens: Tensor, centers: Tensor) -> Tensor:
        """(B, G, C) at (B, G, 3) -> (B, G, C)."""
        state = TokenState(x=tokens, pos=self.pos_embed(centers), spans=(("patch", tokens.shape[1]),))
        return self.trunk(state).x


class HierarchicalAutoencoder(Objective):
    """Point-M2AE's pre-training on a backbone of two levels or more."""

    backbone: PointM2AE
    config: HierarchicalConfig

    def __init__(self, backbone: PointM2AE, config: HierarchicalConfig) -> None:
        super().__init__()
        sizes = backbone.config
        dims = sizes.embed_dim[:0:-1]  # from the coarsest to the second finest
        if not dims or len(config.decoder_depth) != len(dims):
            raise UsageError(
                f"a decoder of depths {config.decoder_depth} for a backbone of {len(sizes.embed_dim)} levels",
                "at least two levels, and a stage for each but the finest",
                f"decoder_depth={(1,) * len(dims)}, up_blocks={(1,) * (len(dims) - 1)}" if dims else "",
            )
        self.backbone, self.config = backbone, config
        self.hidden = num_hidden(sizes.num_groups[-1], config.mask_ratio)
        if self.hidden == 0:
            raise UsageError(
                f"mask_ratio {config.mask_ratio} hides none of {sizes.num_groups[-1]} patches", "at least one", ""
            )
        ends = [0, *accumulate(config.decoder_depth)]
        rates = [config.drop_path * i / max(ends[-1] - 1, 1) for i in range(ends[-1])]
        self.mask_token = nn.Parameter(torch.zeros(1, dims[0]))
        self.stages = nn.ModuleList()
        for i, (dim, (start, end)) in enumerate(zip(dims, pairwise(ends), strict=True)):
            block = BlockConfig(dim, config.decoder_heads, int(dim * sizes.mlp_ratio), eps=sizes.eps)
            before = (dims[i - 1], config.up_blocks[i - 1]) if i else (None, 0)
            self.stages.append(Stage(block, rates[start:end], *before))
        self.norm = nn.LayerNorm(dims[-1], eps=sizes.eps)
        self.predict = nn.Linear(dims[-1], 3 * (config.predicted_points or sizes.group_size[REBUILT]))
        init_tokens_(self.mask_token)
        for stage in self.stages:
            init_linears_(cast(Stage, stage).trunk, xavier)

    def no_weight_decay(self) -> set[str]:
        """The mask token is an embedding."""
        return {"mask_token"}

    def draw(self, batch: Batch, generator: torch.Generator) -> Noise:
        """`order` (B, G) of the coarsest level's patches."""
        return {"order": random_order(batch["xyz"].shape[0], self.backbone.config.num_groups[-1], generator)}

    def forward(
        self, batch: Batch, noise: Noise, progress: float = 0.0, given: Mapping[str, Tensor] | None = None
    ) -> Losses:
        """Squared Chamfer distance of the rebuilt hidden patches, in coordinates relative to their centres.

        Args:
            batch: `xyz` (B, N, 3).
            noise: From `draw`.
            progress: Not used.
            given: `mask` (B, G) over the coarsest level instead of one drawn.

        Returns:
            `total`, and in `found`: "level.I.centers|members|mask|patch_tokens|visible|valid" for every level,
            "decoded" (B, G, C), "rebuilt" (B, G, P, 3) and "target" (B, G, K, 3) of all patches of the level that is
            rebuilt, of which those under "level.1.mask" count.
        """
        groups = self.backbone.groups(batch["xyz"])
        if given is not None and "mask" in given:
            hidden = given["mask"]
            shown = most_shown(hidden, groups[-1].centers)
        else:
            hidden = random_mask(noise["order"].to(batch["xyz"].device), self.hidden)
            shown = hidden.shape[1] - self.hidden
        views = self.backbone.visible(hidden, groups, shown)
        taps = [f"level.{i}.patch_tokens" for i in range(len(groups))]
        features = self.backbone.encode(batch, groups, views, taps)
        decoded = self.norm(self._decode(features, groups, views))
        mask, target = views[REBUILT].hidden, groups[REBUILT].neighborhoods
        rebuilt = self.predict(decoded).unflatten(-1, (-1, 3)).float()
        loss = _chamfer_of(mask, rebuilt, target)
        found = {"decoded": decoded, "rebuilt": rebuilt, "target": target, **features.taps}
        for i, (grouping, view, level) in enumerate(zip(groups, views, features.levels, strict=True)):
            own = {"centers": grouping.centers, "members": grouping.idx, "mask": view.hidden}
            own |= {"visible": level.feats, "valid": view.valid}
            found |= {f"level.{i}.{name}": value for name, value in own.items()}
        return Losses(loss, found=found)

    def _decode(self, features: PointFeatures, groups: Sequence[Grouping], views: Sequence[Visible]) -> Tensor:
        """Visible tokens of every level -> tokens of all patches of the level that is rebuilt, (B, G, C)."""
        x = self.mask_token.to(features.levels[-1].feats.dtype).expand(*views[-1].hidden.shape, -1)
        x = views[-1].put(x, features.levels[-1].feats)
        for i, stage in zip(reversed(range(REBUILT, len(groups))), self.stages, strict=True):
            stage = cast(Stage, stage)
            centers, view, feats = groups[i].centers, views[i], features.levels[i].feats
            if stage.token_prop is not None:
                known = view.put(feats.new_zeros(*view.hidden.shape, feats.shape[-1]), feats)
                x = stage.token_prop(centers, groups[i + 1].centers, known, x)
            x = stage(x, centers)
        return x

    @torch.no_grad()
    def show(self, batch: Batch, noise: Noise, given: Mapping[str, Tensor] | None = None) -> Picture:
        """Visible patches of the finest level as they are, hidden ones of the second finest as they were rebuilt.

        Clouds show different numbers of patches: the first one is repeated where a cloud has fewer than another.
        """
        training = self.training
        found = self.eval()(batch, noise, given=given).found
        self.train(training)
        centers, mask = found[f"level.{REBUILT}.centers"], found[f"level.{REBUILT}.mask"]
        return Picture(
            given=_patches(gather(batch["xyz"], found["level.0.members"]), ~found["level.0.mask"]),
            rebuilt=_patches(found["rebuilt"] + centers.unsqueeze(2), mask),
            target=_patches(found["target"] + centers.unsqueeze(2), mask),
            whole=batch["xyz"],
            centers=centers,
            hidden=mask,
        )


def _chamfer_of(mask: Tensor, rebuilt: Tensor, target: Tensor) -> Tensor:
    """Mean squared distances both ways, over all patches of the batch under `mask` (B, G) together.

    Every patch is measured and those that were visible weigh nothing: their number may differ from cloud to cloud
    without a shape that does.
    """
    nearest = chamfer(rebuilt.flatten(0, 1), target.flatten(0, 1))
    each = nearest.dist_a.mean(1) + nearest.dist_b.mean(1)
    weight = mask.flatten().to(each.dtype)
    return (each * weight).sum() / weight.sum().clamp(min=1)


def _patches(points: Tensor, wanted: Tensor) -> Tensor:
    """Points of the wanted patches: (B, G, K, 3), (B, G) bool -> (B, P, 3); short clouds repeat their first patch."""
    rows = Visible.of(~wanted, max(1, int(wanted.sum(1).max())))
    idx = torch.where(rows.valid, rows.idx, rows.idx[:, :1])
    return gather(points.flatten(2), idx).reshape(len(points), -1, 3)
