"""A tokenizer of patches: which code of a vocabulary fits each patch of a cloud (Point-BERT, section 3.2).

Patches are embedded by a mini-PointNet and scored by graph convolutions over their centres. It learns as the first
half of a discrete VAE (`pretrain.dvae`); its codes are what Point-BERT predicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pointlift.core.errors import UsageError
from pointlift.layers.dgcnn import Dgcnn
from pointlift.layers.patch_embed import PatchEmbed
from pointlift.layers.tokens import Taps
from pointlift.models.base import PointModel
from pointlift.models.features import Level, PointFeatures, Pooling
from pointlift.models.heads import HeadKind, build_head
from pointlift.models.part_head import PartHeadConfig
from pointlift.models.point_transformer import PointTransformerQuirks
from pointlift.ops import Grouping, group


@dataclass(frozen=True)
class PointTokenizerConfig:
    """Sizes of a tokenizer; the defaults are the first half of Point-BERT's released discrete VAE.

    Args:
        num_groups, group_size: Patches of a cloud, points of a patch.
        patch_dim: Width of an embedded patch.
        patch_widths: Inner widths of the mini-PointNet.
        num_codes: Codes in the vocabulary, a multiple of four.
        graph_base: Width that the graph convolutions' widths are multiples of.
        neighbors: Edges of a patch in the graph, that to itself among them.
        head, head_hidden, head_dropout, part_head, pooling, num_classes: As other networks have them; a tokenizer is
            trained and read without a head.
    """

    num_groups: int = 64
    group_size: int = 32
    patch_dim: int = 256
    patch_widths: tuple[int, int, int] = (128, 256, 512)
    num_codes: int = 8192
    graph_base: int = 128
    neighbors: int = 4
    head: HeadKind = "mlp3"
    head_hidden: tuple[int, int] = (256, 256)
    head_dropout: float = 0.5
    part_head: PartHeadConfig | None = None
    pooling: Pooling = "max"
    num_classes: int = 0
    quirks: PointTransformerQuirks = field(default_factory=PointTransformerQuirks)

    def __post_init__(self) -> None:
        for name in ("num_groups", "group_size", "patch_dim", "neighbors"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected at least 1")
        for name in ("patch_widths", "head_hidden"):
            if min(getattr(self, name)) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected widths of at least 1")
        if self.num_codes < 4 or self.num_codes % 4:  # a GroupNorm of four groups runs over them
            raise ValueError(f"num_codes {self.num_codes}: expected a multiple of 4")
        if self.graph_base < 2 or self.graph_base % 2:
            raise ValueError(f"graph_base {self.graph_base}: expected an even number")
        if not 0 <= self.head_dropout < 1:
            raise ValueError(f"head_dropout {self.head_dropout}: expected a rate from 0 to below 1")
        if self.num_classes < 0:
            raise ValueError(f"num_classes {self.num_classes}: expected 0 (no head) or more")
        if self.head == "parts":
            raise ValueError("head 'parts': a tokenizer has no such head")
        if "cls" in self.pooling:
            raise ValueError(f"pooling {self.pooling!r}: a tokenizer has no class token; expected max, mean or both")


class PointTokenizer(PointModel):
    """Scores of codes for every patch. As features of a cloud: how well each code fits anywhere in it."""

    config: PointTokenizerConfig

    def __init__(self, config: PointTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config.patch_dim, config.patch_widths)
        self.dgcnn = Dgcnn(config.patch_dim, config.num_codes, base=config.graph_base, k=config.neighbors)
        self.head = self.new_head()

    @property
    def embed_dim(self) -> int:
        return self.config.num_codes

    @property
    def num_features(self) -> int:
        """Width of the pooled vector that the head reads."""
        return self.embed_dim * len(self.config.pooling.split("+"))

    @property
    def min_points(self) -> int:
        return max(self.config.num_groups, self.config.group_size)

    def parts(self) -> dict[str, tuple[str, ...]]:
        """Parameter prefixes from input to output."""
        return {"patch_embed": ("patch_embed.",), "dgcnn": ("dgcnn.",), "head": ("head.",)}

    def new_head(self) -> nn.Module:
        """A fresh head as `config` says."""
        c = self.config
        return build_head(c.head, self.num_features, c.num_classes, hidden=c.head_hidden, dropout=c.head_dropout)

    def groups(self, xyz: Tensor) -> list[Grouping]:
        """Patches of clouds (B, N, 3): one level."""
        c, quirks = self.config, self.config.quirks
        if xyz.shape[1] < self.min_points:
            raise UsageError(
                f"a cloud of {xyz.shape[1]} points cannot make {c.num_groups} groups of {c.group_size}",
                f"at least {self.min_points} points",
                "sample more points (--data.points) or choose a model with fewer groups",
            )
        return [group(xyz, c.num_groups, c.group_size, skip_near_origin=quirks.skip_near_origin, ties=quirks.fps_ties)]

    def scores(self, patches: Tensor, centers: Tensor) -> Tensor:
        """How well each code fits each patch: patches (B, G, K, 3) at `centers` (B, G, 3) -> (B, G, num_codes)."""
        return self.dgcnn(self.patch_embed(patches), centers)

    @torch.no_grad()
    def codes(self, patches: Tensor, centers: Tensor) -> Tensor:
        """The code that fits each patch best, int64 (B, G)."""
        return self.scores(patches, centers).argmax(-1)

    def forward_features(
        self,
        batch: Mapping[str, Tensor],
        *,
        mask: Tensor | None = None,
        groups: Sequence[Grouping] | None = None,
        taps: Iterable[str] = (),
    ) -> PointFeatures:
        """Clouds to scores of codes.

        Args:
            batch: `xyz` (B, N, 3).
            mask: Not supported: patches score together.
            groups: What `groups(xyz)` gave, where the caller has it.
            taps: Names to keep: "centers", "patch_tokens".

        Returns:
            One level of scores (B, G, num_codes), and the taps.

        Raises:
            UsageError: Too few points, or a mask.
            UnknownNameError: A tap that does not exist.
        """
        if mask is not None:
            raise UsageError("a mask for a tokenizer", "whole clouds: its patches are scored together")
        tap = Taps(taps)
        (grouping,) = self.groups(batch["xyz"]) if groups is None else groups
        tokens = self.patch_embed(grouping.neighborhoods)
        tap("centers", grouping.centers)
        tap("patch_tokens", tokens)
        level = Level(xyz=grouping.centers, feats=self.dgcnn(tokens, grouping.centers))
        return PointFeatures((level,), taps=tap.all_found())

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, num_classes), or pooled scores (B, num_features) without a head."""
        return self.logits(self.forward_features(batch))
