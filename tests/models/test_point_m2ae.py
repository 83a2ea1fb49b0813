"""Point-M2AE: what the paper says of it, what the released code does instead, beyond what every model does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointlift.core.errors import UsageError
from pointlift.layers.tokens import TokenState
from pointlift.layers.trunk import BlockAdapter
from pointlift.layers.visible import Visible
from pointlift.models.part_head import LevelsPartHead, LevelsPartHeadConfig
from pointlift.models.point_m2ae import PointM2AE, PointM2AEConfig, PointM2AEQuirks
from pointlift.models.registry import create_model

CONFIG = PointM2AEConfig(
    num_groups=(16, 10, 6),
    group_size=(4, 3, 3),
    embed_dim=(6, 12, 18),
    depth=(2, 1, 2),
    radius=(0.8, 1.2, 2.0),
    num_heads=3,
    patch_widths=(6, 8, 10),
    head_hidden=(7, 9),
    part_head=LevelsPartHeadConfig(categories=3, propagation=(8, 9), category_dim=4, hidden=(11, 10, 7)),
    num_classes=5,
)
RELEASED = replace(CONFIG, quirks=PointM2AEQuirks.upstream())
CLOSE = {"rtol": 0, "atol": 2e-5}
# Of the six coarsest patches, how many each of four clouds shows.
SHOWN = (2, 1, 4, 3)


def built(config: PointM2AEConfig = CONFIG) -> PointM2AE:
    """Random everywhere, statistics and norms included."""
    torch.manual_seed(0)
    model = PointM2AE(config).eval()
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point():
            tensor.normal_(0, 0.3)
    return model


@pytest.fixture
def mask() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    order = torch.rand(4, 6, generator=generator).argsort(1)
    return order >= torch.tensor(SHOWN).unsqueeze(1)


def tokens_of(level: nn.Module, members: Tensor) -> Tensor:
    """The mini-PointNet, written out for one patch (K, C)."""
    e = level.token_embed
    local = e.local2(F.relu(e.bn1(e.local1(members))))
    joint = torch.cat([local.amax(0, keepdim=True).expand_as(local), local], -1)
    return e.joint2(F.relu(e.bn2(e.joint1(joint)))).amax(0)


def blocks_of(level: nn.Module, x: Tensor, centers: Tensor, allowed: Tensor) -> Tensor:
    """Blocks on the rows of one cloud (L, C); `allowed` (L, L)."""
    pos = level.pos_embed.fc2(F.gelu(level.pos_embed.fc1(centers)))
    for block in level.trunk.blocks:
        x = x + pos
        q, k, v = block.qkv(block.norm1(x)).view(len(x), 3, 3, -1).permute(1, 2, 0, 3)
        scores = (q @ k.transpose(1, 2)) / q.shape[-1] ** 0.5
        out = scores.masked_fill(~allowed, float("-inf")).softmax(-1) @ v
        x = x + block.proj(out.transpose(0, 1).flatten(1))
        x = x + block.fc2(F.gelu(block.fc1(block.norm2(x))))
    return x


def formula(model: PointM2AE, xyz: Tensor, mask: Tensor | None = None) -> list[list[Tensor]]:
    """Section 3 of the paper, one cloud and one patch at a time: for every level, each cloud's visible tokens."""
    groups = model.groups(xyz)
    levels: list[list[Tensor]] = [[] for _ in groups]
    for b in range(len(xyz)):
        shown = [torch.ones(g.centers.shape[1], dtype=torch.bool) for g in groups]
        if mask is not None:
            shown[-1] = ~mask[b]
            for i in (1, 0):
                members = groups[i + 1].idx[b][shown[i + 1]].flatten()
                shown[i] = torch.isin(torch.arange(len(shown[i])), members)
        grid = xyz[b]
        for i, grouping in enumerate(groups):
            centers = grouping.centers[b]
            members = grid[grouping.idx[b]]
            if i == 0:  # the finest level reads coordinates, the others tokens
                members = members - centers.unsqueeze(1)
            level = model.levels[i]
            tokens = torch.stack([tokens_of(level, patch) for patch in members])
            seen = centers[shown[i]]
            near = (seen.unsqueeze(0) - seen.unsqueeze(1)).norm(dim=-1) < model.config.radius[i]
            out = blocks_of(level, tokens[shown[i]], seen, near)
            grid = tokens.clone()
            grid[shown[i]] = out
            levels[i].append(out if level.norm is None else level.norm(out))
    return levels


