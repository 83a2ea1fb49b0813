"""Patches to tokens: the mini-PointNet of Point-BERT and Point-MAE, and the position MLP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointlift.layers.linear import fold_norm, linear_norm
from pointlift.layers.row_norm import norm_rows
from pointlift.ops import linear_max

# Values between two layers that are held at once where nothing learns: they stay in the cache.
_CACHED = 1 << 18


class PatchEmbed(nn.Module):
    """Mini-PointNet: each patch of K local points becomes one token (Point-BERT, section 3.1).

    local1, BatchNorm, ReLU, local2; max over the patch, joined to every point; joint1, BatchNorm, ReLU, joint2; max.

    Args:
        embed_dim: Width of a token.
        widths: Widths of local1, local2 and joint1; released: (128, 256, 512).
        in_dim: Channels of a point.
    """

    def __init__(self, embed_dim: int, widths: tuple[int, int, int] = (128, 256, 512), in_dim: int = 3) -> None:
        super().__init__()
        first, second, third = widths
        self.local1 = nn.Linear(in_dim, first)
        self.bn1 = nn.BatchNorm1d(first)
        self.local2 = nn.Linear(first, second)
        self.joint1 = nn.Linear(2 * second, third)
        self.bn2 = nn.BatchNorm1d(third)
        self.joint2 = nn.Linear(third, embed_dim)

    def forward(self, neighborhoods: Tensor, keep: Tensor | None = None) -> Tensor:
        """Centred patches (B, G, K, in_dim) -> tokens (B, G, embed_dim).

        With `keep` (B, G) bool only its patches become tokens, in their order (their number, embed_dim); the others
        take part in the statistics of the BatchNorms alone, where these are taken from the batch.
        """
        b, g, k, channels = neighborhoods.shape
        if keep is None and self._fixed(neighborhoods):  # asked first: a traced batch has no number to compare
            few = max(1, _CACHED // max(1, g * k * self.bn2.num_features))
            if b > few:
                return torch.cat([self.forward(part) for part in neighborhoods.split(few)])  # hooks run once
        local = F.relu(linear_norm(neighborhoods.reshape(b * g * k, channels), self.local1, self.bn1))
        local = self.local2(local)
        pooled = _largest(local.view(b * g, k, -1))
        joint = self._joint(local, pooled, k).view(b * g, k, -1)
        joint = F.relu(joint if keep is None else joint[keep.flatten()])
        if type(self.joint2) is nn.Linear:
            tokens = linear_max(joint, self.joint2.weight, self.joint2.bias)
        else:  # swapped (LoRA): it must be called
            tokens = _largest(self.joint2(joint))
        return tokens.view(b, g, -1) if keep is None else tokens

    def _fixed(self, x: Tensor) -> bool:
        """Whether clouds pass by themselves on a CPU, for good: no statistics of the batch, no gradient, no trace."""
        learns = torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in self.parameters()))
        here = x.device.type == "cpu" and not torch.compiler.is_compiling()
        return here and not (learns or self.bn1.training or self.bn2.training)

    def _joint(self, local: Tensor, pooled: Tensor, k: int) -> Tensor:
        """bn2(joint1([pooled, local])): local (R, C), pooled (R / k, C) -> (R, C_joint).

        joint1 is applied in its two halves, so the pooled half costs one row per patch instead of k.
        """
        if type(self.joint1) is not nn.Linear:  # swapped (LoRA): it must be called
            both = torch.cat([pooled.repeat_interleave(k, 0), local], 1)
            return norm_rows(self.bn2, self.joint1(both))
        folded = fold_norm(self.joint1, self.bn2)
        weight, bias = folded or (self.joint1.weight, self.joint1.bias)
        half = pooled.shape[1]
        joint = F.linear(local, weight[:, half:]).view(pooled.shape[0], k, -1)
        joint = joint + F.linear(pooled, weight[:, :half], bias).unsqueeze(1)
        joint = joint.view(local.shape[0], -1)
        return joint if folded else norm_rows(self.bn2, joint)


def _largest(x: Tensor) -> Tensor:
    """(P, K, C) -> (P, C). Of equally large points the first takes the gradient, as released."""
    return x.max(1).values if x.requires_grad else x.amax(1)  # without the index, three times faster


class PosEmbed(nn.Module):
    """Positions of patch centres: Linear, GELU, Linear on raw coordinates."""

    def __init__(self, embed_dim: int, hidden: int = 128) -> None:
        super().__init__()
        self.fc1 = nn.Linear(3, hidden)
        self.fc2 = nn.Linear(hidden, embed_dim)

    def forward(self, centers: Tensor) -> Tensor:
        """Centres (B, G, 3) -> (B, G, embed_dim)."""
        # Half precision has steps of 0.4 %: positions would move before they are embedded.
        with torch.autocast(centers.device.type, enabled=False):
            hidden = self.fc1(centers.float())
        return self.fc2(F.gelu(hidden))


def init_tokens_(*tokens: Tensor, std: float = 0.02) -> None:
    """The family's initialisation of learned tokens and positions: truncated normal."""
    with torch.no_grad():
        for token in tokens:
            nn.init.trunc_normal_(token, std=std)
