"""What published adaptations need from the hooks, each in miniature, against the same computation written out.

Point-PEFT: prompts of every block, a parallel adapter on the MLP branch, local attention over patches afterwards.
Any2Point: aggregation of the patches that share a cell. ACT: deep prompts that replace the last block's, positions
included. Point-M2AE: a radius mask, two levels, prompts of level i grouped by level i + 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pointlift.layers.block import Block, BlockConfig
from pointlift.layers.tokens import TokenState
from pointlift.layers.trunk import Adapters, BlockAdapter, Trunk
from pointlift.ops import Grouping, group

B, G, C, DEPTH, PROMPTS = 2, 6, 8, 3, 2
RADIUS = 0.9


@pytest.fixture
def trunk() -> Trunk:
    torch.manual_seed(0)
    trunk = Trunk(BlockConfig(dim=C, heads=2, mlp_dim=12, drop_path=0.2), DEPTH).double().eval()
    for parameter in trunk.parameters():
        nn.init.normal_(parameter, std=0.3)
    return trunk


@pytest.fixture
def levels() -> list[Grouping]:
    xyz = torch.randn(B, 40, 3, generator=torch.Generator().manual_seed(5))
    fine = group(xyz, 2 * G, 4)
    return [fine, group(fine.centers, G, 4)]


@pytest.fixture
def batch(levels: list[Grouping]) -> dict[str, Tensor]:
    prior = torch.randn(B, C, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    return {"xyz": levels[0].points, "prior": prior}


def start(rows: int = G, prefix: int = 1, mask: Tensor | None = None, level: int = 0) -> TokenState:
    x, pos = torch.randn(2, B, prefix + rows, C, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    spans = (("prefix", prefix), ("patch", rows)) if prefix else (("patch", rows),)
    return TokenState(x, spans, pos=pos, mask=mask, level=level)


def attend(block: Block, x: Tensor, mask: Tensor | None = None) -> Tensor:
    return x + block.attention(block.norm1(x), mask)


def mlp(block: Block, x: Tensor) -> Tensor:
    return block.mlp(block.norm2(x))


def parameters_(module: nn.Module) -> None:
    torch.manual_seed(3)
    module.double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)


class PromptsAndParallel(BlockAdapter):
    """Point-PEFT in miniature: retrieved prompts in the first two blocks, dropped after each of them."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.zeros(2, PROMPTS, C))
        self.bottleneck, self.last = nn.Linear(C, C), nn.Linear(C, C)
        self.rates = trunk.drop_path
        self.begun = 0
        parameters_(self)

    def begin(self, batch: Mapping[str, Tensor], levels: Sequence[Grouping]) -> Any:
        self.begun += 1
        distance = torch.cdist(levels[-1].centers, levels[-1].centers).double()
        return {"prior": batch["prior"].unsqueeze(1), "weights": (-distance).softmax(-1)}

    def before(self, index: int, state: TokenState, ctx: Any) -> TokenState:
        return state.insert("point_peft", self.prompts[index] + ctx["prior"]) if index < 2 else state

    def branch(self, index: int, h: Tensor, state: TokenState, ctx: Any) -> Tensor:
        return h + 0.7 * self.bottleneck(h)

    def after(self, index: int, state: TokenState, ctx: Any) -> TokenState:
        patches = state["patch"]
        table = torch.cat([state["point_peft"], patches], 1) if index < 2 else patches
        pooled = ctx["weights"] @ patches + table.amax(1, keepdim=True)
        state = state.write("patch", patches + 0.3 * (1 - self.rates[index]) * pooled)
        state = state.drop("point_peft") if index < 2 else state
        return state.write("patch", self.last(state["patch"])).write("prefix", self.last(state["prefix"]))


def test_prompts_parallel_adapter_and_patches_as_in_point_peft(trunk, levels, batch) -> None:
    adapter, s = PromptsAndParallel(trunk), start()
    ctx = adapter.begin(batch, levels)
    found = trunk(s, adapter, ctx)

    x, pos = s.x, s.pos
    for i, block in enumerate(trunk.blocks):
        x = x + pos
        if i < 2:
            prompts = adapter.prompts[i] + batch["prior"].unsqueeze(1)
            x = torch.cat([x[:, :1], prompts, x[:, 1:]], 1)
        x = attend(block, x)
        h = mlp(block, x)
        x = x + h + 0.7 * adapter.bottleneck(h)
        cls, table = x[:, :1], x[:, 1:]
        patches = table[:, -G:] + 0.3 * (1 - trunk.drop_path[i]) * (
            ctx["weights"] @ table[:, -G:] + table.amax(1, keepdim=True)
        )
        x = adapter.last(torch.cat([cls, patches], 1))
    torch.testing.assert_close(found.x, trunk.norm(x))
    assert found.spans == s.spans
    assert torch.equal(found.pos, s.pos)