def test_the_formula(clouds: Tensor) -> None:
    model = built()
    features = model.forward_features({"xyz": clouds})
    for level, expected in zip(features.levels, formula(model, clouds), strict=True):
        torch.testing.assert_close(level.feats, torch.stack(expected), **CLOSE)
    top = features.levels[-1].feats
    pooled = top.mean(1) + top.amax(1)
    torch.testing.assert_close(model({"xyz": clouds}), model.head(pooled), **CLOSE)


def test_the_formula_under_a_mask(clouds: Tensor, mask: Tensor) -> None:
    model = built(replace(CONFIG, level_norms=True))
    features = model.forward_features({"xyz": clouds}, mask=mask)
    assert features.levels[-1].valid.sum(1).tolist() == list(SHOWN)
    for level, expected in zip(features.levels, formula(model, clouds, mask), strict=True):
        assert level.valid.sum(1).tolist() == [len(rows) for rows in expected]
        for feats, valid, rows in zip(level.feats, level.valid, expected, strict=True):
            torch.testing.assert_close(feats[valid], rows, **CLOSE)
    # Pooling counts what is visible alone.
    rows = expected[1]
    torch.testing.assert_close(features.pool("mean+max")[1], torch.cat([rows.mean(0), rows.amax(0)]), **CLOSE)


def test_levels_agree_on_what_is_visible(clouds: Tensor, mask: Tensor) -> None:
    model = built()
    groups = model.groups(clouds)
    views = model.visible(mask, groups, max(SHOWN))
    assert torch.equal(views[-1].hidden, mask)
    for fine, coarse, grouping in zip(views, views[1:], groups[1:], strict=False):
        for b in range(len(clouds)):
            of_visible = set(grouping.idx[b][~coarse.hidden[b]].flatten().tolist())
            assert set((~fine.hidden[b]).nonzero().flatten().tolist()) == of_visible


def test_under_a_mask_clouds_do_not_depend_on_each_other_or_on_padding(clouds: Tensor, mask: Tensor) -> None:
    model = built()
    together = model.forward_features({"xyz": clouds}, mask=mask).pool("mean+max")
    for i in range(len(clouds)):
        alone = model.forward_features({"xyz": clouds[i : i + 1]}, mask=mask[i : i + 1]).pool("mean+max")
        torch.testing.assert_close(alone[0], together[i], **CLOSE)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = model.forward_features({"xyz": clouds[order]}, mask=mask[order]).pool("mean+max")
    torch.testing.assert_close(shuffled, together[order], **CLOSE)
    groups = model.groups(clouds)
    views = model.visible(mask, groups, max(SHOWN))
    padded = [Visible.of(v.hidden, v.hidden.shape[1]) for v in views]
    features = model.encode({"xyz": clouds}, groups, padded)
    torch.testing.assert_close(features.pool("mean+max"), together, **CLOSE)
    assert all(level.feats.isfinite().all() for level in features.levels)


def test_rows_are_padded_to_a_bound_known_without_looking(clouds: Tensor, mask: Tensor) -> None:
    """On a device: the bound follows from sizes, and nothing is cut off."""
    model = built()
    groups = model.groups(clouds)
    lengths = {}
    on_meta = [replace(g, points=None, centers=g.centers.to("meta"), idx=g.idx.to("meta")) for g in groups]
    for i, view in enumerate(model.visible(mask.to("meta"), on_meta, max(SHOWN))):
        lengths[i] = view.idx.shape[1]
    # 4 patches shown, 3 members each: 12 of 10 patches; 3 members each: 30 of 16.
    assert lengths == {2: 4, 1: 10, 0: 16}
    assert all(v.idx.shape[1] <= lengths[i] for i, v in enumerate(model.visible(mask, groups, max(SHOWN))))


def test_hidden_points_are_not_seen(clouds: Tensor, mask: Tensor) -> None:
    model = built()
    groups = model.groups(clouds)
    before = model.encode({"xyz": clouds}, groups, model.visible(mask, groups, max(SHOWN)))
    points = clouds.clone()
    for b, view in enumerate(model.visible(mask, groups, max(SHOWN))[0].hidden):
        seen = groups[0].idx[b][~view].flatten()
        points[b, ~torch.isin(torch.arange(clouds.shape[1]), seen)] += 7
    moved = [replace(groups[0], points=points), *groups[1:]]
    after = model.encode({"xyz": clouds}, moved, model.visible(mask, groups, max(SHOWN)))
    for one, two in zip(before.levels, after.levels, strict=True):
        assert torch.equal(one.feats, two.feats)


