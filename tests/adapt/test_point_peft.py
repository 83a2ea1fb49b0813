"""Point-PEFT as the paper describes it: what depends on what, and where it leaves the released code."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointlift.adapt.io import load_model
from pointlift.adapt.memory_bank import BankFacts, MemoryBank
from pointlift.adapt.point_peft import PointPeft, PointPeftQuirks
from pointlift.adapt.registry import adapt_model
from pointlift.core.errors import CheckpointMismatchError, ConfigError, UsageError
from pointlift.layers.bottleneck import Bottleneck
from pointlift.layers.local_attention import LocalAttention, Surroundings, inverse_distance_weights
from pointlift.models.base import PointModel
from pointlift.models.registry import create_model
from pointlift.weights.modelfile import read_model_file

ARCHS = ["point_mae_tiny", "point_bert_tiny", "point_m2ae_tiny"]
KEYS = Path(__file__).parents[1] / "parity" / "files"
UPSTREAM = asdict(PointPeftQuirks.upstream())
Make = Callable[..., PointModel]


def random_bank(rows: int, width: int, **facts: Any) -> MemoryBank:
    values = torch.randn(rows, width, generator=torch.Generator().manual_seed(9))
    return MemoryBank(F.normalize(values, dim=1).half(), BankFacts(**facts))


@pytest.fixture
def adapted(pretrained: Make) -> Make:
    """`adapted(arch, **options)`: an adapted model in evaluation mode, with chance switched off for training."""

    def make(arch: str, **options: Any) -> PointModel:
        model = pretrained(arch)
        torch.manual_seed(3)
        off = {"dropout": 0.0, "prompt_dropout": 0.0}
        adapt_model(model, "point_peft", bank=random_bank(20, model.embed_dim), **(off | options))
        return model.eval()

    return make


@pytest.mark.parametrize("arch", ARCHS)
class TestBothForms:
    def test_released_quirks_make_clouds_depend_on_each_other(self, arch, adapted, clouds) -> None:
        for quirks, mixes in (({}, False), (UPSTREAM, True), ({"leak_rows": True}, True)):
            model = adapted(arch, quirks=quirks)
            together = model({"xyz": clouds})
            alone = torch.cat([model({"xyz": cloud[None]}) for cloud in clouds])
            assert torch.allclose(together[:1], alone[:1], atol=1e-5)
            assert torch.allclose(together, alone, atol=1e-5) != mixes

    @pytest.mark.parametrize("quirk", ["leak_rows", "prompt_first_centers", "shifted_mask", "zero_gate"])
    def test_every_quirk_of_the_forward_pass_changes_it(self, arch, quirk, adapted, clouds) -> None:
        hierarchy = arch == "point_m2ae_tiny"
        right, released = adapted(arch), adapted(arch, quirks={quirk: True})
        same = torch.allclose(right({"xyz": clouds}), released({"xyz": clouds}), atol=1e-6)
        assert same == (quirk in ("shifted_mask", "zero_gate") and not hierarchy)

    @pytest.mark.parametrize("factor", ["adapter_factor", "center_factor", "propagate_factor"])
    def test_factors_are_obeyed(self, arch, factor, adapted, clouds) -> None:
        default, other = adapted(arch), adapted(arch, **{factor: 0.0})
        assert not torch.allclose(default({"xyz": clouds}), other({"xyz": clouds}), atol=1e-5)
        mean = adapted(arch, pool="mean_plus_max")
        assert not torch.allclose(default({"xyz": clouds}), mean({"xyz": clouds}), atol=1e-5)

    def test_the_order_of_points_does_not_matter(self, arch, adapted, clouds) -> None:
        """Sampling begins at the first point; it stays where it is."""
        model = adapted(arch)
        order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(39)])
        assert torch.allclose(model({"xyz": clouds[:, order]}), model({"xyz": clouds}), atol=1e-5)

    def test_what_was_retrieved_matters(self, arch, adapted, clouds) -> None:
        model = adapted(arch)
        own = model({"xyz": clouds})
        query = torch.randn(4, model.embed_dim)
        assert not torch.allclose(model({"xyz": clouds, "prior": query}), own, atol=1e-5)
        made = model.adapters["point_peft"].prior({"xyz": clouds}, model.groups(clouds))
        assert torch.allclose(model({"xyz": clouds, "prior": made}), own, atol=1e-6)
        model.adapters["point_peft"].set_bank(random_bank(50, model.embed_dim))
        assert not torch.allclose(model({"xyz": clouds}), own, atol=1e-5)
        for wrong in (query[:, :-1], query[:3], query[0]):
            with pytest.raises(UsageError, match="a prior of shape"):
                model({"xyz": clouds, "prior": wrong})

    def test_the_tokenizer_stands_still_unless_as_released(self, arch, adapted, clouds) -> None:
        for quirks in ({}, {"moving_statistics": True}):
            model = adapted(arch, quirks=quirks)
            means = [k for k in model.base_state() if k.endswith("embed.bn1.running_mean")]
            before = {k: model.state_dict()[k].clone() for k in means}
            model.train()({"xyz": clouds})
            after = model.state_dict()
            assert before
            assert all(torch.equal(after[k], v) != bool(quirks) for k, v in before.items())

    def test_a_bank_that_does_not_fit(self, arch, pretrained) -> None:
        model = pretrained(arch)
        with pytest.raises(CheckpointMismatchError, match=r"memory bank of width 5.*width 12"):
            adapt_model(model, "point_peft", bank=random_bank(20, 5))
        with pytest.raises(CheckpointMismatchError, match="features of other weights"):
            adapt_model(pretrained(arch), "point_peft", bank=random_bank(20, 12, feature_hash="0" * 64))
        adapt_model(model, "point_peft")
        with pytest.raises(UsageError, match="without its memory bank"):
            model({"xyz": torch.randn(1, 40, 3)})

    @pytest.mark.slow
    def test_it_exports(self, arch, adapted, clouds) -> None:
        model = adapted(arch)
        batch = {"xyz": clouds, "prior": torch.randn(4, model.embed_dim)}
        program = torch.export.export(model, (batch,))
        assert torch.allclose(program.module()(batch), model(batch), atol=1e-5)


@pytest.mark.parametrize(
    ("arch", "options"),
    [("point_mae_tiny", {}), ("point_mae_tiny", {"prior": {"num_groups": (6,)}}), ("point_m2ae_tiny", {})],
)
def test_a_mask_is_refused(arch: str, options: dict[str, Any], adapted: Make, clouds: Tensor) -> None:
    """Also where the frozen network reads the adapted one's patches: it reads all of them."""
    model = adapted(arch, **options)
    mask = torch.tensor([[True, False, False, True, False, False]]).expand(4, -1)
    with pytest.raises(UsageError, match=r"point_peft with patches hidden by a mask.*leave the mask out"):
        model.forward_features({"xyz": clouds}, mask=mask)