class SharedCells(BlockAdapter):
    """Any2Point in miniature: patches whose centres share a voxel get their mean; the class token is set aside."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.inner, self.scale = nn.Linear(C, C), scale
        parameters_(self)

    def begin(self, batch: Mapping[str, Tensor], levels: Sequence[Grouping]) -> Tensor:
        cells = (levels[-1].centers > 0).int()
        return (cells.unsqueeze(1) == cells.unsqueeze(2)).all(-1)

    def branch(self, index: int, h: Tensor, state: TokenState, ctx: Tensor) -> Tensor:
        return h + self.scale * self.inner(h)

    def after(self, index: int, state: TokenState, ctx: Tensor) -> TokenState:
        same = ctx.double()
        return state.write("patch", state["patch"] + same @ state["patch"] / same.sum(-1, keepdim=True))


def test_aggregation_over_cells_as_in_any2point(trunk, levels, batch) -> None:
    adapter, s = SharedCells(0.5), start()
    found = trunk(s, adapter, adapter.begin(batch, levels)).x

    centers, x = levels[-1].centers, s.x
    for block in trunk.blocks:
        x = attend(block, x + s.pos)
        h = mlp(block, x)
        x = x + h + 0.5 * adapter.inner(h)
        patches = x[:, 1:].clone()
        for b in range(B):
            for i in range(G):
                mates = [j for j in range(G) if ((centers[b, j] > 0) == (centers[b, i] > 0)).all()]
                patches[b, i] += x[b, 1:][mates].mean(0)
        x = torch.cat([x[:, :1], patches], 1)
    torch.testing.assert_close(found, trunk.norm(x))


class DeepPrompts(BlockAdapter):
    """ACT's stage I: prompts with positions that stay, replaced by the next block's own; no class token needed."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.pos = (nn.Parameter(torch.zeros(DEPTH, 1, PROMPTS, C)) for _ in range(2))
        parameters_(self)

    def before(self, index: int, state: TokenState, ctx: None) -> TokenState:
        if index > 0:
            state = state.drop("prompt")
        return state.insert("prompt", self.tokens[index], pos=self.pos[index])

    def after(self, index: int, state: TokenState, ctx: None) -> TokenState:
        return state.drop("prompt") if index == DEPTH - 1 else state


def test_deep_prompts_as_in_act(trunk) -> None:
    adapter, s = DeepPrompts(), start(prefix=0)
    found = trunk(s, adapter, None)
    x = s.x
    for i, block in enumerate(trunk.blocks):
        rows = torch.cat([adapter.tokens[i].expand(B, -1, -1), x[:, -G:]], 1)
        x = block(rows + torch.cat([adapter.pos[i].expand(B, -1, -1), s.pos], 1))
    torch.testing.assert_close(found.x, trunk.norm(x)[:, PROMPTS:])
    assert found.spans == (("patch", G),)


def test_shallow_prompts_stay_to_the_end(trunk) -> None:
    class Shallow(DeepPrompts):
        def before(self, index: int, state: TokenState, ctx: None) -> TokenState:
            return super().before(0, state, ctx) if index == 0 else state

        def after(self, index: int, state: TokenState, ctx: None) -> TokenState:
            return state

    adapter, s = Shallow(), start()
    x = torch.cat([s.x[:, :1], adapter.tokens[0].expand(B, -1, -1), s.x[:, 1:]], 1)
    pos = torch.cat([s.pos[:, :1], adapter.pos[0].expand(B, -1, -1), s.pos[:, 1:]], 1)
    for block in trunk.blocks:
        x = block(x + pos)
    found = trunk(s, adapter, None)
    torch.testing.assert_close(found["patch"], trunk.norm(x)[:, 1 + PROMPTS :])
    assert found.names == ("prefix", "prompt", "patch")