def test_a_radius_of_0_is_no_limit(clouds: Tensor) -> None:
    unlimited, far = (built(replace(CONFIG, radius=(r,) * 3)) for r in (0.0, 1e3))
    assert torch.equal(unlimited({"xyz": clouds}), far({"xyz": clouds}))
    assert not torch.allclose(built()({"xyz": clouds}), far({"xyz": clouds}), atol=1e-3)


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_any_number_of_levels(clouds: Tensor, levels: int) -> None:
    sizes: dict[str, Any] = {
        "num_groups": (16, 12, 8, 5)[:levels],
        "group_size": (4, 3, 3, 2)[:levels],
        "embed_dim": (6, 9, 12, 15)[:levels],
        "depth": (1,) * levels,
        "radius": (0.8, 1.0, 1.5, 3.0)[:levels],
    }
    model = built(replace(CONFIG, **sizes))
    assert model({"xyz": clouds}).shape == (4, 5)
    features = model.forward_features({"xyz": clouds})
    assert [level.feats.shape[1:] for level in features.levels] == [
        *zip(sizes["num_groups"], sizes["embed_dim"], strict=True)
    ]
    groups = sizes["num_groups"][-1]
    mask = torch.arange(groups).expand(4, -1) >= 2
    assert model.forward_features({"xyz": clouds}, mask=mask).pool("max").isfinite().all()


def test_drop_path_rises_over_all_blocks() -> None:
    model = PointM2AE(replace(CONFIG, drop_path=0.4))
    rates = [rate for level in model.levels for rate in level.trunk.drop_path]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_taps(clouds: Tensor) -> None:
    model = built()
    names = ["level.0.centers", "level.2.patch_tokens", "level.1.block.0", "level.2.block.1.mlp", "tokens"]
    features = model.forward_features({"xyz": clouds}, taps=[*names, "patch_tokens", "level.0.patch_tokens"])
    assert torch.equal(features.taps["level.0.centers"], features.levels[0].xyz)
    assert torch.equal(features.taps["level.1.block.0"], features.levels[1].feats)
    assert torch.equal(features.taps["tokens"], features.levels[2].feats)
    assert torch.equal(features.taps["patch_tokens"], features.taps["level.0.patch_tokens"])
    assert features.taps["level.2.patch_tokens"].shape == features.taps["level.2.block.1.mlp"].shape == (4, 6, 18)


def test_masks_that_cannot_be(clouds: Tensor, mask: Tensor) -> None:
    with pytest.raises(UsageError, match="hides every patch of a cloud"):
        built().forward_features({"xyz": clouds}, mask=torch.ones_like(mask))
    with pytest.raises(UsageError, match=r"bool \(4, 6\)"):
        built().forward_features({"xyz": clouds}, mask=mask[:, :5])


# What the released code does instead.


def test_released_padding_is_seen(clouds: Tensor, mask: Tensor) -> None:
    """A cloud's features change with the company it keeps; padding lies at the origin."""
    model = built(RELEASED)
    together = model.forward_features({"xyz": clouds}, mask=mask).pool("max")
    alone = model.forward_features({"xyz": clouds[1:2]}, mask=mask[1:2]).pool("max")
    assert not torch.allclose(alone[0], together[1], atol=1e-3)
    quiet = built(replace(RELEASED, quirks=replace(RELEASED.quirks, see_padding=False, leak_first=False)))
    together = quiet.forward_features({"xyz": clouds}, mask=mask).pool("max")
    alone = quiet.forward_features({"xyz": clouds[1:2]}, mask=mask[1:2]).pool("max")
    torch.testing.assert_close(alone[0], together[1], **CLOSE)


def test_released_attention_under_a_mask_has_no_radius(clouds: Tensor, mask: Tensor) -> None:
    """Between visible tokens; where no row is padding nothing is local at all."""
    quirks = PointM2AEQuirks(see_padding=True)
    same = mask[:1].expand(4, -1)
    near, far = (built(replace(CONFIG, quirks=quirks, radius=(r,) * 3, num_groups=(6, 6, 6))) for r in (0.1, 0.0))
    groups = near.groups(clouds)
    views = [Visible.of(same, int((~same).sum(1)[0]))] * 3
    one, two = (m.encode({"xyz": clouds}, groups, views).pool("max") for m in (near, far))
    torch.testing.assert_close(one, two, **CLOSE)


