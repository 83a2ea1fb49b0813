"""The order of things around the blocks, and the rates that adapters read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pointlift.layers.block import BlockConfig
from pointlift.layers.tokens import Taps, TokenState
from pointlift.layers.trunk import Adapters, BlockAdapter, Trunk

B, C = 2, 8
CONFIG = BlockConfig(dim=C, heads=2, mlp_dim=12, drop_path=0.3)


def make(depth: int = 3, **options) -> Trunk:
    torch.manual_seed(0)
    trunk = Trunk(CONFIG, depth, **options).double().eval()
    for parameter in trunk.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return trunk


def state(**changes) -> TokenState:
    torch.manual_seed(1)
    x, pos = torch.randn(2, B, 5, C, dtype=torch.float64)
    return replace(TokenState(x, (("prefix", 1), ("patch", 4)), pos=pos), **changes)


@pytest.mark.parametrize("pos", ["once", "every"])
@pytest.mark.parametrize("norm_in", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_positions_and_norms(pos: str, norm_in: bool, norm: bool) -> None:
    trunk, s = make(pos=pos, norm_in=norm_in, norm=norm), state()
    x = s.x + s.pos
    if trunk.norm_in is not None:
        x = trunk.norm_in(x)
    x = trunk.blocks[0](x)
    for block in trunk.blocks[1:]:
        x = block(x + s.pos if pos == "every" else x)
    x = trunk.norm(x) if trunk.norm is not None else x
    torch.testing.assert_close(trunk(s).x, x)


def test_without_positions() -> None:
    trunk, s = make(norm=False), state(pos=None)
    torch.testing.assert_close(trunk(s).x, trunk.blocks[2](trunk.blocks[1](trunk.blocks[0](s.x))))


def test_no_blocks_is_the_norm_alone() -> None:
    trunk, s = make(depth=0), state(pos=None)
    torch.testing.assert_close(trunk(s).x, trunk.norm(s.x))


def test_the_mask_reaches_every_block() -> None:
    allowed = torch.eye(5, dtype=torch.bool).view(1, 1, 5, 5)
    trunk, s = make(), state()
    alone = torch.cat(
        [trunk(TokenState(s.x[:, i : i + 1], (("patch", 1),), s.pos[:, i : i + 1])).x for i in range(5)], 1
    )
    torch.testing.assert_close(trunk(replace(s, mask=allowed)).x, alone)


def test_taps_name_level_and_block() -> None:
    names = ["level.2.block.0", "level.2.block.2", "level.2.block.1.mlp", "level.2.block.1.attention"]
    taps = Taps(names)
    trunk, s = make(norm=False), state(level=2, taps=taps, pos=None)
    out = trunk(s)
    found = taps.all_found()
    assert set(found) == set(names)
    torch.testing.assert_close(found["level.2.block.0"], trunk.blocks[0](s.x))
    torch.testing.assert_close(found["level.2.block.2"], out.x)
    middle = found["level.2.block.0"] + found["level.2.block.1.attention"] + found["level.2.block.1.mlp"]
    torch.testing.assert_close(trunk.blocks[2](middle), out.x)


def test_drop_path_rates() -> None:
    trunk = Trunk(CONFIG, 4)
    assert trunk.drop_path == pytest.approx((0.0, 0.1, 0.2, 0.3))
    assert [b.config.drop_path for b in trunk.blocks] == list(trunk.drop_path)
    assert Trunk(CONFIG, 2, drop_path_rates=(0.1, 0.05)).drop_path == (0.1, 0.05)
    assert Trunk(CONFIG, 1).drop_path == (0.0,)  # linspace(0, rate, 1), as released
    with pytest.raises(ValueError, match="1 drop path rates for 2 blocks"):
        Trunk(CONFIG, 2, drop_path_rates=(0.1,))


@pytest.mark.parametrize("eps", [1e-5, 1e-6])
def test_epsilons(eps: float) -> None:
    trunk = Trunk(replace(CONFIG, eps=eps), 2, norm_in=True)
    assert trunk.norm_in is not None
    assert trunk.norm is not None
    assert {trunk.norm.eps, trunk.norm_in.eps, trunk.blocks[1].norm2.eps} == {eps}
    trunk = Trunk(CONFIG, 1, norm_in=True, norm_eps=1e-12)
    assert (trunk.norm.eps, trunk.norm_in.eps, trunk.blocks[0].norm1.eps) == (1e-12, 1e-12, 1e-5)


class Recorder(BlockAdapter):
    """Writes down every call."""

    def __init__(self, name: str, log: list[tuple]) -> None:
        super().__init__()
        self.name, self.log = name, log

    def begin(self, batch, levels) -> str:
        self.log.append((self.name, "begin"))
        return f"ctx of {self.name}"

    def before(self, index: int, state: TokenState, ctx: str) -> TokenState:
        self.log.append((self.name, "before", index, ctx))
        return state

    def branch(self, index: int, h: Tensor, state: TokenState, ctx: str) -> Tensor:
        self.log.append((self.name, "branch", index, ctx))
        return h

    def after(self, index: int, state: TokenState, ctx: str) -> TokenState:
        self.log.append((self.name, "after", index, ctx))
        return state


def test_the_order_of_the_hooks() -> None:
    log: list[tuple] = []
    adapters = Adapters({"a": Recorder("a", log), "b": Recorder("b", log)})
    ctx = adapters.begin({}, [])
    make(depth=2)(state(), adapters, ctx)
    hooks = [(n, h, i, f"ctx of {n}") for i in range(2) for h in ("before", "branch", "after") for n in "ab"]
    assert log == [("a", "begin"), ("b", "begin"), *hooks]


def test_disabled_adapters_are_passed_over() -> None:
    log: list[tuple] = []
    adapters = Adapters({"a": Recorder("a", log), "b": Recorder("b", log)})
    adapters.disabled.add("a")
    assert len(adapters.active()) == 1
    make(depth=1)(state(), adapters, adapters.begin({}, []))
    assert {entry[0] for entry in log} == {"b"}


def test_an_adapter_that_does_nothing_changes_nothing() -> None:
    trunk, s = make(), state()
    adapter = BlockAdapter()
    torch.testing.assert_close(trunk(s, adapter, adapter.begin({}, [])).x, trunk(s).x, rtol=0, atol=0)