class MaskedPrompts(BlockAdapter):
    """Point-M2AE's Point-PEFT: the prompts of level i come from the grouping of level i + 1, masks are made once."""

    def __init__(self, kind: str, *, ready_mask: bool) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(()))
        self.inner, self.kind, self.ready_mask = nn.Linear(C, C), kind, ready_mask
        self.begun: list[int] = []
        parameters_(self)

    def begin(self, batch: Mapping[str, Tensor], levels: Sequence[Grouping]) -> Any:
        self.begun.append(len(levels))
        coarser = [*levels[1:], levels[-1]]
        prompts = [g.centers[:, :PROMPTS].double() @ torch.ones(3, C, dtype=torch.float64) for g in coarser]
        near = [radius_mask(g.centers) for g in levels]
        grown = [nn.functional.pad(m, (PROMPTS, 0, PROMPTS, 0), value=True) for m in near]
        return prompts, [as_kind(m, self.kind) for m in near], [as_kind(m, self.kind) for m in grown]

    def before(self, index: int, state: TokenState, ctx: Any) -> TokenState:
        prompts, _, grown = ctx
        return state.insert("prompt", prompts[state.level], mask=grown[state.level] if self.ready_mask else None)

    def branch(self, index: int, h: Tensor, state: TokenState, ctx: Any) -> Tensor:
        return self.gate * (h + self.inner(h))

    def after(self, index: int, state: TokenState, ctx: Any) -> TokenState:
        return state.drop("prompt", mask=ctx[1][state.level] if self.ready_mask else None)


def radius_mask(centers: Tensor) -> Tensor:
    return (torch.cdist(centers, centers) < RADIUS).unsqueeze(1)


def as_kind(mask: Tensor, kind: str) -> Tensor:
    """As released (additive -1e5) or as it should be (bool)."""
    return mask if kind == "bool" else torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -1e5)


@pytest.mark.parametrize("ready_mask", [True, False])
@pytest.mark.parametrize("kind", ["bool", "additive"])
def test_masks_levels_and_one_begin_as_in_point_m2ae(trunk, levels, batch, ready_mask: bool, kind: str) -> None:
    adapter = MaskedPrompts(kind, ready_mask=ready_mask)
    ctx = adapter.begin(batch, levels)
    for level, grouping in enumerate(levels):
        near = radius_mask(grouping.centers)
        assert not near.all()
        n = near.shape[-1]
        s = start(n, prefix=0, mask=as_kind(near, kind), level=level)
        found = trunk(s, adapter, ctx)
        assert torch.equal(found.mask, s.mask)

        prompts = levels[1].centers[:, :PROMPTS].double().sum(-1, keepdim=True).expand(-1, -1, C)
        mask = torch.ones(B, 1, n + PROMPTS, n + PROMPTS, dtype=torch.bool)
        mask[:, :, PROMPTS:, PROMPTS:] = near
        x = s.x
        for block in trunk.blocks:
            x = attend(block, torch.cat([prompts, x + s.pos], 1), mask)
            h = mlp(block, x)
            x = (x + adapter.gate * (h + adapter.inner(h)))[:, PROMPTS:]
        torch.testing.assert_close(found.x, trunk.norm(x))
    assert adapter.begun == [2]


def test_several_adapters_stack_in_order(trunk, levels, batch) -> None:
    adapters = Adapters({"prompt": DeepPrompts(), "peft": PromptsAndParallel(trunk), "cells": SharedCells(0.5)})
    first, peft, cells = adapters["prompt"], adapters["peft"], adapters["cells"]
    s = start()
    ctx = adapters.begin(batch, levels)
    assert peft.begun == 1
    found = trunk(s, adapters, ctx)
    assert found.spans == s.spans

    x = s.x
    same = ctx[2].double()
    for i, block in enumerate(trunk.blocks):
        rows = [x[:, :1] + s.pos[:, :1], (first.tokens[i] + first.pos[i]).expand(B, -1, -1)]
        if i < 2:
            rows.append(peft.prompts[i] + batch["prior"].unsqueeze(1))
        x = attend(block, torch.cat([*rows, x[:, -G:] + s.pos[:, -G:]], 1))
        h = mlp(block, x)
        h = h + 0.7 * peft.bottleneck(h)
        x = x + h + 0.5 * cells.inner(h)
        table, patches = x[:, 1 + PROMPTS :], x[:, -G:]
        pooled = ctx[1]["weights"] @ patches + table.amax(1, keepdim=True)
        patches = peft.last(patches + 0.3 * (1 - trunk.drop_path[i]) * pooled)
        patches = patches + same @ patches / same.sum(-1, keepdim=True)
        x = torch.cat([peft.last(x[:, :1]), patches], 1)
    torch.testing.assert_close(found.x, trunk.norm(x))


def test_adapters_learn_and_the_frozen_trunk_does_not(trunk, levels, batch) -> None:
    adapters = Adapters({"peft": PromptsAndParallel(trunk), "cells": SharedCells(0.5)})
    trunk.requires_grad_(False).train()
    with torch.autocast("cpu", torch.bfloat16):
        trunk(start(), adapters, adapters.begin(batch, levels)).x.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in adapters.parameters())
    assert all(p.grad is None for p in trunk.parameters())