def test_released_token_0_of_cloud_0_leaks(clouds: Tensor, mask: Tensor) -> None:
    paper, released = built(), built(replace(CONFIG, quirks=PointM2AEQuirks(leak_first=True)))
    groups = paper.groups(clouds)
    for i, (clean, leaky) in enumerate(
        zip(*(m.visible(mask, groups, max(SHOWN)) for m in (paper, released)), strict=True)
    ):
        differs = (clean.hidden != leaky.hidden).nonzero().tolist()
        assert differs in ([], [[0, 0]])
        assert i == 2 or not leaky.hidden[0, 0]
    # Hide what holds token 0, so that the leak shows.
    holds = (groups[2].idx[0] == 0).any(1)
    mask[0] = holds
    assert built().visible(mask, groups, 6)[1].hidden[0, 0]
    assert not released.visible(mask, groups, 6)[1].hidden[0, 0]


def test_released_features_leave_out_what_belongs_to_no_patch(clouds: Tensor) -> None:
    headless = built(replace(RELEASED, num_classes=0))
    features = headless.forward_features({"xyz": clouds})
    groups = headless.groups(clouds)
    of_patches = [len(set(row.flatten().tolist())) for row in groups[2].idx]
    assert features.levels[1].valid.sum(1).tolist() == of_patches
    assert min(of_patches) < 10
    assert features.levels[2].valid.all()
    assert built(RELEASED).forward_features({"xyz": clouds}).levels[1].valid is None
    assert built(replace(CONFIG, num_classes=0)).forward_features({"xyz": clouds}).levels[1].valid is None


def test_the_released_scanobjectnn_maximum_passes_over_the_first_token(clouds: Tensor) -> None:
    for pooling, first in (("mean+max", 1), ("mean_plus_max", 0)):
        features = built(replace(RELEASED, pooling=pooling)).forward_features({"xyz": clouds})
        top = features.levels[-1].feats
        assert torch.equal(features.pool("max"), top[:, first:].amax(1))
        assert torch.equal(features.pool("mean"), top.mean(1))
    paper = built(replace(CONFIG, pooling="mean+max")).forward_features({"xyz": clouds})
    assert torch.equal(paper.pool("max"), paper.levels[-1].feats.amax(1))


def test_released_distances_go_stale_between_levels_of_one_size(clouds: Tensor) -> None:
    sizes = {"num_groups": (10, 10, 6), "radius": (2.0, 2.0, 2.0)}
    paper, released = (
        built(replace(CONFIG, **sizes, quirks=PointM2AEQuirks(stale_distances=stale))) for stale in (False, True)
    )
    # The second level has the first one's centres in another order.
    groups = paper.groups(clouds)
    order = torch.arange(9, -1, -1)
    groups[1] = replace(groups[1], centers=groups[1].centers[:, order], idx=groups[1].idx[:, order])
    one, two = (m.encode({"xyz": clouds}, groups).pool("max") for m in (paper, released))
    assert not torch.allclose(one, two, atol=1e-4)


# Heads.


def test_parts(clouds: Tensor) -> None:
    model = built(replace(CONFIG, head="parts", num_classes=7))
    batch = {"xyz": clouds, "category": torch.tensor([0, 2, 1, 2])}
    logits = model(batch)
    assert logits.shape == (4, 40, 7)
    assert not torch.allclose(model({**batch, "category": torch.tensor([1, 2, 1, 2])})[0], logits[0])
    for i in range(4):
        alone = model({k: v[i : i + 1] for k, v in batch.items()})
        torch.testing.assert_close(alone[0], logits[i], **CLOSE)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    order = torch.cat([torch.tensor([0]), order[order != 0]])  # sampling starts at the first point
    shuffled = model({**batch, "xyz": clouds[:, order]})
    torch.testing.assert_close(shuffled, logits[:, order], **CLOSE)


def test_the_part_head_by_its_formula(clouds: Tensor) -> None:
    model = built(replace(CONFIG, head="parts", num_classes=7))
    levels, category = model.forward_features({"xyz": clouds}).levels, torch.tensor([0, 2, 1, 2])
    head = model.head
    carried = [p(clouds, at.xyz, clouds, at.feats) for p, at in zip(head.propagations, levels, strict=True)]
    points = torch.cat(carried, -1)
    label = F.leaky_relu(head.category.bn(head.category.fc(F.one_hot(category, 3).float())), 0.2)
    cloud = torch.cat([points.amax(1) + points.mean(1), label], -1)
    x = torch.cat([cloud.unsqueeze(1).expand(-1, 40, -1), points], -1).flatten(0, 1)
    for fc, bn in zip(head.logits.mlp.fcs, head.logits.mlp.bns, strict=True):
        x = F.relu(bn(fc(x)))
    torch.testing.assert_close(head(clouds, levels, category), head.logits.fc(x).view(4, 40, 7), **CLOSE)


