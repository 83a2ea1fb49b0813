"""The networks of masked point modelling: what stands around a backbone, what they see, and the slow copy that follows.

Apart from them, `bert` holds what is learned.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointlift.layers.init import init_linears_, truncated
from pointlift.layers.patch_embed import init_tokens_
from pointlift.models.point_transformer import PointTransformer


class Heads(nn.Module):
    """What stands around a backbone that reads clouds with hidden patches.

    Args:
        dim: Width of a token.
        codes: Size of the vocabulary.
        contrast_dim: Width of a direction.
    """

    def __init__(self, dim: int, codes: int, contrast_dim: int) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.codes = nn.Linear(dim, codes)
        self.contrast1 = nn.Linear(dim, contrast_dim)
        self.contrast2 = nn.Linear(contrast_dim, contrast_dim)
        init_linears_(self, truncated)
        init_tokens_(self.mask_token)

    def no_weight_decay(self) -> set[str]:
        """The mask token is an embedding."""
        return {"mask_token"}

    def direction(self, cls: Tensor) -> Tensor:
        """Class tokens (B, C) -> (B, contrast_dim), of any length."""
        return self.contrast2(F.gelu(self.contrast1(cls)))


class Patches(NamedTuple):
    """Clouds cut into patches, with their codes."""

    points: Tensor
    """(B, G, K, 3), relative to their centres."""
    centers: Tensor
    """(B, G, 3)."""
    codes: Tensor
    """int64 (B, G)."""

    def mixed(self, keep: Tensor) -> Patches:
        """Patch by patch the cloud's own where `keep` (B, G), else that of the cloud at the batch's other end."""
        own = keep.unsqueeze(-1)
        return Patches(
            torch.where(own.unsqueeze(-1), self.points, self.points.flip(0)),
            torch.where(own, self.centers, self.centers.flip(0)),
            torch.where(keep, self.codes, self.codes.flip(0)),
        )


class Replacing(NamedTuple):
    """Visible patches that others of the batch take the place of."""

    share: float
    """Probability of it."""
    chance: Tensor
    """Uniform numbers (B, G): a patch is replaced where it is below `share`."""
    order: Tensor
    """A permutation of all B x G patches, int64 (B * G,)."""


class Seen(NamedTuple):
    """What a network made of clouds."""

    direction: Tensor
    """(B, contrast_dim)."""
    tokens: Tensor
    """Patches behind the trunk (B, G, C)."""
    altered: Tensor
    """(B, G) bool: which patches were hidden or replaced."""


def see(
    backbone: PointTransformer,
    heads: Heads,
    patches: Patches,
    mask: Tensor | None = None,
    replacing: Replacing | None = None,
) -> Seen:
    """All patches through the backbone, those that `mask` (B, G) hides as the mask token."""
    tokens = backbone.reduce(backbone.patch_embed(patches.points))
    altered = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device) if mask is None else mask
    if mask is not None:
        if replacing is not None:
            replaced = (replacing.chance < replacing.share) & ~mask
            others = tokens.flatten(0, 1)[replacing.order].view_as(tokens)
            tokens, altered = torch.where(replaced.unsqueeze(-1), others, tokens), mask | replaced
        tokens = torch.where(mask.unsqueeze(-1), heads.mask_token.to(tokens.dtype), tokens)
    state = backbone.trunk(backbone.state(tokens, patches.centers))
    return Seen(heads.direction(state["prefix"][:, 0]), state["patch"], altered)


class Follower(nn.Module):
    """The slow copy of backbone and heads; it learns by following alone. BatchNorm statistics are its own."""

    def __init__(self, backbone: PointTransformer, heads: Heads) -> None:
        super().__init__()
        self.backbone, self.heads = copy.deepcopy(backbone), copy.deepcopy(heads)
        self.requires_grad_(False)

    def forward(self, patches: Patches, mask: Tensor | None, replacing: Replacing | None) -> Tensor:
        """Directions (B, contrast_dim)."""
        return see(self.backbone, self.heads, patches, mask, replacing).direction

    @torch.no_grad()
    def ask(
        self,
        leader: tuple[nn.Module, nn.Module],
        momentum: float,
        patches: Patches,
        mask: Tensor | None = None,
        replacing: Replacing | None = None,
    ) -> Tensor:
        """Move towards the leader's backbone and heads, keeping the share `momentum`; then directions of clouds.

        In evaluation mode it answers as after that step, and stays where it is.
        """
        ahead = {**_named("backbone", leader[0]), **_named("heads", leader[1])}
        if self.training:
            for name, own in self.named_parameters():
                own.lerp_(ahead[name].to(own.dtype), 1 - momentum)
            return self(patches, mask, replacing)
        moved = {n: own.lerp(ahead[n].to(own.dtype), 1 - momentum) for n, own in self.named_parameters()}
        return torch.func.functional_call(self, moved, (patches, mask, replacing))


def _named(prefix: str, module: nn.Module) -> dict[str, nn.Parameter]:
    return {f"{prefix}.{name}": parameter for name, parameter in module.named_parameters()}
