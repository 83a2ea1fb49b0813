"""What the three released systems share: geometry, patch embedding, blocks (card point-mae, sections 1 to 3)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

NEAR_ORIGIN = 1e-3
RNG = np.random.default_rng(0)


def square_distance(a: Tensor, b: Tensor) -> Tensor:
    """(B, N, 3), (B, M, 3) -> (B, N, M), by expansion."""
    return (a**2).sum(-1)[:, :, None] + (b**2).sum(-1)[:, None, :] - 2 * a @ b.transpose(1, 2)


@torch.no_grad()
def farthest_points(xyz: Tensor, num: int) -> Tensor:
    """The CUDA kernel's rule, as a loop over picks: points near the origin are never taken but as the first."""
    batch, n, _ = xyz.shape
    rows = torch.arange(batch)
    picked = torch.zeros(batch, num, dtype=torch.long)
    nearest = torch.full((batch, n), 1e10)
    nearest[(xyz**2).sum(-1) <= NEAR_ORIGIN] = -1.0
    for i in range(1, num):
        last = xyz[rows, picked[:, i - 1]].unsqueeze(1)
        nearest = torch.minimum(nearest, ((xyz - last) ** 2).sum(-1))
        picked[:, i] = nearest.max(1)[1]
    return picked


def group(xyz: Tensor, num: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Patches (B, G, K, 3) around centres (B, G, 3), and members as flat indices (B * G * K,)."""
    batch, n, _ = xyz.shape
    picked = farthest_points(xyz, num)
    center = xyz[torch.arange(batch)[:, None], picked].contiguous()
    with torch.no_grad():
        idx = square_distance(center, xyz).topk(size, dim=-1, largest=False)[1]
    idx = (idx + torch.arange(batch).view(-1, 1, 1) * n).view(-1)
    patches = xyz.reshape(batch * n, -1)[idx, :].view(batch, num, size, 3).contiguous()
    return patches - center.unsqueeze(2), center, idx


def nearest_both_ways(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances (P, N) and (P, M) to the nearest point of the other patch, by the full matrix."""
    distance = ((a.unsqueeze(2) - b.unsqueeze(1)) ** 2).sum(-1)
    return distance.min(2)[0], distance.min(1)[0]


def chamfer_l2(a: Tensor, b: Tensor) -> Tensor:
    first, second = nearest_both_ways(a, b)
    return first.mean() + second.mean()


def chamfer_l1(a: Tensor, b: Tensor) -> Tensor:
    first, second = nearest_both_ways(a, b)
    return (first.sqrt().mean() + second.sqrt().mean()) / 2


def scale_and_translate(xyz: Tensor) -> Tensor:
    """A random scale and shift for each cloud, cloud by cloud."""
    for i in range(len(xyz)):
        scale = torch.from_numpy(RNG.uniform(2 / 3, 3 / 2, 3)).float()
        shift = torch.from_numpy(RNG.uniform(-0.2, 0.2, 3)).float()
        xyz[i, :, 0:3] = torch.mul(xyz[i, :, 0:3], scale) + shift
    return xyz


class Encoder(nn.Module):
    """Mini-PointNet by convolutions over (patches, channels, points)."""

    def __init__(self, out: int, widths: tuple[int, int, int] = (128, 256, 512), channels: int = 3) -> None:
        super().__init__()
        a, b, c = widths
        self.first_conv = nn.Sequential(
            nn.Conv1d(channels, a, 1), nn.BatchNorm1d(a), nn.ReLU(inplace=True), nn.Conv1d(a, b, 1)
        )
        self.second_conv = nn.Sequential(
            nn.Conv1d(2 * b, c, 1), nn.BatchNorm1d(c), nn.ReLU(inplace=True), nn.Conv1d(c, out, 1)
        )

    def forward(self, patches: Tensor) -> Tensor:
        batch, groups, size, channels = patches.shape
        feature = self.first_conv(patches.reshape(batch * groups, size, channels).transpose(2, 1))
        pooled = feature.max(dim=2, keepdim=True)[0]
        feature = self.second_conv(torch.cat([pooled.expand(-1, -1, size), feature], dim=1))
        return feature.max(dim=2)[0].reshape(batch, groups, -1)


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)

    def forward(self, x: Tensor, closed: Tensor | None = None) -> Tensor:
        """`closed` (B, L, L): 1 where a token may not look."""
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attention = (q @ k.transpose(-2, -1)) * self.scale
        if closed is not None:
            attention = attention + closed.unsqueeze(1).expand(-1, self.heads, -1, -1) * -100000.0
        attention = attention.softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(b, n, c))


class Mlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class DropPath(nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0.0 or not self.training:
            return x
        alive = torch.rand(x.shape[0], 1, 1) < 1 - self.rate
        return x.div(1 - self.rate) * alive.to(x.dtype)


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn, self.mlp, self.drop_path = Attention(dim, heads), Mlp(dim), DropPath(drop_path)

    def forward(self, x: Tensor, closed: Tensor | None = None) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), closed))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Blocks(nn.Module):
    """Blocks in a row; positions are added before each."""

    def __init__(self, dim: int, heads: int, rates: list[float]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, heads, rate) for rate in rates)

    def forward(self, x: Tensor, pos: Tensor, closed: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x + pos, closed)
        return x


class Decoder(Blocks):
    """Blocks behind which the last `count` tokens are kept and normed."""

    def __init__(self, dim: int, heads: int, rates: list[float]) -> None:
        super().__init__(dim, heads, rates)
        self.norm = nn.LayerNorm(dim)

    def tail(self, x: Tensor, pos: Tensor, count: int) -> Tensor:
        return self.norm(self(x, pos)[:, -count:])


def rates(top: float, depth: int) -> list[float]:
    """Drop path rates, rising from 0."""
    return [x.item() for x in torch.linspace(0, top, depth)]


def pos_embed(dim: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, hidden), nn.GELU(), nn.Linear(hidden, dim))


def random_mask(batch: int, groups: int, hidden: int) -> Tensor:
    """(B, G) bool, True = hidden; shuffled cloud by cloud in numpy."""
    mask = np.zeros([batch, groups])
    for i in range(batch):
        row = np.hstack([np.zeros(groups - hidden), np.ones(hidden)])
        RNG.shuffle(row)
        mask[i, :] = row
    return torch.from_numpy(mask).to(torch.bool)