@pytest.mark.parametrize(("spread", "several"), [(0.5, True), (0.02, False)])
def test_more_than_one_coordinate_learns(spread: float, several: bool) -> None:
    """As released, sampling finds all but the first next to it."""
    torch.manual_seed(0)
    sizes = {"num_groups": 32, "group_size": 4, "embed_dim": 12, "depth": 2, "patch_widths": (6, 8, 10)}
    model = create_model("point_mae_tiny", num_classes=3, **sizes)
    adapt_model(model, "point_peft", bank=random_bank(20, 12), prompt_spread=spread)
    clouds = F.normalize(torch.randn(4, 200, 3), dim=-1)
    F.cross_entropy(model({"xyz": clouds}), torch.tensor([0, 1, 2, 0])).backward()
    gradient = model.adapters["point_peft"].prompt_xyz.grad
    assert gradient.isfinite().all()
    assert (int(gradient.any(1).sum()) > 1) == several


def test_what_is_retrieved(adapted: Make) -> None:
    """By hand: four axes, queries along two of them."""
    model = adapted("point_mae_tiny", prompts=4)
    adapter = model.adapters["point_peft"]
    rows = torch.eye(12)[:4]
    adapter.set_bank(MemoryBank(rows))
    query = torch.zeros(2, 12)
    query[0, 0], query[0, 1] = 6.0, 8.0  # cosines 0.6 and 0.8
    query[1, 3], query[1, 2] = 2.0, 0.0
    found = adapter.retrieve(query)
    assert found.shape == (2, 4, 12)
    assert torch.equal(found[:, 0], query)
    assert torch.equal(found[0, 2:], rows[[1, 0]])
    assert torch.equal(found[1, 2], rows[3])
    best = torch.tensor([0.8, 0.6]).softmax(0)
    assert torch.allclose(found[0, 1], best[0] * rows[1] + best[1] * rows[0])
    adapter.set_bank(MemoryBank(rows[:1]))
    with pytest.raises(UsageError, match="a memory bank of 1 rows"):
        adapter.retrieve(query)


