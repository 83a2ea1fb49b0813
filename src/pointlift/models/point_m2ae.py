"""Point-M2AE: a transformer in levels, from many fine patches to few coarse ones (arXiv 2205.14401, section 3).

Group the cloud, then the centres of the groups, and so on. A token of a level is merged from the tokens of its
members one level below; within a level tokens attend to those near them. What the head reads is the coarsest level.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn

from pointlift.core.errors import UsageError
from pointlift.layers.block import BlockConfig
from pointlift.layers.init import init_linears_, truncated
from pointlift.layers.patch_embed import PatchEmbed, PosEmbed
from pointlift.layers.tokens import Taps, TokenState
from pointlift.layers.trunk import Trunk
from pointlift.layers.visible import Visible, hide_all_but_members, most_shown
from pointlift.models.base import PATCH_TOKENS, PointModel
from pointlift.models.features import Level, PointFeatures, Pooling
from pointlift.models.heads import HeadKind, build_head
from pointlift.models.part_head import LevelsPartHead, LevelsPartHeadConfig
from pointlift.ops import Grouping, gather, group

# What the released code adds to attention that should not be: finite, so that a row without any key is a softmax
# over all of them.
CLOSED = -1e5


@dataclass(frozen=True)
class PointM2AEQuirks:
    """What the released code does and the paper does not say; belongs to weights that were trained so."""

    # pointnet2_ops' sampling never picks points within 0.0316 of the origin, whatever they are.
    skip_near_origin: bool = False
    # Exact ties in sampling are resolved by the block reduction's thread order instead of the lowest index.
    fps_ties: Literal["lowest", "block"] = "lowest"
    # Under a mask, token 0 of the first cloud is visible at every level but the coarsest.
    leak_first: bool = False
    # Under a mask, tokens see padding that lies within their radius (padding lies at the origin), and each other at
    # any distance: what a cloud gives depends on the rest of the batch.
    see_padding: bool = False
    # Features of a network without a head come from a pre-training pass that hides nothing: what belongs to no
    # patch of the next level is left out, and attention is that of `see_padding`.
    features_as_pretrained: bool = False
    # The maximum of "mean+max" pooling passes over the first token (copied from code with a class token).
    max_skips_first: bool = False
    # Two levels with equally many rows share the distances of the finer one.
    stale_distances: bool = False

    @classmethod
    def upstream(cls) -> PointM2AEQuirks:
        return cls(
            skip_near_origin=True,
            fps_ties="block",
            leak_first=True,
            see_padding=True,
            features_as_pretrained=True,
            max_skips_first=True,
            stale_distances=True,
        )


@dataclass(frozen=True)
class PointM2AEConfig:
    """Sizes of a Point-M2AE, one number per level from fine to coarse; the defaults are the released ModelNet40 ones.

    Args:
        num_groups: Patches of each level.
        group_size: Members of a patch: points at the finest level, patches of the level below elsewhere.
        embed_dim: Width of a token.
        depth: Blocks.
        radius: Tokens attend to those nearer than this; 0: to all.
        num_heads: Attention heads, the same at every level; they divide every width.
        mlp_ratio: Width of the MLPs over that of a token.
        drop_path: Rate of the last block of the last level; it rises from 0 over all blocks.
        patch_widths: Of the finest level's mini-PointNet.
        level_norms: A final norm at every level, not at the coarsest alone: what pre-training and a head for parts
            read. A head for parts has them in any case.
        eps: Of the layer norms.
        head: Kind of head: `linear`, `mlp2` and `mlp3` (so many layers), `parts` (a class per point).
        head_hidden: Hidden widths of `mlp3`.
        head_dropout: In the head.
        part_head: Of `parts`.
        pooling: What the head reads of the coarsest level: maximum, mean, both joined (`+`) or added (`_plus_`).
        num_classes: Outputs of the head; 0: no head.
        quirks: What the released code does and the paper does not say.
    """

    num_groups: tuple[int, ...] = (512, 256, 64)
    group_size: tuple[int, ...] = (16, 8, 8)
    embed_dim: tuple[int, ...] = (96, 192, 384)
    depth: tuple[int, ...] = (5, 5, 5)
    radius: tuple[float, ...] = (0.32, 0.64, 1.28)
    num_heads: int = 6
    mlp_ratio: float = 4.0
    drop_path: float = 0.1
    patch_widths: tuple[int, int, int] = (128, 256, 512)
    level_norms: bool = False
    eps: float = 1e-5
    head: HeadKind = "mlp3"
    head_hidden: tuple[int, int] = (256, 256)
    head_dropout: float = 0.5
    part_head: LevelsPartHeadConfig = field(default_factory=LevelsPartHeadConfig)
    pooling: Pooling = "mean_plus_max"
    num_classes: int = 0
    quirks: PointM2AEQuirks = field(default_factory=PointM2AEQuirks)

    def __post_init__(self) -> None:
        levels = len(self.num_groups)
        for name in ("num_groups", "group_size", "embed_dim", "depth", "radius"):
            if len(getattr(self, name)) != levels or not levels:
                raise ValueError(f"{name} {getattr(self, name)}: expected one number per level, as many as num_groups")
        for name in ("num_groups", "group_size", "embed_dim", "depth", "patch_widths", "head_hidden"):
            if min(getattr(self, name)) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected numbers of at least 1")
        for below, groups, members in zip(self.num_groups, self.num_groups[1:], self.group_size[1:], strict=False):
            if max(groups, members) > below:
                raise ValueError(
                    f"{groups} groups of {members} patches: expected at most the {below} of the level below"
                )
        if self.num_heads < 1 or any(dim % self.num_heads for dim in self.embed_dim):
            raise ValueError(f"embed_dim {self.embed_dim}: expected multiples of num_heads {self.num_heads}")
        if self.mlp_ratio <= 0 or self.eps <= 0 or min(self.radius) < 0:
            raise ValueError(f"mlp_ratio {self.mlp_ratio}, eps {self.eps}, radius {self.radius}: expected above 0")
        for name in ("drop_path", "head_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected a rate from 0 to below 1")
        if self.num_classes < 0:
            raise ValueError(f"num_classes {self.num_classes}: expected 0 (no head) or more")
        if "cls" in self.pooling:
            raise ValueError(f"pooling {self.pooling!r}: there is no class token; expected one of max and mean")

    @property
    def all_norms(self) -> bool:
        """Whether every level has a final norm."""
        return self.level_norms or self.head == "parts"


class M2AELevel(nn.Module):
    """One level: members to tokens, positions, blocks with local attention, and the norm of what is read from it."""

    def __init__(self, config: PointM2AEConfig, index: int, rates: Sequence[float]) -> None:
        super().__init__()
        dim = config.embed_dim[index]
        if index == 0:
            self.token_embed = PatchEmbed(dim, config.patch_widths)
        else:
            below = config.embed_dim[index - 1]
            self.token_embed = PatchEmbed(dim, (below, below, dim), in_dim=below)
        self.pos_embed = PosEmbed(dim, dim)
        block = BlockConfig(dim, config.num_heads, int(dim * config.mlp_ratio), eps=config.eps)
        # The next level merges what the blocks give; the norm is for readers.
        self.trunk = Trunk(block, config.depth[index], norm=False, drop_path_rates=rates)
        has_norm = config.all_norms or index == len(config.depth) - 1
        self.norm = nn.LayerNorm(dim, eps=config.eps) if has_norm else None


class PointM2AE(PointModel):
    """Point-M2AE's classifier, or part segmenter; `num_classes=0` returns pooled features instead of logits."""

    config: PointM2AEConfig

    def __init__(self, config: PointM2AEConfig) -> None:
        super().__init__()
        self.config = config
        ends = [0, *accumulate(config.depth)]
        rates = [config.drop_path * i / max(ends[-1] - 1, 1) for i in range(ends[-1])]
        self.levels = nn.ModuleList(M2AELevel(config, i, rates[a:b]) for i, (a, b) in enumerate(pairwise(ends)))
        init_linears_(self.levels, truncated)
        self.head = self.new_head()

    @property
    def embed_dim(self) -> int:
        return self.config.embed_dim[-1]

    @property
    def min_points(self) -> int:
        return max(self.config.num_groups[0], self.config.group_size[0])

    @property
    def num_features(self) -> int:
        """Width of the pooled vector that the head reads."""
        return self.embed_dim * len(self.config.pooling.split("+"))

    @property
    def optional(self) -> tuple[str, ...]:
        """The norms of finer levels: what reads only the coarsest has none."""
        return tuple(f"levels.{i}.norm." for i in range(len(self.levels) - 1))

    def parts(self) -> dict[str, tuple[str, ...]]:
        """Parameter prefixes from input to output: what an adaptation freezes or trains by name."""
        parts: dict[str, tuple[str, ...]] = {}
        for i, depth in enumerate(self.config.depth):
            parts[f"token_embed.{i}"] = (f"levels.{i}.token_embed.",)
            parts[f"pos_embed.{i}"] = (f"levels.{i}.pos_embed.",)
            parts |= {f"block.{i}.{j}": (f"levels.{i}.trunk.blocks.{j}.",) for j in range(depth)}
            if self._level(i).norm is not None:
                parts[f"norm.{i}"] = (f"levels.{i}.norm.",)
        return parts | {"head": ("head.",)}

    def _level(self, index: int) -> M2AELevel:
        return cast(M2AELevel, self.levels[index])

    def new_head(self) -> nn.Module:
        """A fresh head as `config` says."""
        c = self.config
        if c.head != "parts" or not c.num_classes:
            return build_head(c.head, self.num_features, c.num_classes, hidden=c.head_hidden, dropout=c.head_dropout)
        if self._level(0).norm is None:
            raise UsageError(
                f"a head for parts on {self.arch or 'a model'} that has no norms at its finer levels",
                'a model created with head="parts" or level_norms=True',
                'create_model(..., head="parts")',
            )
        return LevelsPartHead(c.part_head, c.embed_dim, c.num_classes, c.head_dropout)

    def groups(self, xyz: Tensor) -> list[Grouping]:
        """Patches of clouds (B, N, 3), then patches of their centres, and so on."""
        c = self.config
        if xyz.shape[1] < self.min_points:
            raise UsageError(
                f"a cloud of {xyz.shape[1]} points cannot make {c.num_groups[0]} groups of {c.group_size[0]}",
                f"at least {self.min_points} points",
                "sample more points (--data.points) or choose a model with fewer groups",
            )
        groupings: list[Grouping] = []
        for count, size in zip(c.num_groups, c.group_size, strict=True):
            groupings.append(
                group(xyz, count, size, skip_near_origin=c.quirks.skip_near_origin, ties=c.quirks.fps_ties)
            )
            xyz = groupings[-1].centers
        return groupings

    def visible(self, mask: Tensor, groups: Sequence[Grouping], shown: int) -> list[Visible]:
        """What each level shows when `mask` hides patches of the coarsest: the members of what the level above shows.

        Rows are padded to a bound that follows from `shown` alone, so nothing waits for the device; on a CPU, where
        waiting costs nothing, to the longest cloud. (The released numbers depend on the padding: it is exact there.)

        Args:
            mask: (B, G) bool, True = hidden.
            shown: Patches that no cloud shows more of.

        Returns:
            From fine to coarse.
        """
        leak = self.config.quirks.leak_first
        views: list[Visible] = []
        for i in reversed(range(len(groups))):
            count = groups[i].centers.shape[1]
            if views:
                members = groups[i + 1].idx
                mask = hide_all_but_members(mask, members, count, leak_first=leak)
                shown = shown * members.shape[2] + leak
            length = min(shown, count)
            if self.config.quirks.see_padding or mask.device.type == "cpu":
                length = max(1, int((~mask).sum(1).max()))
            views.insert(0, Visible.of(mask, length))
        return views

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
            batch: `xyz` (B, N, 3).
            mask: (B, G) bool over the patches of the coarsest level, True = hidden; the finer levels show what belongs
                to a visible patch, and only visible tokens attend.
            groups: What `groups(xyz)` gave, where the caller has it.
            taps: Names to keep: "level.I.centers", "level.I.patch_tokens", "level.I.block.J",
                "level.I.block.J.attention|mlp", "patch_tokens" (of the finest level), "tokens" (of the coarsest level
                after its norm).

        Returns:
            The tokens of every level, after the level's norm where it has one. Under a mask they are the visible ones,
            packed to the left, with `valid` False where rows are padding.

        Raises:
            UsageError: Too few points, or a mask that is not one or hides a cloud entirely.
            UnknownNameError: A tap that does not exist.
        """
        groupings = self.groups(batch["xyz"]) if groups is None else list(groups)
        if mask is None and self.config.quirks.features_as_pretrained and not self.config.num_classes:
            mask = torch.zeros(groupings[-1].centers.shape[:2], dtype=torch.bool, device=batch["xyz"].device)
        views = None if mask is None else self.visible(mask, groupings, most_shown(mask, groupings[-1].centers))
        return self.encode(batch, groupings, views, taps)

    def encode(
        self,
        batch: Mapping[str, Tensor],
        groups: Sequence[Grouping],
        views: Sequence[Visible] | None = None,
        taps: Iterable[str] = (),
    ) -> PointFeatures:
        """`forward_features` with groupings, and with what each level shows (None: everything)."""
        tap = Taps(taps)
        finest = batch[PATCH_TOKENS] if PATCH_TOKENS in batch else self._finest(groups[0])
        adapter, ctx = self.begin_adapters({**batch, PATCH_TOKENS: finest}, groups)
        quirks, grid, distances, levels = self.config.quirks, groups[0].points, None, []
        for i, grouping in enumerate(groups):
            level, view = self._level(i), None if views is None else views[i]
            tokens = finest if i == 0 else level.token_embed(gather(grid, grouping.idx))
            tap(f"level.{i}.centers", grouping.centers)
            tap(f"level.{i}.patch_tokens", tokens)
            if i == 0:
                tap("patch_tokens", tokens)
            x, centers = tokens, grouping.centers
            if view is not None:
                x, centers = view.take(x), view.take(centers)
            near = None
            if self.config.radius[i] > 0:
                if not (quirks.stale_distances and distances is not None and distances.shape[1] == x.shape[1]):
                    distances = _distances(centers)
                near = distances < self.config.radius[i]
            state = TokenState(
                x=x,
                pos=level.pos_embed(centers),
                spans=(("patch", x.shape[1]),),
                mask=near if view is None else self._attention(near, view),
                valid=None if view is None or quirks.see_padding else view.valid,
                level=i,
                taps=tap,
            )
            x = level.trunk(state, adapter, ctx)["patch"]
            grid = x if view is None else view.put(tokens, x)
            feats = x if level.norm is None else level.norm(x)
            levels.append(Level(centers, feats, valid=None if view is None else view.valid))
        tap("tokens", levels[-1].feats)
        skip = quirks.max_skips_first and self.config.pooling == "mean+max"
        return PointFeatures(tuple(levels), taps=tap.all_found(), max_from=int(skip))

    def _finest(self, grouping: Grouping) -> Tensor:
        """Embedded patches of the finest level (B, G, C)."""
        embed, patches = self._level(0).token_embed, grouping.neighborhoods
        return self.once("tokens", patches, (embed,), partial(embed, patches))

    def _attention(self, near: Tensor | None, view: Visible) -> Tensor:
        """Who may attend to whom, (B, L, L), where rows may be padding: visible tokens to near visible ones."""
        pairs = view.valid.unsqueeze(1) & view.valid.unsqueeze(2)
        if self.config.quirks.see_padding:
            # The released product of two masks closes what is far and involves padding; nothing else.
            open_ = pairs if near is None else pairs | near
            return torch.zeros(pairs.shape, device=pairs.device).masked_fill(~open_, CLOSED)
        open_ = pairs if near is None else pairs & near
        # Padding sees itself: a row without any key has no softmax.
        return open_ | torch.eye(pairs.shape[1], dtype=torch.bool, device=pairs.device)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, num_classes), or pooled features (B, num_features) without a head.

        A head for parts needs `category` (B,) in the batch and gives logits per point (B, N, num_classes).
        """
        if isinstance(self.head, LevelsPartHead):
            return self.head(batch["xyz"], self.forward_features(batch).levels, batch["category"])
        return self.head(self.pooled(batch))


@torch.no_grad()
def _distances(centers: Tensor) -> Tensor:
    """Between all centres of a cloud, (B, L, 3) -> (B, L, L), from differences: exact where points meet."""
    centers = centers.float()
    return torch.cdist(centers, centers, compute_mode="donot_use_mm_for_euclid_dist")
