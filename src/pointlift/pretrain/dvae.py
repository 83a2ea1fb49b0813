"""The discrete VAE: a vocabulary of patch shapes, learned by rebuilding clouds from it (Point-BERT, section 3.2).

Each patch is embedded, graph convolutions score every code of the vocabulary, one is drawn (softly, by Gumbel noise),
and from the codes of all patches the cloud is rebuilt. Point-BERT's pre-training then predicts the codes of hidden
patches; ACT puts a frozen transformer of another modality between codes and decoder (`middle`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pointlift.core.errors import UsageError
from pointlift.layers.dgcnn import Dgcnn
from pointlift.layers.folding import Folded, FoldingDecoder
from pointlift.models.point_tokenizer import PointTokenizer
from pointlift.ops import Grouping, chamfer_l1
from pointlift.pretrain.objective import Batch, Losses, Noise, Objective, Picture
from pointlift.pretrain.schedule import Ramp


@dataclass(frozen=True)
class DiscreteVAEQuirks:
    """What the released code does and the paper does not say; belongs to weights that were trained so."""

    # The divergence is taken from the uniform prior to the codes' distribution instead of the other way round.
    divergence_from_prior: bool = False
    # Evaluation and pictures still draw codes by Gumbel noise instead of taking the likeliest.
    noise_in_eval: bool = False

    @classmethod
    def upstream(cls) -> DiscreteVAEQuirks:
        return cls(divergence_from_prior=True, noise_in_eval=True)


@dataclass(frozen=True)
class DiscreteVAEConfig:
    """What stands behind the tokenizer, and schedules; the defaults are Point-BERT's released dVAE.

    Args:
        code_dim: Width of a code.
        decoder_dim: Width of the feature that a patch is rebuilt from, a multiple of four.
        decoder_hidden: Width of the MLP that sets a patch's coarse points.
        fold_hidden: Width of the MLP that unfolds them.
        hard: Train on codes themselves, with the gradient of the soft choice (straight through).
        temperature: Of the soft choice.
        divergence: Weight of the divergence between use of the codes and equal use.
        steps: Length of the run that the steps of both ramps are counted in. A run of another length passes through
            them at its own pace; give its length for ramps at the pace that is written.
        quirks: What the released code does beyond the paper.
    """

    code_dim: int = 256
    decoder_dim: int = 256
    decoder_hidden: int = 1024
    fold_hidden: int = 512
    hard: bool = False
    temperature: Ramp = field(default_factory=lambda: Ramp(1.0, 0.0625))
    divergence: Ramp = field(default_factory=lambda: Ramp(0.0, 0.1, begin=10_000))
    steps: int = 197_155  # 301 epochs of ShapeNet-55 in batches of 64
    quirks: DiscreteVAEQuirks = field(default_factory=DiscreteVAEQuirks)

    def __post_init__(self) -> None:
        for name in ("code_dim", "decoder_hidden", "fold_hidden", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected at least 1")
        if self.decoder_dim < 4 or self.decoder_dim % 4:  # a GroupNorm of four groups runs over it
            raise ValueError(f"decoder_dim {self.decoder_dim}: expected a multiple of 4")
        if min(self.temperature.start, self.temperature.end) <= 0:
            raise ValueError("temperature: expected values above 0")


class Chosen(NamedTuple):
    """Codes of patches."""

    codes: Tensor
    """Likeliest code of each patch, int64 (B, G)."""
    sampled: Tensor
    """What goes to the decoder: mixtures of codes, or codes (B, G, code_dim)."""


class DiscreteVAE(Objective):
    """A tokenizer of patches with what it needs to learn.

    Args:
        backbone: The tokenizer.
        config: Sizes and schedules.
        middle: What stands between codes and decoder, `middle(x, centers)` on (B, G, code_dim); ACT's transformer.

    Raises:
        UsageError: The tokenizer's patches cannot be unfolded in fours.
    """

    backbone: PointTokenizer
    config: DiscreteVAEConfig

    def __init__(self, backbone: PointTokenizer, config: DiscreteVAEConfig, middle: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone, self.config = backbone, config
        sizes = backbone.config
        if sizes.group_size % 4:
            raise UsageError(f"patches of group_size={sizes.group_size} points", "a multiple of 4: points are unfolded")
        self.codebook = nn.Parameter(torch.randn(sizes.num_codes, config.code_dim))
        self.middle = middle
        self.dgcnn = Dgcnn(config.code_dim, config.decoder_dim, base=sizes.graph_base, k=sizes.neighbors)
        self.decoder = FoldingDecoder(config.decoder_dim, sizes.group_size, config.decoder_hidden, config.fold_hidden)

    def choose(self, scores: Tensor, gumbel: Tensor | None, temperature: float, *, hard: bool) -> Chosen:
        """Codes of patches as the decoder sees them.

        Args:
            scores: (B, G, num_codes).
            gumbel: Noise of the same shape; None: the likeliest codes.
            temperature: Of the soft choice.
            hard: Codes themselves, with the gradient of the soft choice.
        """
        codes = scores.argmax(-1)
        weights = ((scores if gumbel is None else scores + gumbel) / temperature).softmax(-1)
        if hard:
            one_hot = torch.zeros_like(weights).scatter_(-1, weights.argmax(-1, keepdim=True), 1.0)
            weights = one_hot + (weights - weights.detach())
        return Chosen(codes, weights @ self.codebook)

    def decode(self, sampled: Tensor, centers: Tensor) -> tuple[Folded, Tensor]:
        """Points of the patches, relative to their centres, and the features (B, G, decoder_dim) they came from."""
        if self.middle is not None:
            sampled = self.middle(sampled, centers)
        feats = self.dgcnn(sampled, centers)
        return self.decoder(feats), feats

    def draw(self, batch: Batch, generator: torch.Generator) -> Noise:
        """`gumbel` (B, G, num_codes)."""
        shape = (batch["xyz"].shape[0], self.backbone.config.num_groups, self.codebook.shape[0])
        waiting = torch.empty(shape, device=generator.device).exponential_(generator=generator)
        return {"gumbel": -waiting.clamp_min(torch.finfo(waiting.dtype).tiny).log()}

    def forward(
        self, batch: Batch, noise: Noise, progress: float = 0.0, given: Mapping[str, Tensor] | None = None
    ) -> Losses:
        """Chamfer distances of coarse and fine patches, and the weighted divergence.

        In evaluation mode the likeliest codes are decoded: no noise, temperature 1.

        Args:
            batch: `xyz` (B, N, 3).
            noise: From `draw`.
            progress: The share of the run that is done: sets temperature and weight.
            given: `gumbel` instead of the noise drawn.

        Returns:
            `total`; in `terms` `cd_l1`, `divergence`, `temperature`, `codes_used` (share of the vocabulary); in
            `found` centers, neighborhoods, patch_tokens, scores, codes, sampled, features, coarse, fine.
        """
        c, step = self.config, progress * self.config.steps
        (grouping,) = self.backbone.groups(batch["xyz"])
        noise, weight = {**noise, **(given or {})}, c.divergence.at(step)
        if self.training:
            return self.rebuild(grouping, noise["gumbel"], c.temperature.at(step), weight, hard=c.hard)
        return self.rebuild(grouping, noise["gumbel"] if c.quirks.noise_in_eval else None, 1.0, weight, hard=True)

    def rebuild(
        self, grouping: Grouping, gumbel: Tensor | None, temperature: float, weight: float, *, hard: bool
    ) -> Losses:
        """The pass behind `forward`, with everything that changes over a run given: see `choose`."""
        patches, centers = grouping.neighborhoods, grouping.centers
        features = self.backbone.forward_features({}, groups=[grouping], taps=["patch_tokens"])
        scores = features.levels[0].feats
        chosen = self.choose(scores, None if gumbel is None else gumbel.to(scores), temperature, hard=hard)
        folded, feats = self.decode(chosen.sampled, centers)
        target = patches.flatten(0, 1)
        rebuilt = chamfer_l1(folded.coarse.float().flatten(0, 1), target)
        rebuilt = rebuilt + chamfer_l1(folded.fine.float().flatten(0, 1), target)
        divergence = self._divergence(scores)
        used = torch.zeros_like(scores[0, 0]).scatter(0, chosen.codes.flatten(), 1.0).mean()
        terms = {
            "cd_l1": rebuilt.detach(),
            "divergence": divergence.detach(),
            "temperature": scores.new_tensor(temperature),
            "codes_used": used.detach(),
        }
        found = {
            "centers": centers,
            "neighborhoods": patches,
            "patch_tokens": features.taps["patch_tokens"],
            "scores": scores,
            "codes": chosen.codes,
            "sampled": chosen.sampled,
            "features": feats,
            "coarse": folded.coarse,
            "fine": folded.fine,
        }
        return Losses(rebuilt + weight * divergence, terms, found)

    def _divergence(self, scores: Tensor) -> Tensor:
        """Between a cloud's use of the codes, its patches' mean, and equal use; mean over clouds."""
        groups, codes = scores.shape[1:]
        log_use = scores.float().log_softmax(-1).logsumexp(1) - math.log(groups)
        surplus = log_use + math.log(codes)
        if self.config.quirks.divergence_from_prior:
            return -surplus.mean()
        return (log_use.exp() * surplus).sum(-1).mean()

    @torch.no_grad()
    def show(self, batch: Batch, noise: Noise, given: Mapping[str, Tensor] | None = None) -> Picture:
        """The whole cloud, rebuilt from codes; patches overlap, so points are about twice."""
        training = self.training
        found = self.eval()(batch, noise, given=given).found
        self.train(training)
        xyz, centers = batch["xyz"], found["centers"]
        place = centers.unsqueeze(2)
        fine, target, coarse = ((found[k] + place).flatten(1, 2) for k in ("fine", "neighborhoods", "coarse"))
        hidden = torch.ones(centers.shape[:2], dtype=torch.bool, device=centers.device)
        return Picture(xyz[:, :0], fine, target, xyz, centers, hidden, coarse, found["codes"])