def test_neighbourhoods_by_hand() -> None:
    line = torch.tensor([[0.0], [1.0], [2.0], [10.0]]) * torch.tensor([1.0, 0.0, 0.0])
    near = Surroundings.of(line[None], line[None, :2], 2, 2, ties="lowest")
    assert near.center_idx.tolist() == [[0, 3]]
    assert near.idx.tolist() == [[[0, 1], [3, 2]]]
    assert torch.allclose(near.weights.sum(-1), torch.ones(1, 2))
    assert torch.allclose(near.weights[0, 0], torch.tensor([1.0, 0.0]), atol=1e-6)
    assert torch.allclose(near.weights[0, 1], torch.tensor([1.0, 1 / 81]) / (1 + 1 / 81))
    feats = torch.tensor([[[3.0], [5.0]]])
    assert torch.allclose(near.carry(feats)[0, :, 0], torch.tensor([3.0, 3 + 2 / 82]))


def test_weights_are_no_half_precision() -> None:
    """In bfloat16 the distance to a neighbour at 1e-3 would be that to oneself."""
    points = torch.tensor([[[1.0, 1.0, 1.0], [1.001, 1.0, 1.0]]])
    with torch.autocast("cpu", torch.bfloat16):
        weights = inverse_distance_weights(points, points)
    assert weights.dtype == torch.float32
    assert weights.min() >= 0
    assert torch.allclose(weights[0].diagonal(), torch.ones(2), atol=0.02)


def test_local_attention_is_what_it_says() -> None:
    """Row by row, as the card words it: attention with a residual, then the maximum over members."""
    torch.manual_seed(0)
    layer, table = LocalAttention(8, 6, 3), torch.randn(2, 7, 8)
    near = Surroundings.of(torch.randn(2, 7, 3), torch.randn(2, 5, 3), 3, 4, ties="lowest")
    found = layer(table, near)
    for b in range(2):
        for s in range(3):
            rows = table[b, near.idx[b, s]]
            q, k, v = layer.qkv(layer.norm(rows)).view(4, 3, 3, 2).permute(1, 2, 0, 3)
            mixed = ((q @ k.transpose(1, 2) * 6**-0.5).softmax(-1) @ v).transpose(0, 1).reshape(4, 6)
            assert torch.allclose(found[b, s], (layer.proj(mixed) + rows).amax(0), atol=1e-5)


@pytest.mark.parametrize("pool", ["max", "mean_plus_max"])
def test_a_swapped_layer_is_called_and_gives_the_same(pool: str) -> None:
    """Values and gradients of the fast way round against members that are written out, as behind a swapped layer."""
    torch.manual_seed(0)
    layer, table = LocalAttention(8), torch.randn(2, 9, 8, requires_grad=True)
    near = Surroundings.of(torch.randn(2, 9, 3), torch.randn(2, 5, 3), 3, 4, ties="lowest")
    tensors = [table, *layer.parameters()]
    results = []
    for swapped in (False, True):
        if swapped:
            layer.proj = nn.Sequential(layer.proj)
        torch.manual_seed(1)  # for drop path
        out = layer(table, near, pool, drop=0.5)
        results.append([out, *torch.autograd.grad((out * torch.arange(8)).sum(), tensors)])
    for fast, slow in zip(*results, strict=True):
        assert torch.allclose(fast, slow, atol=1e-4)


