"""What Point-PEFT inserts into a model (card `point-peft`, section 4); `adapt.point_peft` says what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from pointlift.adapt.memory_bank import Remembering, nearest
from pointlift.adapt.places import Place, patch_rows
from pointlift.adapt.prior import Prior
from pointlift.core.errors import UsageError
from pointlift.layers.bottleneck import Bottleneck
from pointlift.layers.local_attention import LocalAttention, Surroundings
from pointlift.layers.patch_embed import init_tokens_
from pointlift.layers.row_norm import norm_rows
from pointlift.layers.tokens import TokenState
from pointlift.ops import Grouping, farthest_point_sample, gather

if TYPE_CHECKING:
    from pointlift.adapt.point_peft import PointPeft

ROWS = "point_peft"  # the span of the prompts


@dataclass(frozen=True)
class LevelSizes:
    """What the adapter of one trunk is made for.

    Attributes:
        place: The trunk.
        groups: Its tokens.
        prompts: Prompt rows.
        prompt_blocks: So many first blocks have them.
        neighbourhoods: Neighbourhoods of the local attention.
        members: Rows of each.
        adapter_dim: Width of the bottlenecks.
        reads_bank: Its prompts hold what was retrieved.
        hierarchy: The model is one of levels.
    """

    place: Place
    groups: int
    prompts: int
    prompt_blocks: int
    neighbourhoods: int
    members: int
    adapter_dim: int
    reads_bank: bool
    hierarchy: bool


@dataclass
class Context:
    """What depends on the clouds alone, computed once per forward pass.

    Attributes:
        retrieved: Rows from the memory bank (B, T, C).
        prompted: Per level: neighbourhoods of the blocks with prompts.
        plain: Per level: neighbourhoods of the blocks without; None where there are no such blocks.
        masks: Per level, once seen: the mask with prompts, and the one without.
    """

    retrieved: Tensor
    prompted: list[Surroundings]
    plain: list[Surroundings | None]
    masks: dict[int, tuple[Tensor | None, Tensor | None]] = field(default_factory=dict)


class PointPeftBlock(nn.Module):
    """What one block gets: its prompts, two bottlenecks, and the norm behind its neighbourhoods."""

    def __init__(self, config: PointPeft, sizes: LevelSizes, index: int) -> None:
        super().__init__()
        dim, unused = sizes.place.dim, config.quirks.unused_tensors and not sizes.hierarchy
        self.prompted = index < sizes.prompt_blocks
        self.prompts = nn.Parameter(torch.zeros(sizes.prompts, dim)) if self.prompted or unused else None
        reads_bank = sizes.reads_bank and self.prompts is not None
        self.retrieved = Bottleneck(dim, config.prior_dim, config.dropout) if reads_bank else None
        self.beside = Bottleneck(dim, sizes.adapter_dim, config.dropout)
        self.behind = Bottleneck(dim, sizes.adapter_dim, config.dropout)
        self.norm = nn.BatchNorm1d(dim)
        gated = config.quirks.zero_gate and sizes.hierarchy
        self.gate = nn.Parameter(torch.zeros(1)) if gated or unused else None
        if self.prompts is not None:
            init_tokens_(self.prompts)

    def pooled(self, rows: Tensor) -> Tensor:
        """Neighbourhoods (B, S, C) normalised and through GELU."""
        return nn.functional.gelu(norm_rows(self.norm, rows.flatten(0, 1))).view_as(rows)


class PointPeftLevel(nn.Module):
    """What one trunk gets: one local attention for all its blocks, and a part per block."""

    def __init__(self, config: PointPeft, sizes: LevelSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.local = LocalAttention(sizes.place.dim, config.local_dim, config.local_heads)
        self.blocks = nn.ModuleList(PointPeftBlock(config, sizes, i) for i in range(sizes.place.depth))


class PointPeftAdapter(Remembering):
    """Prompts in front of the patches, a bottleneck on the MLP branch, local attention and a bottleneck behind.

    Args:
        config: What to build.
        levels: For which trunks, from fine to coarse.
        prior: Clouds to the query of the memory bank; `batch["prior"]` (B, C) goes first.
        sampling: The model's quirks: how it samples farthest points.
    """

    def __init__(self, config: PointPeft, levels: Sequence[LevelSizes], prior: Prior, sampling: Any) -> None:
        super().__init__()
        self.config = config
        self.rule: dict[str, Any] = {"skip_near_origin": sampling.skip_near_origin, "ties": sampling.fps_ties}
        self.prompt_xyz = nn.Parameter(torch.zeros(levels[0].prompts, 3))
        init_tokens_(self.prompt_xyz, std=config.prompt_spread)
        self.levels = nn.ModuleList(PointPeftLevel(config, sizes) for sizes in levels)
        self.prior = prior
        self.prompt_dropout = nn.Dropout(config.prompt_dropout)

    def attach(self, model: nn.Module) -> None:
        self.prior.attach(cast(Any, model))

    def no_weight_decay(self) -> set[str]:
        """Coordinates are no weights: decay would pull the prompts to the origin."""
        return {"prompt_xyz"}

    def _level(self, index: int) -> PointPeftLevel:
        return cast(PointPeftLevel, self.levels[index])

    def _block(self, state: TokenState, index: int) -> PointPeftBlock:
        return cast(PointPeftBlock, self._level(state.level).blocks[index])

    @property
    def width(self) -> int:
        """Channels of the query, and of the bank's rows."""
        return self._level(-1).sizes.place.dim

    def begin(self, batch: Mapping[str, Tensor], levels: Sequence[Grouping]) -> Context:
        query = batch["prior"] if "prior" in batch else self.prior(batch, levels)
        if query.ndim != 2 or query.shape != (levels[0].points.shape[0], self.width):
            raise UsageError(
                f"a prior of shape {tuple(query.shape)}",
                f"(clouds, {self.width}), one feature vector per cloud",
                'leave batch["prior"] out and the frozen network makes it',
            )
        return Context(self.retrieve(query), *self.surroundings(levels))

    @torch.no_grad()
    def retrieve(self, query: Tensor) -> Tensor:
        """Queries (B, C) to prompts (B, T, C): the query as it is, the average of the finds, the finds best first."""
        rows = self.rows()
        cosines, found = nearest(rows, query, len(self.prompt_xyz) - 2)
        with torch.autocast(query.device.type, enabled=False):
            finds = rows[found].float()
            average = cosines.softmax(1).unsqueeze(1) @ finds
            return torch.cat([query.float().unsqueeze(1), average, finds], 1)

    def surroundings(self, levels: Sequence[Grouping]) -> tuple[list[Surroundings], list[Surroundings | None]]:
        """Neighbourhoods of every level, for blocks with prompts and for those without."""
        first = levels[0].points
        prompts = self.prompt_xyz.to(first.dtype).expand(first.shape[0], -1, -1)
        prompted: list[Surroundings] = []
        plain: list[Surroundings | None] = []
        for i, level in enumerate(levels):
            sizes = self._level(i).sizes
            count, members = sizes.neighbourhoods, sizes.members
            if self.config.quirks.prompt_first_centers:
                rows = prompted[-1].centers if prompted else self._sample(torch.cat([prompts, first], 1), sizes.groups)
                tokens = rows
            else:
                rows, tokens = torch.cat([prompts, level.centers], 1), level.centers
            prompted.append(Surroundings.of(rows, tokens, count, members, **self.rule))
            every = sizes.prompt_blocks == sizes.place.depth
            plain.append(None if every else Surroundings.of(level.centers, level.centers, count, members, **self.rule))
        return prompted, plain

    def _sample(self, points: Tensor, count: int) -> Tensor:
        return gather(points, farthest_point_sample(points, count, **self.rule))

    def before(self, index: int, state: TokenState, ctx: Context) -> TokenState:
        patch_rows(state, ctx.prompted[state.level].weights.shape[1], self.config.name)
        block = self._block(state, index)
        if not block.prompted:
            return state
        prompts = self.prompt_dropout(cast(Tensor, block.prompts)).unsqueeze(0)
        if block.retrieved is not None:
            prompts = prompts + (ctx.retrieved + block.retrieved(ctx.retrieved))
        if state.level not in ctx.masks:
            ctx.masks[state.level] = self._grown(state), state.mask
        return state.insert(ROWS, prompts.to(state.x.dtype), mask=ctx.masks[state.level][0])

    def _grown(self, state: TokenState) -> Tensor | None:
        """The mask with prompts: they see all and are seen."""
        if state.mask is None:
            return None
        count = len(self.prompt_xyz)
        if not self.config.quirks.shifted_mask:
            return state.insert(ROWS, state.x[:, :1].expand(-1, count, -1)).mask
        return nn.functional.pad(state.mask, (0, count, 0, count), value=float(state.mask.dtype == torch.bool))

    def branch(self, index: int, h: Tensor, state: TokenState, ctx: Context) -> Tensor:
        block = self._block(state, index)
        if self.config.quirks.zero_gate and block.gate is not None and self._level(state.level).sizes.hierarchy:
            return block.gate * (h + block.beside(h))
        return h + block.beside.scaled(h, self.config.adapter_factor)

    def after(self, index: int, state: TokenState, ctx: Context) -> TokenState:
        level, block = self._level(state.level), self._block(state, index)
        tokens = state["patch"]
        if block.prompted:
            table, near = torch.cat([state[ROWS], tokens], 1), ctx.prompted[state.level]
            state = state.drop(ROWS, mask=ctx.masks[state.level][1])
            if self.config.quirks.leak_rows:
                table = _leaked(table, tokens.shape[1])
        else:
            table, near = tokens, cast(Surroundings, ctx.plain[state.level])
        rate = level.sizes.place.drop_path[index]
        found = block.pooled(level.local(table, near, self.config.pool, rate))
        state.taps(f"level.{state.level}.block.{index}.pooled", found)
        found = found + self.config.center_factor * gather(table, near.center_idx)
        state = state.write("patch", tokens + near.carry(found, self._share(level.sizes)))
        return replace(state, x=state.x + block.behind(state.x))

    def _share(self, sizes: LevelSizes) -> float:
        given = self.config.propagate_factor
        return (0.1 if sizes.hierarchy else 0.3) if given is None else given


def _leaked(table: Tensor, tokens: int) -> Tensor:
    """The rows (B, R, C) that each cloud reads where its first row is taken to be row `tokens` times its number."""
    clouds, rows, _ = table.shape
    return table.flatten(0, 1).unfold(0, rows, tokens)[:clouds].transpose(1, 2)
