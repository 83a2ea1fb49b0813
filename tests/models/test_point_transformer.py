"""Point-MAE's classifier: what the card says of it, beyond what every model does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pointlift import ops
from pointlift.core.errors import UsageError
from pointlift.models import point_transformer
from pointlift.models.point_transformer import PointTransformer, PointTransformerConfig, PointTransformerQuirks
from pointlift.models.registry import create_model

CONFIG = PointTransformerConfig(
    num_groups=6,
    group_size=4,
    embed_dim=12,
    depth=3,
    num_heads=3,
    patch_widths=(6, 8, 10),
    pos_hidden=5,
    head_hidden=(7, 9),
    num_classes=5,
)


@pytest.fixture
def model() -> PointTransformer:
    torch.manual_seed(0)
    return PointTransformer(CONFIG).eval()


def formula(model: PointTransformer, xyz: Tensor) -> tuple[Tensor, Tensor]:
    """Card point-mae, sections 1, 2, 3, 5, from our modules: tokens after the norm, and logits."""
    idx = ops.farthest_point_sample(xyz, CONFIG.num_groups)
    centers = torch.stack([cloud[i] for cloud, i in zip(xyz, idx, strict=True)])
    nearest = torch.cdist(centers.double(), xyz.double()).argsort(-1)[..., : CONFIG.group_size]
    patches = torch.stack([cloud[i] for cloud, i in zip(xyz, nearest, strict=True)]) - centers.unsqueeze(2)
    x = torch.cat([model.cls_token.expand(len(xyz), -1, -1), model.patch_embed(patches)], 1)
    pos = torch.cat([model.cls_pos.expand(len(xyz), -1, -1), model.pos_embed(centers)], 1)
    for block in model.trunk.blocks:
        x = block(x + pos)
    x = model.trunk.norm(x)
    return x, model.head(torch.cat([x[:, 0], x[:, 1:].max(1)[0]], -1))


def test_it_is_the_card(model: PointTransformer, clouds: Tensor) -> None:
    tokens, logits = formula(model, clouds)
    torch.testing.assert_close(model({"xyz": clouds}), logits, rtol=0, atol=1e-5)
    features = model.forward_features({"xyz": clouds}, taps=["tokens"])
    torch.testing.assert_close(features.taps["tokens"], tokens, rtol=0, atol=1e-5)
    torch.testing.assert_close(features.cls, tokens[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("arch", "classes", "count"),
    [
        ("point_mae_base", 40, 22_099_752),
        ("point_mae_base", 15, 22_093_327),
    ],
)
def test_parameter_counts_of_the_released_classifiers(arch: str, classes: int, count: int) -> None:
    with torch.device("meta"):
        model = create_model(arch, num_classes=classes)
    assert sum(p.numel() for p in model.parameters()) == count


def test_released_constants() -> None:
    """Epsilons and rates leave no trace in tensors and hardly any in logits, so they are asserted here."""
    with torch.device("meta"):
        model = create_model("point_mae_base", num_classes=40)
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 25
    assert {m.eps for m in norms} == {1e-5}
    assert {m.eps for m in model.modules() if isinstance(m, nn.BatchNorm1d)} == {1e-5}
    assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm1d)} == {0.1}
    assert model.trunk.drop_path == pytest.approx([0.1 * i / 11 for i in range(12)])
    block = model.trunk.blocks[0].config
    assert (block.dim, block.heads, block.mlp_dim, block.act, block.qkv_bias) == (384, 6, 1536, "gelu", False)
    assert (model.trunk.pos, model.head.dropout.p, model.config.pooling) == ("every", 0.5, "cls+max")
    assert (model.config.num_groups, model.config.group_size, model.min_points) == (64, 32, 64)
    changed = create_model("point_mae_tiny", num_classes=2, eps=1e-6)
    assert {m.eps for m in changed.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}


def test_the_scale_of_attention(model: PointTransformer) -> None:
    """A wrong scale shows only at 4e-5 on logits: one head by hand."""
    block = model.trunk.blocks[0]
    torch.manual_seed(1)
    x = torch.randn(1, 5, 12)
    q, k, v = (t.view(5, 3, 4)[:, 0] for t in block.qkv(x)[0].chunk(3, -1))
    head = (q @ k.T * 4**-0.5).softmax(-1) @ v
    block.proj = nn.Identity()
    torch.testing.assert_close(block.attention(x, None)[0, :, :4], head)


def test_taps(model: PointTransformer, clouds: Tensor) -> None:
    names = ["centers", "patch_tokens", "tokens", *(f"level.0.block.{i}" for i in range(3)), "level.0.block.1.mlp"]
    features = model.forward_features({"xyz": clouds}, taps=names)
    taps = features.taps
    assert list(taps) != []
    assert set(taps) == set(names)
    assert torch.equal(taps["centers"], features.levels[0].xyz)
    assert taps["patch_tokens"].shape == (4, 6, 12)
    torch.testing.assert_close(model.trunk.norm(taps["level.0.block.2"]), taps["tokens"])
    assert torch.equal(torch.cat([features.cls.unsqueeze(1), features.levels[0].feats], 1), taps["tokens"])
    assert model.forward_features({"xyz": clouds}, taps=["centers"]).taps.keys() == {"centers"}


def test_a_mask_leaves_only_visible_patches(model: PointTransformer, clouds: Tensor) -> None:
    mask = torch.zeros(4, 6, dtype=torch.bool)
    for row, hidden in enumerate(([0, 1], [2, 5], [4, 3], [1, 4])):
        mask[row, hidden] = True
    features = model.forward_features({"xyz": clouds}, mask=mask, taps=["centers", "patch_tokens"])
    (level,) = features.levels
    assert level.feats.shape == (4, 4, 12)
    assert torch.equal(level.xyz, features.taps["centers"][~mask].view(4, 4, 3))
    assert features.taps["patch_tokens"].shape == (4, 6, 12)
    # Where nobody asks for the tokens of hidden patches they are not computed.
    torch.testing.assert_close(model.forward_features({"xyz": clouds}, mask=mask).levels[0].feats, level.feats)
    # Each cloud alone, its visible tokens through the trunk by hand.
    x, centers = features.taps["patch_tokens"], features.taps["centers"]
    for b in range(4):
        keep = (~mask[b]).nonzero().squeeze(1)
        rows = torch.cat([model.cls_token[0], x[b, keep]]).unsqueeze(0)
        pos = torch.cat([model.cls_pos[0], model.pos_embed(centers[b, keep])]).unsqueeze(0)
        for block in model.trunk.blocks:
            rows = block(rows + pos)
        torch.testing.assert_close(level.feats[b], model.trunk.norm(rows)[0, 1:], rtol=0, atol=1e-5)
    empty = torch.zeros(4, 6, dtype=torch.bool)
    everything = model.forward_features({"xyz": clouds}).levels[0].feats
    assert torch.equal(model.forward_features({"xyz": clouds}, mask=empty).levels[0].feats, everything)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.eye(4, 6).bool() | torch.tensor([[1, 0, 0, 0, 0, 0]]).bool(), "the same number in every cloud"),
        (torch.ones(4, 6, dtype=torch.bool), "not all"),
        (torch.zeros(4, 5, dtype=torch.bool), r"expected|bool \(4, 6\)"),
        (torch.zeros(4, 6), "bool"),
    ],
)
def test_masks_that_cannot_be(model: PointTransformer, clouds: Tensor, mask: Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        model.forward_features({"xyz": clouds}, mask=mask)


def test_quirks_differ_only_near_the_origin(clouds: Tensor) -> None:
    torch.manual_seed(0)
    paper = PointTransformer(CONFIG).eval()
    upstream = PointTransformer(replace(CONFIG, quirks=PointTransformerQuirks.upstream())).eval()
    upstream.load_state_dict(paper.state_dict())
    far = clouds / clouds.norm(dim=-1, keepdim=True)  # on the unit sphere: nothing near the origin
    assert torch.equal(paper({"xyz": far}), upstream({"xyz": far}))
    # The first point far out and all else within 0.0316 of the origin: upstream finds no second centre.
    near = torch.cat([far[:, :1], 0.01 * far[:, 1:]], 1)
    assert not torch.allclose(paper({"xyz": near}), upstream({"xyz": near}))
    centers = [m.forward_features({"xyz": near}).levels[0].xyz for m in (paper, upstream)]
    assert [len(c[0].unique(dim=0)) for c in centers] == [6, 1]


def test_quirks_are_named_in_one_place() -> None:
    assert PointTransformerQuirks() == PointTransformerQuirks(skip_near_origin=False, fps_ties="lowest")
    assert PointTransformerQuirks.upstream() == PointTransformerQuirks(skip_near_origin=True, fps_ties="block")


def test_nothing_is_computed_twice(model: PointTransformer, clouds: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, int] = {}

    def count(name: str) -> None:
        calls[name] = calls.get(name, 0) + 1

    for module_name, module in model.named_modules():
        if module_name and not module_name.startswith("adapters"):
            module.register_forward_hook(lambda *_, n=module_name: count(n))
    real = point_transformer.group
    monkeypatch.setattr(point_transformer, "group", lambda *a, **k: (count("group"), real(*a, **k))[1])
    begun = monkeypatch.setattr(type(model.adapters), "begin", lambda *a: count("begin"))
    assert begun is None
    features = model.forward_features({"xyz": clouds})
    assert not any(n.startswith("head") for n in calls)
    model.head(features.pool("cls+max"))
    assert calls.pop("head.dropout") == calls.pop("head.act") == 2
    assert set(calls.values()) == {1}
    assert calls["group"] == 1
    assert "begin" not in calls


@pytest.mark.parametrize(("pooling", "width"), [("cls", 12), ("max", 12), ("mean+max", 24), ("cls+max", 24)])
def test_poolings(clouds: Tensor, pooling: str, width: int) -> None:
    model = PointTransformer(replace(CONFIG, pooling=pooling)).eval()
    assert model.num_features == width
    assert model({"xyz": clouds}).shape == (4, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 5}, "embed_dim 12: expected a multiple of num_heads 5"),
        ({"depth": 0}, "depth 0"),
        ({"num_groups": 0}, "num_groups 0"),
        ({"patch_widths": (1, 0, 1)}, "patch_widths"),
        ({"head_hidden": (0, 1)}, "head_hidden"),
        ({"mlp_ratio": 0.0}, "mlp_ratio 0.0"),
        ({"eps": 0.0}, "eps 0.0"),
        ({"head_dropout": -0.1}, "head_dropout -0.1"),
    ],
)
def test_sizes_that_cannot_be(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)
