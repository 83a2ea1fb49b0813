"""Point-BERT's discrete VAE and masked point modelling (card point-bert, sections 1 to 4), in one process."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.released.parts import RNG, Blocks, Encoder, chamfer_l1, group, pos_embed, rates, square_distance

GROUPS, SIZE, WIDTH, CODES = 64, 32, 256, 8192
DIM, DEPTH, HEADS, CONTRAST = 384, 12, 6, 512
QUEUE, MOMENTUM, TEMPERATURE = 16384, 0.999, 0.07


class Dgcnn(nn.Module):
    """Edge convolutions over (B, channels, patches, neighbours); the graph is found anew for every layer."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.input_trans = nn.Conv1d(dim_in, 128, 1)
        self.layer1, self.layer2 = self.edges(256, 256), self.edges(512, 512)
        self.layer3, self.layer4 = self.edges(1024, 512), self.edges(1024, 1024)
        self.layer5 = nn.Sequential(
            nn.Conv1d(2304, dim_out, 1, bias=False), nn.GroupNorm(4, dim_out), nn.LeakyReLU(0.2)
        )

    @staticmethod
    def edges(dim_in: int, dim_out: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(dim_in, dim_out, 1, bias=False), nn.GroupNorm(4, dim_out), nn.LeakyReLU(0.2))

    @staticmethod
    def graph(center: Tensor, x: Tensor, k: int = 4) -> Tensor:
        batch, channels, n = x.shape
        with torch.no_grad():
            idx = square_distance(center, center).topk(k, dim=-1, largest=False)[1].transpose(1, 2)
            idx = (idx + torch.arange(batch).view(-1, 1, 1) * n).reshape(-1)
        near = x.transpose(2, 1).reshape(batch * n, -1)[idx, :].view(batch, k, n, channels).permute(0, 3, 2, 1)
        own = x.view(batch, channels, n, 1).expand(-1, -1, -1, k)
        return torch.cat((near - own, own), dim=1)

    def forward(self, feats: Tensor, center: Tensor) -> Tensor:
        x, seen = self.input_trans(feats.transpose(1, 2)), []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(self.graph(center, x.contiguous())).max(dim=-1, keepdim=False)[0]
            seen.append(x)
        return self.layer5(torch.cat(seen, dim=1)).transpose(1, 2)


