"""Masked point modelling: predict the codes of hidden patches, tell mixed clouds apart (Point-BERT, section 3.3).

A frozen discrete VAE gives every patch a code. The backbone sees all patches, hidden ones replaced by a learned token,
and predicts the codes of the hidden ones. It does so again for clouds mixed from two, whose class token must also
point to both clouds they were mixed from, among many: a slow copy of the network (`follower`) gives the directions,
and a queue holds those of past clouds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointlift.core.errors import UsageError
from pointlift.layers.init import init_linears_, truncated
from pointlift.models.point_tokenizer import PointTokenizer, PointTokenizerConfig
from pointlift.models.point_transformer import PointTransformer
from pointlift.ops import Grouping
from pointlift.pretrain.bert_network import Follower, Heads, Patches, Replacing, Seen, see
from pointlift.pretrain.dvae import DiscreteVAE, DiscreteVAEConfig
from pointlift.pretrain.masking import block_mask, num_hidden
from pointlift.pretrain.objective import Batch, Losses, Noise, Objective, Picture
from pointlift.pretrain.queue import KeyQueue
from pointlift.weights.load import load_state

PASSES = ("query", "mixed", "key")


@dataclass(frozen=True)
class BertQuirks:
    """What the released code does and the paper does not say; belongs to weights that were trained so."""

    # In training the frozen tokenizer's BatchNorm reads the batch and drifts: codes depend on the rest of the batch.
    tokenizer_trains: bool = False
    # The follower too sees clouds with hidden patches.
    mask_keys: bool = False

    @classmethod
    def upstream(cls) -> BertQuirks:
        return cls(tokenizer_trains=True, mask_keys=True)


@dataclass(frozen=True)
class BertConfig:
    """Masked point modelling; the defaults are the released Point-BERT pre-training.

    Args:
        teacher: Where the trained discrete VAE is: a run folder or a checkpoint. `tokenizer` and `dvae` then are as
            it says. Without one the tokenizer knows nothing.
        tokenizer: What gives codes; its patches are those of the backbone.
        dvae: What draws patches from codes: for pictures alone.
        mask: A "block" of neighbouring patches, its share drawn for each cloud, or "random" patches, each hidden with
            a probability that is drawn for the batch.
        mask_ratio: Between which shares that is drawn.
        replace: Probability that a patch that is not hidden is replaced by one of the batch; its code is predicted too.
        predict: Codes of "hidden" (and replaced) patches, or of "all".
        code_loss: Learn from codes.
        mix_loss: Learn from mixed clouds' directions.
        momentum_loss: Learn from the clouds' own directions too (MoCo); off in the released run.
        contrast_dim: Width of a direction.
        queue: Directions of past clouds.
        momentum: Share of itself that the follower keeps in a step.
        temperature: Of the contrast.
        quirks: What the released code does beyond the paper.
    """

    teacher: str | None = None
    tokenizer: PointTokenizerConfig = field(default_factory=PointTokenizerConfig)
    dvae: DiscreteVAEConfig = field(default_factory=DiscreteVAEConfig)
    mask: Literal["block", "random"] = "block"
    mask_ratio: tuple[float, float] = (0.25, 0.45)
    replace: float = 0.0
    predict: Literal["hidden", "all"] = "hidden"
    code_loss: bool = True
    mix_loss: bool = True
    momentum_loss: bool = False
    contrast_dim: int = 512
    queue: int = 16384
    momentum: float = 0.999
    temperature: float = 0.07
    quirks: BertQuirks = field(default_factory=BertQuirks)

    def __post_init__(self) -> None:
        low, high = self.mask_ratio
        if not 0 < low <= high < 1:
            raise ValueError(f"mask_ratio {self.mask_ratio}: expected two rising shares above 0 and below 1")
        for name in ("replace", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected a share from 0 to below 1")
        if self.queue < 1 or self.contrast_dim < 1:
            raise ValueError(f"queue {self.queue}, contrast_dim {self.contrast_dim}: expected at least 1")
        if self.temperature <= 0:
            raise ValueError(f"temperature {self.temperature}: expected a number above 0")
        if not (self.code_loss or self.mix_loss or self.momentum_loss):
            raise ValueError("code_loss, mix_loss, momentum_loss: expected at least one of them")

    @property
    def contrasts(self) -> bool:
        """Whether directions are compared, so that there must be a follower's."""
        return self.mix_loss or self.momentum_loss


