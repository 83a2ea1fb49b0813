"""The plain point transformer: Point-MAE's and Point-BERT's classifier at any size (ACT's student is its kin).

Group points into patches, embed each with a mini-PointNet, add a class token and positions, run the trunk, pool the
class token and the maximum over patches, classify (Point-MAE, arXiv 2203.06604, section 3 and 4.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from pointlift.core.errors import UsageError
from pointlift.layers.block import BlockConfig
from pointlift.layers.patch_embed import PatchEmbed, PosEmbed, init_tokens_
from pointlift.layers.tokens import Taps, TokenState
from pointlift.layers.trunk import Trunk
from pointlift.models.base import PATCH_TOKENS, PointModel
from pointlift.models.features import Level, PointFeatures, Pooling
from pointlift.models.heads import HeadKind, build_head
from pointlift.models.part_head import GraphPartHead, PartHead, PartHeadConfig, build_part_head
from pointlift.ops import Grouping, farthest_point_sample, gather, group


@dataclass(frozen=True)
class PointTransformerQuirks:
    """What the released code does and the paper does not say; belongs to weights that were trained so."""

    # pointnet2_ops' sampling never picks points within 0.0316 of the origin, whatever they are.
    skip_near_origin: bool = False
    # Exact ties in sampling are resolved by the block reduction's thread order instead of the lowest index.
    fps_ties: Literal["lowest", "block"] = "lowest"

    @classmethod
    def upstream(cls) -> PointTransformerQuirks:
        return cls(skip_near_origin=True, fps_ties="block")


@dataclass(frozen=True)
class PointTransformerConfig:
    """Sizes of a point transformer; the defaults are the released Point-MAE classifier for 1,024 points.

    Attributes:
        num_groups: Patches of a cloud.
        group_size: Points of a patch.
        embed_dim: Width of a token.
        depth: Transformer blocks.
        num_heads: Attention heads; they divide `embed_dim`.
        mlp_ratio: Width of the MLPs over that of a token.
        drop_path: Rate of stochastic depth in the last block; it grows evenly from 0 in the first.
        patch_widths: Widths of the mini-PointNet that embeds a patch, between its points and the token.
        patch_dim: Width of an embedded patch where a linear layer brings it to `embed_dim` (Point-BERT); None: patches
            are embedded in `embed_dim` channels.
        pos_hidden: Hidden width of the MLP that embeds patch centres.
        pos: Positions are added in front of the first block (`once`) or of every block.
        class_token: A learned token stands in front of the patches.
        eps: Of the layer norms.
        head: Kind of head: `linear`, `mlp2` and `mlp3` (so many layers), `parts` (a class per point).
        head_hidden: Hidden widths of `mlp3`.
        head_dropout: In the head.
        part_head: Of `parts`.
        pooling: What the head reads: the class token, the maximum or the mean over patches, two of them joined (`+`) or
            added (`_plus_`).
        num_classes: Outputs of the head; 0: no head.
        quirks: What the released code does and the paper does not say.
    """

    num_groups: int = 64
    group_size: int = 32
    embed_dim: int = 384
    depth: int = 12
    num_heads: int = 6
    mlp_ratio: float = 4.0
    drop_path: float = 0.1
    patch_widths: tuple[int, int, int] = (128, 256, 512)
    patch_dim: int | None = None
    pos_hidden: int = 128
    pos: Literal["once", "every"] = "every"
    class_token: bool = True
    eps: float = 1e-5
    head: HeadKind = "mlp3"
    head_hidden: tuple[int, int] = (256, 256)
    head_dropout: float = 0.5
    part_head: PartHeadConfig = field(default_factory=PartHeadConfig)
    pooling: Pooling = "cls+max"
    num_classes: int = 0
    quirks: PointTransformerQuirks = field(default_factory=PointTransformerQuirks)

    def __post_init__(self) -> None:
        for name in ("num_groups", "group_size", "embed_dim", "depth", "num_heads", "pos_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected at least 1")
        for name in ("patch_widths", "head_hidden"):
            if min(getattr(self, name)) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected widths of at least 1")
        if self.patch_dim is not None and self.patch_dim < 1:
            raise ValueError(f"patch_dim {self.patch_dim}: expected at least 1, or none")
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim {self.embed_dim}: expected a multiple of num_heads {self.num_heads}")
        if self.mlp_ratio <= 0 or self.eps <= 0:
            raise ValueError(f"mlp_ratio {self.mlp_ratio}, eps {self.eps}: expected numbers above 0")
        for name in ("drop_path", "head_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected a rate from 0 to below 1")
        if self.num_classes < 0:
            raise ValueError(f"num_classes {self.num_classes}: expected 0 (no head) or more")
        if self.head == "parts" and not 0 <= max(self.part_head.fetch, default=-1) < self.depth:
            raise ValueError(f"part_head.fetch {self.part_head.fetch}: expected blocks below depth {self.depth}")
        if self.head == "parts" and self.part_head.graph and self.part_head.propagation[-1] != self.embed_dim:
            raise ValueError(
                f"part_head.propagation {self.part_head.propagation} with part_head.graph: expected to end on "
                f"embed_dim {self.embed_dim}"
            )
        if not self.class_token and "cls" in self.pooling:
            raise ValueError(f"pooling {self.pooling!r} without class_token: expected max, mean or mean+max")


class PointTransformer(PointModel):
    """Point-MAE's and Point-BERT's classifier. `num_classes=0` returns pooled features instead of logits."""

    config: PointTransformerConfig

    def __init__(self, config: PointTransformerConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.patch_embed = PatchEmbed(config.patch_dim or dim, config.patch_widths)
        self.reduce = nn.Identity() if config.patch_dim is None else nn.Linear(config.patch_dim, dim)
        self.pos_embed = PosEmbed(dim, config.pos_hidden)
        if config.class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
            self.cls_pos = nn.Parameter(torch.zeros(1, 1, dim))
        block = BlockConfig(
            dim, config.num_heads, int(dim * config.mlp_ratio), eps=config.eps, drop_path=config.drop_path
        )
        self.trunk = Trunk(block, config.depth, pos=config.pos)
        self.head = self.new_head()
        if config.class_token:
            init_tokens_(self.cls_token, self.cls_pos)

    @property
    def embed_dim(self) -> int:
        return self.config.embed_dim

    @property
    def min_points(self) -> int:
        return max(self.config.num_groups, self.config.group_size, *self._levels)

    @property
    def _levels(self) -> tuple[int, ...]:
        """Sizes of the part segmentation head's own levels of points."""
        return self.head.levels if isinstance(self.head, GraphPartHead) else ()

    @property
    def num_features(self) -> int:
        """Width of the pooled vector that the head reads."""
        return self.embed_dim * len(self.config.pooling.split("+"))

    def parts(self) -> dict[str, tuple[str, ...]]:
        """Parameter prefixes from input to output: what an adaptation freezes or trains by name."""
        blocks = {f"block.{i}": (f"trunk.blocks.{i}.",) for i in range(self.config.depth)}
        return {
            "patch_embed": ("patch_embed.", "reduce."),
            "pos_embed": ("pos_embed.",),
            **({"cls": ("cls_token", "cls_pos")} if self.config.class_token else {}),
            **blocks,
            "norm": ("trunk.norm.",),
            "head": ("head.",),
        }

    def no_weight_decay(self) -> set[str]:
        """Learned tokens and positions are embeddings; decaying them pulls the sequence's frame to zero."""
        return {"cls_token", "cls_pos"} if self.config.class_token else set()

    def new_head(self) -> nn.Module:
        """A fresh head as `config` says."""
        c = self.config
        if c.head == "parts" and c.num_classes:
            return build_part_head(c.part_head, c.embed_dim, c.num_classes, c.head_dropout)
        return build_head(c.head, self.num_features, c.num_classes, hidden=c.head_hidden, dropout=c.head_dropout)

    def groups(self, xyz: Tensor) -> list[Grouping]:
        """Patches of clouds (B, N, 3): one level."""
        return [self._group(xyz)]

    def _group(self, xyz: Tensor, center_idx: Tensor | None = None) -> Grouping:
        """Patches around farthest points, or around the points `center_idx` (B, G)."""
        c = self.config
        if xyz.shape[1] < self.min_points:
            raise UsageError(
                f"a cloud of {xyz.shape[1]} points cannot make {c.num_groups} groups of {c.group_size}",
                f"at least {self.min_points} points",
                "sample more points (--data.points) or choose a model with fewer groups",
            )
        quirks = c.quirks
        return group(
            *(xyz, c.num_groups, c.group_size),
            skip_near_origin=quirks.skip_near_origin,
            ties=quirks.fps_ties,
            center_idx=center_idx,
        )

    def forward_features(
        self,
        batch: Mapping[str, Tensor],
        *,
        mask: Tensor | None = None,
        groups: Sequence[Grouping] | None = None,
        taps: Iterable[str] = (),
    ) -> PointFeatures:
        """Clouds to tokens.

        Args:
            batch: `xyz` (B, N, 3); `patch_tokens` (B, G, C) where the patches are embedded already.
            mask: (B, G) bool, True = hidden, the same number in every row: only visible patches enter the trunk.
            groups: What `groups(xyz)` gave, where the caller has it.
            taps: Names to keep: "centers", "patch_tokens", "level.0.block.I", "level.0.block.I.attention|mlp",
                "tokens" (class token and patches after the final norm).

        Returns:
            One level of patch tokens after the final norm, the class token if there is one, and the taps.

        Raises:
            UsageError: Too few points, or a mask that does not hide the same number of patches in every cloud.
            UnknownNameError: A tap that does not exist.
        """
        tap = Taps(taps)
        (grouping,) = self.groups(batch["xyz"]) if groups is None else groups
        centers = grouping.centers
        tap("centers", centers)
        if mask is None and PATCH_TOKENS in batch:
            tokens = batch[PATCH_TOKENS]
        else:
            tokens = self._tokens(grouping, mask, tap)
        if mask is not None:
            centers = _visible(centers, mask)
        state = self.state(tokens, centers, tap)
        # Under a mask `tokens` are fewer than the patches.
        known = batch if mask is not None else {**batch, PATCH_TOKENS: tokens}
        adapter, ctx = self.begin_adapters(known, [grouping])
        state = self.trunk(state, adapter, ctx)
        tap("tokens", state.x)
        level = Level(xyz=centers, feats=state["patch"])
        cls = state["prefix"][:, 0] if self.config.class_token else None
        return PointFeatures((level,), cls=cls, taps=tap.all_found())

    def _tokens(self, grouping: Grouping, mask: Tensor | None, tap: Taps) -> Tensor:
        """Embedded patches (B, G, embed_dim), or those that `mask` (B, G) shows; all of them are tapped."""
        patches = grouping.neighborhoods
        if mask is None and "patch_tokens" not in tap.wanted:
            layers = (self.patch_embed, self.reduce)
            return self.once("tokens", patches, layers, lambda: self.reduce(self.patch_embed(patches)))
        if mask is None or "patch_tokens" in tap.wanted:
            tokens = self.patch_embed(patches)
            tap("patch_tokens", tokens)
            return self.reduce(tokens if mask is None else _visible(tokens, mask))
        _check_mask(mask, tuple(patches.shape[:2]))
        return self.reduce(self.patch_embed(patches, ~mask)).unflatten(0, (len(patches), -1))

    def state(self, tokens: Tensor, centers: Tensor, taps: Taps | None = None) -> TokenState:
        """What enters the trunk: tokens (B, G, embed_dim) at centres (B, G, 3), behind the class token."""
        spans = (("patch", tokens.shape[1]),)
        state = TokenState(x=tokens, pos=self.pos_embed(centers), spans=spans, taps=taps or Taps())
        return state.insert("prefix", self.cls_token, self.cls_pos) if self.config.class_token else state

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, num_classes), or pooled features (B, num_features) without a head.

        A head for parts needs `category` (B,) in the batch and gives logits per point (B, N, num_classes).
        """
        if isinstance(self.head, PartHead | GraphPartHead):
            return self._part_logits(self.head, batch)
        return self.head(self.pooled(batch))

    def _part_logits(self, head: PartHead | GraphPartHead, batch: Mapping[str, Tensor]) -> Tensor:
        xyz = batch["xyz"]
        quirks = self.config.quirks
        # One greedy sample serves the head's levels and the patches' centres.
        most = min(max(self.config.num_groups, *self._levels, 1), xyz.shape[1])
        order = farthest_point_sample(xyz, most, skip_near_origin=quirks.skip_near_origin, ties=quirks.fps_ties)
        grouping = self._group(xyz, order[:, : self.config.num_groups])
        blocks = [f"level.0.block.{i}" for i in self.config.part_head.fetch]
        features = self.forward_features(batch, groups=[grouping], taps=blocks)
        centers = grouping.centers
        patches = slice(-centers.shape[1], None)  # behind the class token
        norm = self.trunk.norm or nn.Identity()
        feats = [norm(features.taps[name][:, patches]) for name in blocks]
        if isinstance(head, PartHead):
            return head(xyz, centers, torch.cat(feats, -1), batch["category"])
        return head(xyz, gather(xyz, order), centers, feats, batch["category"])


def _visible(rows: Tensor, mask: Tensor) -> Tensor:
    """Rows (B, G, C) that `mask` (B, G) does not hide, in their order: (B, G_visible, C)."""
    _check_mask(mask, tuple(rows.shape[:2]))
    return rows[~mask].view(rows.shape[0], -1, rows.shape[2])


def _check_mask(mask: Tensor, wanted: tuple[int, ...]) -> None:
    """That a mask is bool, (B, G), and hides as many patches, but not all, in every cloud."""
    if mask.dtype != torch.bool or mask.shape != wanted:
        raise UsageError(f"a {mask.dtype} mask {tuple(mask.shape)}", f"bool {wanted}, True = hidden")
    hidden = mask.sum(1)
    if (hidden != hidden[0]).any() or hidden[0] == mask.shape[1]:
        raise UsageError(f"a mask that hides {hidden.tolist()} patches", "the same number in every cloud, not all")