@pytest.mark.parametrize("count", [1, 4])
def test_every_parameter_of_a_segmenter_learns(clouds: Tensor, count: int) -> None:
    torch.manual_seed(0)
    model = PointM2AE(replace(CONFIG, head="parts", num_classes=7, drop_path=0.0, head_dropout=0.0)).train()
    logits = model({"xyz": clouds[:count], "category": torch.arange(count) % 3})
    F.cross_entropy(logits.flatten(0, 1), torch.arange(40 * count) % 7).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_norms_exist_where_they_are_read(clouds: Tensor) -> None:
    assert [level.norm is not None for level in built().levels] == [False, False, True]
    assert [level.norm is not None for level in built(replace(CONFIG, head="parts")).levels] == [True] * 3
    model = built()
    with pytest.raises(UsageError, match='created with head="parts"'):
        model.reset_classifier(7, head="parts")
    segmenter = built(replace(CONFIG, head="parts"))
    segmenter.reset_classifier(3, head="linear")
    assert segmenter({"xyz": clouds}).shape == (4, 3)
    segmenter.reset_classifier(7, head="parts")
    assert isinstance(segmenter.head, LevelsPartHead)


# Adaptation.


class Watching(BlockAdapter):
    """Notes who calls, and adds to every branch."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int, int]] = []
        self.scale = nn.Parameter(torch.zeros(()))

    def begin(self, batch, levels):
        self.calls.append(("begin", len(levels), levels[-1].centers.shape[1]))
        return levels

    def before(self, index: int, state: TokenState, ctx) -> TokenState:
        self.calls.append(("before", state.level, index))
        return state.insert("own", torch.zeros(1, 2, state.x.shape[2]))

    def branch(self, index: int, h: Tensor, state: TokenState, ctx) -> Tensor:
        return h + self.scale * state.x

    def after(self, index: int, state: TokenState, ctx) -> TokenState:
        self.calls.append(("after", state.level, index))
        return state.drop("own")


@pytest.mark.parametrize("masked", [True, False])
def test_adapters_step_in_at_every_block_of_every_level(clouds: Tensor, mask: Tensor, masked: bool) -> None:
    model, adapter = built(), Watching()
    plain = model.forward_features({"xyz": clouds}, mask=mask if masked else None).pool("max")
    model.adapters["watching"] = adapter
    features = model.forward_features({"xyz": clouds}, mask=mask if masked else None)
    blocks = [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)]
    assert adapter.calls == [("begin", 3, 6), *((hook, *at) for at in blocks for hook in ("before", "after"))]
    assert not torch.allclose(features.pool("max"), plain)  # two rows more were attended to
    features.pool("max").sum().backward()
    assert adapter.scale.grad.abs() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": (1, 1)}, r"depth \(1, 1\): expected one number per level"),
        ({"num_groups": (), "group_size": (), "embed_dim": (), "depth": (), "radius": ()}, "one number per level"),
        ({"num_groups": (16, 20, 6)}, "20 groups of 3 patches: expected at most the 16 of the level below"),
        ({"group_size": (4, 3, 11)}, "6 groups of 11 patches: expected at most the 10 of"),
        ({"embed_dim": (6, 12, 16)}, "expected multiples of num_heads 3"),
        ({"num_groups": (16, 10, 0)}, r"num_groups \(16, 10, 0\): expected numbers of at least 1"),
        ({"patch_widths": (1, 0, 1)}, "patch_widths"),
        ({"radius": (0.1, -1.0, 1.0)}, "radius"),
        ({"eps": 0.0}, "eps 0.0"),
        ({"drop_path": 1.0}, "drop_path 1.0"),
        ({"num_classes": -1}, "num_classes -1"),
        ({"pooling": "cls+max"}, "no class token"),
    ],
)
def test_sizes_that_cannot_be(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)
    with pytest.raises(ValueError, match="every level is read"):
        LevelsPartHeadConfig(fetch=(1,))


def test_released_sizes() -> None:
    config = create_model("point_m2ae_base").config
    assert config == replace(PointM2AEConfig(), num_classes=0)
    assert (config.num_groups, config.group_size, config.radius) == ((512, 256, 64), (16, 8, 8), (0.32, 0.64, 1.28))