class MaskedPointModelling(Objective):
    """Point-BERT's pre-training on a point transformer with a class token.

    The tokenizer of a fresh objective knows nothing: give it a trained one, by `config.teacher` or `set_tokenizer`.

    In training mode every forward pass moves the follower (before it is asked) and puts its directions into the queue
    (after the losses), as released. Both are part of the state dict, so a resumed run goes on bit for bit. With
    gradients accumulated over several passes the follower moves that many times for each step of the optimiser.
    """

    backbone: PointTransformer
    config: BertConfig

    def __init__(self, backbone: PointTransformer, config: BertConfig) -> None:
        super().__init__()
        _check_patches(backbone, config)
        self.backbone, self.config = backbone, config
        if backbone.origin is None:  # weights that were read stay
            init_linears_(backbone, truncated)
        self.heads = Heads(backbone.embed_dim, config.tokenizer.num_codes, config.contrast_dim)
        self.follower = Follower(backbone, self.heads)
        self.queue = KeyQueue(config.queue, config.contrast_dim)
        self.dvae = DiscreteVAE(PointTokenizer(config.tokenizer), config.dvae)
        self.dvae.requires_grad_(False)

    def teachers(self) -> list[nn.Module]:
        """The tokenizer."""
        return [self.dvae]

    def train(self, mode: bool = True) -> MaskedPointModelling:
        """Training mode, except for the tokenizer, unless the released accident is asked for."""
        super().train(mode)
        if self.config.quirks.tokenizer_trains:
            self.dvae.train(mode)
        return self

    def set_tokenizer(self, tokenizer: DiscreteVAE) -> None:
        """Take over a trained discrete VAE, whose patch embedding the networks start from too.

        Raises:
            CheckpointMismatchError: Its sizes are not those of `config.tokenizer` and `config.dvae`.
            UsageError: The backbone embeds patches in another way.
        """
        load_state(self.dvae, tokenizer.state_dict())
        embed = self.dvae.backbone.patch_embed.state_dict()
        for network in (self.backbone, self.follower.backbone):
            shapes = {key: value.shape for key, value in network.patch_embed.state_dict().items()}
            if shapes != {key: value.shape for key, value in embed.items()}:
                raise UsageError(
                    "the backbone's patch embedding has other widths than the tokenizer's",
                    f"patch_dim={self.config.tokenizer.patch_dim}, patch_widths={self.config.tokenizer.patch_widths}",
                    "set backbone_options to these",
                )
            network.patch_embed.load_state_dict(embed)

    def draw(self, batch: Batch, generator: torch.Generator) -> Noise:
        """For each of the three passes (first axis) shares and places of masks; how clouds are mixed.

        `ratio` (3, B) and `anchor` (3, B) for blocks, `ratio` (3, 1) and `chance` (3, B, G) for random masks;
        `mix_ratio` (B,), `mix_chance` (B, G); with replacement `replace_chance` (3, B, G), `replace_order` (3, B·G).
        """
        b, g = batch["xyz"].shape[0], self.backbone.config.num_groups

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=generator.device)

        low, high = self.config.mask_ratio
        noise = {"mix_ratio": uniform(b), "mix_chance": uniform(b, g)}
        if self.config.mask == "block":
            anchor = torch.randint(g, (len(PASSES), b), generator=generator, device=generator.device)
            noise |= {"ratio": low + (high - low) * uniform(len(PASSES), b), "anchor": anchor}
        else:
            noise |= {"ratio": low + (high - low) * uniform(len(PASSES), 1), "chance": uniform(len(PASSES), b, g)}
        if self.config.replace:
            noise["replace_chance"] = uniform(len(PASSES), b, g)
            noise["replace_order"] = uniform(len(PASSES), b * g).argsort(1)
        return noise

    def forward(
        self, batch: Batch, noise: Noise, progress: float = 0.0, given: Mapping[str, Tensor] | None = None
    ) -> Losses:
        """Codes of hidden patches, of clouds and of mixed clouds; directions of mixed clouds.

        Args:
            batch: `xyz` (B, N, 3).
            noise: From `draw`.
            progress: Not used.
            given: `mask_query`, `mask_mixed`, `mask_key` (B, G), `codes` (B, G), `mix_ratio`, `mix_chance` instead of
                what was drawn or computed.

        Returns:
            `total`; in `terms` `codes`, `mix`, `momentum` (those that are on) and `accuracy` of the codes; in `found`
            centers, codes, mixed_codes, and of the passes direction and scores (`query_direction`, `query_scores`,
            `mixed_direction`, `mixed_scores`, `key_direction`).
        """
        given, noise = given or {}, {k: v.to(batch["xyz"].device) for k, v in {**noise, **(given or {})}.items()}
        (grouping,) = self.backbone.groups(batch["xyz"])
        whole = self._coded(grouping, given)
        mixed = whole.mixed(noise["mix_chance"] < noise["mix_ratio"].unsqueeze(1))
        query, blend = self._see("query", whole, noise), self._see("mixed", mixed, noise)
        found = {"centers": whole.centers, "codes": whole.codes, "mixed_codes": mixed.codes}
        found |= {"query_direction": query.direction, "mixed_direction": blend.direction}
        terms: dict[str, Tensor] = {}
        if self.config.code_loss:
            terms["codes"], correct = self._code_loss(((query, whole, "query"), (blend, mixed, "mixed")), found)
        if self.config.contrasts:
            key = self._keys(whole, noise)
            found["key_direction"] = key
            terms |= self._contrast(query.direction, blend.direction, key, noise["mix_ratio"])
        total = torch.stack(list(terms.values())).sum()
        scalars = {name: value.detach() for name, value in terms.items()}
        if self.config.code_loss:
            scalars["accuracy"] = correct
        return Losses(total, scalars, found)

    def contrast_features(self, batch: Batch) -> Tensor:
        """Directions of whole clouds (B, contrast_dim): what the released SVM monitor reads."""
        (grouping,) = self.backbone.groups(batch["xyz"])
        nothing = torch.zeros_like(grouping.center_idx)
        return see(self.backbone, self.heads, Patches(grouping.neighborhoods, grouping.centers, nothing)).direction

    def _coded(self, grouping: Grouping, given: Mapping[str, Tensor]) -> Patches:
        points, centers = grouping.neighborhoods, grouping.centers
        codes = given["codes"].to(centers.device) if "codes" in given else self.dvae.backbone.codes(points, centers)
        return Patches(points, centers, codes)

    def _see(self, name: str, patches: Patches, noise: Noise) -> Seen:
        return see(
            self.backbone, self.heads, patches, self._mask(name, patches.centers, noise), self._replacing(name, noise)
        )

    def _mask(self, name: str, centers: Tensor, noise: Noise) -> Tensor:
        """(B, G) bool, True = hidden."""
        if f"mask_{name}" in noise:
            return noise[f"mask_{name}"]
        i = PASSES.index(name)
        if self.config.mask == "random":
            return noise["chance"][i] < noise["ratio"][i].unsqueeze(1)
        return block_mask(centers, noise["anchor"][i], (noise["ratio"][i] * centers.shape[1]).long())

    def _replacing(self, name: str, noise: Noise) -> Replacing | None:
        if not self.config.replace:
            return None
        i = PASSES.index(name)
        return Replacing(self.config.replace, noise["replace_chance"][i], noise["replace_order"][i])

    def _code_loss(
        self, passes: tuple[tuple[Seen, Patches, str], ...], found: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Cross entropy of the codes asked for, a mean over patches for each pass; and how many were right."""
        losses, right, asked = [], [], []
        for seen, patches, name in passes:
            places = torch.ones_like(seen.altered) if self.config.predict == "all" else seen.altered
            scores, codes = self.heads.codes(seen.tokens[places]), patches.codes[places]
            found[f"{name}_scores"] = scores
            losses.append(F.cross_entropy(scores.float(), codes, reduction="sum") / max(len(codes), 1))
            right.append((scores.detach().argmax(1) == codes).sum())
            asked.append(len(codes))
        return torch.stack(losses).sum(), torch.stack(right).sum() / max(sum(asked), 1)

    def _keys(self, whole: Patches, noise: Noise) -> Tensor:
        """The follower's directions of the clouds (B, D), without gradients."""
        leader, momentum = (self.backbone, self.heads), self.config.momentum
        if not self.config.quirks.mask_keys:
            return self.follower.ask(leader, momentum, whole)
        hidden = self._mask("key", whole.centers, noise)
        return self.follower.ask(leader, momentum, whole, hidden, self._replacing("key", noise))

    def _contrast(self, query: Tensor, mixed: Tensor, key: Tensor, ratio: Tensor) -> dict[str, Tensor]:
        """Losses of directions against those of this batch's clouds and of the queue's.

        Args:
            query, mixed, key: Directions (B, D) of clouds, of mixed clouds, and the follower's of clouds.
            ratio: Weight of a mixed cloud's own part, (B,).
        """
        with torch.autocast(query.device.type, enabled=False):  # a temperature of 0.07 multiplies rounding by 14
            query, mixed, key = (F.normalize(x.float(), dim=1) for x in (query, mixed, key))
            terms = {}
            own = torch.arange(len(key), device=key.device)
            if self.config.mix_loss:
                # A copy: the queue changes before gradients are taken.
                scores = mixed @ torch.cat([key, self.queue.keys]).T / self.config.temperature
                first = F.cross_entropy(scores, own, reduction="none")
                second = F.cross_entropy(scores, own.flip(0), reduction="none")
                terms["mix"] = (ratio * first + (1 - ratio) * second).mean()
            if self.config.momentum_loss:
                positive = (query * key).sum(1, keepdim=True)
                scores = torch.cat([positive, query @ self.queue.keys.clone().T], 1) / self.config.temperature
                terms["momentum"] = F.cross_entropy(scores, torch.zeros_like(own))
        if self.training:
            self.queue.push(key)
        return terms

    @torch.no_grad()
    def show(self, batch: Batch, noise: Noise, given: Mapping[str, Tensor] | None = None) -> Picture:
        """Visible patches as they are, hidden ones as the tokenizer's decoder draws their predicted codes.

        Clouds hide differently many patches; here each hides the middle of the shares around its own place.
        """
        training = self.training
        self.eval()
        (grouping,) = self.backbone.groups(batch["xyz"])
        points, centers = grouping.neighborhoods, grouping.centers
        mask = self._picture_mask(centers, {**noise, **(given or {})})
        known = self.dvae.backbone.codes(points, centers)
        seen = see(self.backbone, self.heads, Patches(points, centers, known), mask)
        codes = torch.where(mask, self.heads.codes(seen.tokens).argmax(-1), known)
        folded, _ = self.dvae.decode(self.dvae.codebook[codes], centers)
        self.train(training)
        b, place = len(centers), centers.unsqueeze(2)
        visible, target = ((points + place)[of].view(b, -1, 3) for of in (~mask, mask))
        rebuilt = (folded.fine + place)[mask].view(b, -1, 3)
        return Picture(visible, rebuilt, target, batch["xyz"], centers, mask, codes=codes)

    def _picture_mask(self, centers: Tensor, noise: Noise) -> Tensor:
        """(B, G) bool, True = hidden, the same number in every cloud."""
        hidden = max(1, num_hidden(centers.shape[1], sum(self.config.mask_ratio) / 2))
        if "mask_query" in noise:
            mask = noise["mask_query"].to(centers.device)
            if (mask.sum(1) != mask[0].sum()).any():
                raise UsageError(f"a mask that hides {mask.sum(1).tolist()} patches", "the same number in every cloud")
            return mask
        if self.config.mask == "random":
            least = noise["chance"][0].to(centers.device).argsort(1)[:, :hidden]
            return torch.zeros(centers.shape[:2], dtype=torch.bool, device=centers.device).scatter(1, least, True)
        return block_mask(centers, noise["anchor"][0].to(centers.device), hidden)


def _check_patches(backbone: PointTransformer, config: BertConfig) -> None:
    """That the tokenizer reads the patches that the backbone makes, and that a mask hides something."""
    sizes = backbone.config
    if not sizes.class_token:
        raise UsageError("a backbone without a class token", "class_token=True: it carries a cloud's direction")
    for name in ("num_groups", "group_size"):
        own, theirs = getattr(sizes, name), getattr(config.tokenizer, name)
        if own != theirs:
            raise UsageError(
                f"a backbone with {name}={own} and a tokenizer with {theirs}",
                "patches of one size",
                f"set tokenizer.{name}={own}",
            )
    if num_hidden(sizes.num_groups, config.mask_ratio[0]) < 1:
        raise UsageError(
            f"a mask_ratio of {config.mask_ratio[0]} of {sizes.num_groups} patches hides none",
            f"at least {1 / sizes.num_groups:.3g}",
        )