def test_a_bottleneck_times_a_factor() -> None:
    torch.manual_seed(0)
    bottleneck, x = Bottleneck(6, 3), torch.randn(2, 4, 6)
    nn.init.normal_(bottleneck.up.bias)
    expected = 0.7 * bottleneck(x)
    torch.testing.assert_close(bottleneck.scaled(x, 0.7), expected)
    bottleneck.up = nn.Sequential(bottleneck.up)
    torch.testing.assert_close(bottleneck.scaled(x, 0.7), expected)


def test_drop_path_is_per_neighbourhood() -> None:
    torch.manual_seed(0)
    layer, table = LocalAttention(8).train(), torch.randn(1, 30, 8)
    near = Surroundings.of(torch.randn(1, 30, 3), torch.randn(1, 30, 3), 20, 4, ties="lowest")
    plain = table[0, near.idx[0]].amax(1)
    kept = (layer(table, near, drop=0.5)[0] != plain).any(-1)
    assert 2 < int(kept.sum()) < 18
    layer.eval()
    assert torch.equal(layer(table, near, drop=0.5), layer(table, near))


@pytest.mark.parametrize("levels", [2, 3])
def test_hierarchies_of_any_height(levels: int) -> None:
    sizes = {"num_groups": (16, 8, 4)[:levels], "group_size": (4, 3, 3)[:levels], "embed_dim": (6, 9, 12)[:levels]}
    more = {"depth": (1,) * levels, "radius": (0.5, 1.0, 0.0)[:levels], "num_heads": 3}
    model = create_model("point_m2ae", num_classes=3, head_hidden=(7, 9), patch_widths=(6, 8, 10), **sizes, **more)
    width = sizes["embed_dim"][-1]
    adapt_model(model, "point_peft", bank=random_bank(20, width), adapter_dim=(3, 4, 5)[:levels])
    clouds = torch.randn(2, 40, 3)
    F.cross_entropy(model({"xyz": clouds}), torch.tensor([0, 1])).backward()
    names = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not names
    assert model.adapters["point_peft"].levels[0].blocks[0].beside.down.weight.shape == (3, 6)
    assert model.adapters["point_peft"].levels[0].blocks[0].retrieved is None
    assert model.adapters["point_peft"].levels[-1].blocks[0].retrieved is not None
    model.adaptation.remove()
    with pytest.raises(UsageError, match=r"adapter_dim .*one per level"):
        adapt_model(model, "point_peft", bank=random_bank(20, width), adapter_dim=(3,) * (levels + 1))


@pytest.mark.parametrize(
    ("arch", "share", "count"), [("point_mae_base", 0.025, 443_214), ("point_m2ae_base", 0.035, 393_496)]
)
def test_share_of_the_parameters(arch: str, share: float, count: int) -> None:
    """The released size without what nothing uses: at most a few percent of what full fine-tuning moves."""
    with torch.device("meta"):
        model = create_model(arch, num_classes=15)
        inserted = PointPeft().build(model)
    learned = PointPeft().trainable(model.parts())
    own = {n: p.numel() for n, p in model.named_parameters() if not n.startswith("head.")}
    found = sum(n for name, n in own.items() if name.startswith(learned))
    found += sum(p.numel() for p in inserted.parameters())
    assert found == count
    assert found / sum(own.values()) < share


def test_coordinates_are_not_decayed(adapted: Make) -> None:
    from pointlift.engine.config import OptimConfig
    from pointlift.engine.optim import param_groups

    model = adapted("point_mae_tiny")
    name = "adapters.point_peft.prompt_xyz"
    for rule, decays in (("paper", False), ("released", True)):
        rule_config = OptimConfig() if rule == "paper" else OptimConfig(no_weight_decay="released")
        decayed = {n for g in param_groups(model, rule_config) if g["weight_decay"] > 0 for n in g["names"]}
        assert (name in decayed) == decays


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": 2}, "prompts 2: expected at least 3"),
        ({"prompt_blocks": 0}, "prompt_blocks 0"),
        ({"adapter_dim": 0}, "expected numbers of at least 1"),
        ({"local_dim": 20}, "local_dim 20: expected a multiple of local_heads 6"),
        ({"dropout": 1.0}, "dropout 1.0: expected a rate"),
        ({"prompt_spread": 0.0}, "prompt_spread 0.0"),
        ({"poole": "max"}, "'pool'"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str, pretrained: Make) -> None:
    with pytest.raises(ConfigError, match=message):
        adapt_model(pretrained("point_mae_tiny"), "point_peft", **options)