class Folding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 1024), nn.ReLU(inplace=True), nn.Linear(1024, 1024), nn.ReLU(inplace=True),
            nn.Linear(1024, 3 * SIZE // 4),
        )  # fmt: skip
        self.final_conv = nn.Sequential(
            nn.Conv1d(WIDTH + 5, 512, 1), nn.BatchNorm1d(512), nn.ReLU(inplace=True),
            nn.Conv1d(512, 512, 1), nn.BatchNorm1d(512), nn.ReLU(inplace=True), nn.Conv1d(512, 3, 1),
        )  # fmt: skip
        a = torch.tensor([-0.05, 0.05])
        self.seed = torch.stack([a.repeat(2), a.repeat_interleave(2)])  # (2, 4)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        rows = feature.reshape(-1, WIDTH)
        coarse = self.mlp(rows).reshape(len(rows), -1, 3)
        points = coarse.unsqueeze(2).expand(-1, -1, 4, -1).reshape(len(rows), SIZE, 3).transpose(2, 1)
        seed = self.seed.unsqueeze(1).expand(-1, SIZE // 4, -1).reshape(1, 2, SIZE).expand(len(rows), -1, -1)
        own = rows.unsqueeze(2).expand(-1, -1, SIZE)
        fine = self.final_conv(torch.cat([own, seed, points], dim=1)) + points
        return coarse, fine.transpose(1, 2)


class DiscreteVAE(nn.Module):
    """One step at the start of the released schedules: temperature 1, no divergence."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.dgcnn_1 = Encoder(WIDTH), Dgcnn(WIDTH, CODES)
        self.codebook = nn.Parameter(torch.randn(CODES, WIDTH))
        self.dgcnn_2, self.decoder = Dgcnn(WIDTH, WIDTH), Folding()

    def draw(self, batch: int) -> dict[str, Tensor]:
        return {"gumbel": -torch.empty(batch, GROUPS, CODES).exponential_().log()}

    def forward(self, xyz: Tensor, gumbel: Tensor) -> Tensor:
        patches, center, _ = group(xyz, GROUPS, SIZE)
        logits = self.dgcnn_1(self.encoder(patches), center)
        chosen = F.softmax(logits + gumbel, dim=2)
        sampled = torch.einsum("b g n, n c -> b g c", chosen, self.codebook)
        coarse, fine = self.decoder(self.dgcnn_2(sampled, center))
        target = patches.reshape(-1, SIZE, 3)
        mean = F.softmax(logits, dim=-1).mean(dim=1)
        uniform = torch.full_like(mean, 1 / CODES).log()
        divergence = F.kl_div(mean.log(), uniform, None, None, "batchmean", log_target=True)
        return chamfer_l1(coarse, target) + chamfer_l1(fine, target) + 0.0 * divergence


def block_mask(center: Tensor, low: float = 0.25, high: float = 0.45) -> Tensor:
    """The patches nearest to one of them, a share drawn for each cloud; cloud by cloud."""
    masks = []
    for points in center:
        anchor = points[RNG.integers(len(points))]
        order = torch.norm(anchor.reshape(1, 1, 3) - points.unsqueeze(0), p=2, dim=-1).argsort(dim=-1)[0]
        mask = torch.zeros(len(points))
        mask[order[: int(RNG.uniform(low, high) * len(points))]] = 1
        masks.append(mask.bool())
    return torch.stack(masks)


class MaskTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.reduce_dim = Encoder(WIDTH), nn.Linear(WIDTH, DIM)
        self.cls_token, self.cls_pos = nn.Parameter(torch.zeros(1, 1, DIM)), nn.Parameter(torch.randn(1, 1, DIM))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, DIM))
        self.pos_embed = pos_embed(DIM, 128)
        self.blocks, self.norm = Blocks(DIM, HEADS, rates(0.1, DEPTH)), nn.LayerNorm(DIM)
        self.lm_head = nn.Linear(DIM, CODES)
        self.cls_head = nn.Sequential(nn.Linear(DIM, CONTRAST), nn.GELU(), nn.Linear(CONTRAST, CONTRAST))

    def forward(self, patches: Tensor, center: Tensor, mask: Tensor, *, codes: bool) -> tuple[Tensor, Tensor | None]:
        tokens = self.reduce_dim(self.encoder(patches))
        batch, groups, _ = tokens.shape
        hidden = mask.unsqueeze(-1).type_as(tokens)
        tokens = tokens * (1 - hidden) + self.mask_token.expand(batch, groups, -1) * hidden
        x = torch.cat((self.cls_token.expand(batch, -1, -1), tokens), dim=1)
        pos = torch.cat((self.cls_pos.expand(batch, -1, -1), self.pos_embed(center)), dim=1)
        x = self.norm(self.blocks(x, pos))
        scores = self.lm_head(x[:, 1:][mask]) if codes else None
        return self.cls_head(x[:, 0]), scores


class PointBERT(nn.Module):
    """The released flags: contrast of mixed clouds on, MoCo's own loss off, the tokenizer in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer_q, self.dvae = MaskTransformer(), DiscreteVAE()
        self.transformer_k = copy.deepcopy(self.transformer_q)
        for part in (self.transformer_k, self.dvae):
            part.requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(CONTRAST, QUEUE), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    def draw(self, batch: int) -> dict[str, Tensor]:
        return {"mix_ratio": torch.rand(batch), "mix_chance": torch.rand(batch, GROUPS)}

    def forward(
        self,
        xyz: Tensor,
        mix_ratio: Tensor,
        mix_chance: Tensor,
        mask_query: Tensor | None = None,
        mask_mixed: Tensor | None = None,
        mask_key: Tensor | None = None,
    ) -> Tensor:
        patches, center, _ = group(xyz, GROUPS, SIZE)
        with torch.no_grad():
            labels = self.dvae.dgcnn_1(self.dvae.encoder(patches), center).argmax(-1)
        mask_query = block_mask(center) if mask_query is None else mask_query
        _, scores = self.transformer_q(patches, center, mask_query, codes=True)
        own = (mix_chance < mix_ratio.unsqueeze(1)).float()
        other = 1 - own
        mixed_patches = patches * own[:, :, None, None] + patches.flip(0) * other[:, :, None, None]
        mixed_center = center * own.unsqueeze(-1) + center.flip(0) * other.unsqueeze(-1)
        mixed_labels = (labels * own + labels.flip(0) * other).long()
        mask_mixed = block_mask(mixed_center) if mask_mixed is None else mask_mixed
        mixed, mixed_scores = self.transformer_q(mixed_patches, mixed_center, mask_mixed, codes=True)
        with torch.no_grad():
            for slow, fast in zip(self.transformer_k.parameters(), self.transformer_q.parameters(), strict=True):
                slow.data = slow.data * MOMENTUM + fast.data * (1 - MOMENTUM)
            mask_key = block_mask(center) if mask_key is None else mask_key
            key = F.normalize(self.transformer_k(patches, center, mask_key, codes=False)[0], dim=1)
        loss = F.cross_entropy(scores, labels[mask_query]) + F.cross_entropy(mixed_scores, mixed_labels[mask_mixed])
        mixed, batch = F.normalize(mixed, dim=1), len(xyz)
        against = torch.cat([torch.einsum("nc,mc->nm", mixed, key), mixed @ self.queue.clone().detach()], dim=1)
        against, first = against / TEMPERATURE, torch.arange(batch)
        for target, share in ((first, mix_ratio), (batch - 1 - first, 1 - mix_ratio)):
            loss = loss + (share * F.cross_entropy(against, target, reduction="none")).mean()
        begin = int(self.queue_ptr)
        self.queue[:, begin : begin + batch] = key.T
        self.queue_ptr[0] = (begin + batch) % QUEUE
        return loss