def test_other_networks_are_refused() -> None:
    model = create_model("point_tokenizer_tiny", num_classes=3)
    with pytest.raises(UsageError, match=r"point_peft on point_tokenizer_tiny.*Point-M2AE"):
        adapt_model(model, "point_peft")


def small_released() -> dict[str, Tensor]:
    """A released state dict with narrow layers, and one block more than those with prompts."""
    keys = json.loads((KEYS / "point-peft-mae-scan.keys.json").read_text())["keys"]
    widths = {384: 24, 1536: 96, 1152: 72, 768: 48, 512: 20, 256: 10, 128: 8}
    generator = torch.Generator().manual_seed(2)
    state = {}
    for key, shape in keys.items():
        if (block := re.match(r"blocks\.blocks\.(\d+)", key)) and int(block[1]) > 6:
            continue
        value = 0.1 * torch.randn([widths.get(n, n) for n in shape], generator=generator)
        state[key] = value.abs() + 0.5 if key.endswith("running_var") else value
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(5)
    return state


def test_a_released_checkpoint_is_a_whole_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`load_model` gives it with its adaptation and its quirks; bank and pre-trained weights come from elsewhere."""
    released = small_released()
    path = tmp_path / "ckpt-best.pth"
    torch.save({"base_model": {f"module.{k}": v for k, v in released.items()}, "epoch": 1}, path)
    file = read_model_file(path)
    assert file.extra["adaptation"]["name"] == "point_peft"
    assert file.extra["adaptation"]["quirks"] == UPSTREAM
    assert (file.config["num_classes"], file.config["num_groups"], file.quirks) == (15, 128, "upstream")
    bank = random_bank(30, 24)
    with caplog.at_level(logging.WARNING):
        model, _ = load_model(path, bank=bank)
    assert "base=FILE" in caplog.text
    xyz = torch.randn(2, 256, 3)
    logits = model({"xyz": xyz})
    assert logits.shape == (2, 15)
    assert model.adaptation.config.quirks == PointPeftQuirks.upstream()
    assert model.adaptation.config.prompt_blocks == 6
    for block in model.adapters["point_peft"].levels[0].blocks:
        assert block.gate is not None
        assert block.prompts is not None

    base = {k: v for k, v in released.items() if k in read_pretrain_keys(released)}
    changed = {k: v + (0.1 if k.endswith("bias") and "norm" in k else 0) for k, v in base.items()}
    torch.save({"base_model": {f"MAE_encoder.{k}": v for k, v in changed.items()}}, tmp_path / "pretrain.pth")
    caplog.clear()
    asked, _ = load_model(path, base=tmp_path / "pretrain.pth", bank=bank)
    assert "base=FILE" not in caplog.text
    kept = asked.adapters["point_peft"].prior.kept.state_dict()
    assert torch.equal(kept["trunk.norm.bias"], released["norm.bias"] + 0.1)
    assert not torch.allclose(asked({"xyz": xyz}), logits, atol=1e-6)
    changed["pos_embed.0.weight"] = changed["pos_embed.0.weight"] + 1
    torch.save({"base_model": {f"MAE_encoder.{k}": v for k, v in changed.items()}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointMismatchError, match="other frozen weights"):
        load_model(path, base=tmp_path / "other.pth", bank=bank)


def read_pretrain_keys(released: dict[str, Tensor]) -> set[str]:
    """Those of a pre-trained Point-MAE encoder."""
    own = ("encoder.", "pos_embed.", "norm.")
    parts = (".norm1.", ".norm2.", ".attn.", ".mlp.")
    return {k for k in released if k.startswith(own) or any(part in k for part in parts)}


def test_the_defaults_are_the_papers() -> None:
    config = PointPeft()
    assert config.quirks == PointPeftQuirks()
    assert not any(asdict(config.quirks).values())
    assert all(UPSTREAM.values())
    assert replace(config, prompts=10).prompts == 10
