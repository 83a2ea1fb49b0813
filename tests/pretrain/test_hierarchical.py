"""Masked autoencoding in levels: masks that agree, what is seen and asked for, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pointlift.core.errors import ConfigError, UsageError
from pointlift.layers.patch_embed import PosEmbed
from pointlift.models.point_m2ae import PointM2AEQuirks
from pointlift.pretrain.hierarchical import HierarchicalAutoencoder
from pointlift.pretrain.registry import create_objective

SIZES: dict[str, Any] = {
    "num_groups": (20, 12, 5),
    "group_size": (6, 4, 3),
    "embed_dim": (6, 12, 18),
    "depth": (1, 1, 1),
    "radius": (1.0, 1.5, 2.0),
    "num_heads": 3,
    "patch_widths": (8, 8, 16),
    "drop_path": 0.0,
}
# The norm of the finest level: what is decoded begins one level higher.
UNREAD = "backbone.levels.0.norm."
CLOSE = {"rtol": 0, "atol": 2e-5}


def small(quirks: str | None = None, sizes: dict[str, Any] = SIZES, **options: Any) -> HierarchicalAutoencoder:
    torch.manual_seed(0)
    options = {"decoder_heads": 3, "drop_path": 0.0, "mask_ratio": 0.6, **options}
    return create_objective("hierarchical", "point_m2ae", quirks=quirks, backbone_options=sizes, **options)


def loud(objective: HierarchicalAutoencoder) -> HierarchicalAutoencoder:
    """In evaluation mode with large weights: fresh ones hardly tell clouds apart."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.normal_(0, 0.3)
    return objective.eval()


@pytest.fixture
def clouds() -> Tensor:
    return torch.randn(3, 60, 3, generator=torch.Generator().manual_seed(1))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(objective: HierarchicalAutoencoder, clouds: Tensor, seed: int = 0) -> dict[str, Tensor]:
    return objective.draw({"xyz": clouds}, seeded(seed))


def test_noise_decides_everything(clouds: Tensor) -> None:
    objective = small()
    losses = [objective({"xyz": clouds}, drawn(objective, clouds, seed)).total for seed in (0, 0, 1)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


@pytest.mark.parametrize("quirks", ["paper", "upstream"])
def test_every_cloud_hides_as_many_coarse_patches_and_what_only_they_hold(clouds: Tensor, quirks: str) -> None:
    objective = small(quirks)
    found = objective({"xyz": clouds}, drawn(objective, clouds)).found
    assert (found["level.2.mask"].sum(1) == 3).all()
    for fine, coarse in ((1, 2), (0, 1)):
        for b in range(3):
            shown = found[f"level.{coarse}.members"][b][~found[f"level.{coarse}.mask"][b]]
            wanted = set(shown.flatten().tolist()) | ({0} if quirks == "upstream" and b == 0 else set())
            assert set((~found[f"level.{fine}.mask"][b]).nonzero().flatten().tolist()) == wanted
            assert int(found[f"level.{fine}.valid"][b].sum()) == len(wanted)


def test_the_loss_is_the_chamfer_distance_of_hidden_patches(clouds: Tensor) -> None:
    objective = small()
    losses = objective({"xyz": clouds}, drawn(objective, clouds))
    found, mask = losses.found, losses.found["level.1.mask"]
    assert found["rebuilt"].shape == found["target"].shape == (3, 12, 4, 3)
    forth, back = [], []
    for rebuilt, target in zip(found["rebuilt"][mask], found["target"][mask], strict=True):
        distance = (rebuilt.unsqueeze(1) - target.unsqueeze(0)).square().sum(-1)
        forth.append(distance.min(1).values)
        back.append(distance.min(0).values)
    expected = torch.cat(forth).mean() + torch.cat(back).mean()
    torch.testing.assert_close(losses.total, expected)
    # Targets are centres of the finest level relative to the patch's, which is one of them.
    centers = found["level.0.centers"][0][found["level.1.members"][0]]
    torch.testing.assert_close(found["target"][0] + found["level.1.centers"][0].unsqueeze(1), centers)
    assert (found["target"].abs().sum(-1).min(-1).values == 0).all()


def test_the_released_head_rebuilds_as_many_points_as_the_finest_patches_have(clouds: Tensor) -> None:
    objective = small(predicted_points=6)
    found = objective({"xyz": clouds}, drawn(objective, clouds)).found
    assert found["rebuilt"].shape == (3, 12, 6, 3)
    assert found["target"].shape == (3, 12, 4, 3)


def test_hidden_regions_are_not_seen(clouds: Tensor) -> None:
    """What is hidden may be anything, as long as patches and centres stay."""
    objective = loud(small())
    before = objective({"xyz": clouds}, drawn(objective, clouds)).found
    members, mask = before["level.0.members"][0], before["level.0.mask"][0]
    held = set(members[~mask].flatten().tolist())
    centers = (clouds[0].unsqueeze(1) == before["level.0.centers"][0].unsqueeze(0)).all(-1).any(1).nonzero().flatten()
    lone = set(members[mask].flatten().tolist()) - held - set(centers.tolist())
    moved = clouds.clone()
    moved[0, sorted(lone)[0]] += 1e-4  # too little to change who is whose neighbour
    after = objective({"xyz": moved}, drawn(objective, clouds)).found
    assert not torch.equal(before["level.0.patch_tokens"], after["level.0.patch_tokens"])
    for name in ("level.0.visible", "level.1.visible", "level.2.visible", "rebuilt"):
        assert torch.equal(before[name], after[name]), name


def test_clouds_do_not_depend_on_each_other(clouds: Tensor) -> None:
    objective = loud(small())
    mask = objective({"xyz": clouds}, drawn(objective, clouds)).found["level.2.mask"]
    together = objective({"xyz": clouds}, {}, given={"mask": mask}).found["rebuilt"]
    for i in range(3):
        alone = objective({"xyz": clouds[i : i + 1]}, {}, given={"mask": mask[i : i + 1]}).found["rebuilt"]
        torch.testing.assert_close(alone[0], together[i], **CLOSE)
    order = torch.tensor([2, 0, 1])
    shuffled = objective({"xyz": clouds[order]}, {}, given={"mask": mask[order]}).found["rebuilt"]
    torch.testing.assert_close(shuffled, together[order], **CLOSE)


@pytest.mark.parametrize("quirks", ["paper", "upstream"])
@pytest.mark.parametrize("training", [True, False])
def test_a_batch_of_one(clouds: Tensor, quirks: str, training: bool) -> None:
    objective = small(quirks).train(training)
    losses = objective({"xyz": clouds[:1]}, drawn(objective, clouds[:1]))
    losses.total.backward()
    assert losses.total.isfinite()
    for name, parameter in objective.named_parameters():
        assert name.startswith(UNREAD) or parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("quirks", ["paper", "upstream"])
def test_every_parameter_learns_and_the_loss_falls(clouds: Tensor, quirks: str) -> None:
    objective = small(quirks).train()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=5e-3)
    noise = drawn(objective, clouds)
    values = []
    for _ in range(40):
        optimizer.zero_grad()
        losses = objective({"xyz": clouds}, noise)
        losses.total.backward()
        if not values:
            silent = [n for n, p in objective.named_parameters() if p.grad is None or not p.grad.any()]
            # A bias in front of a BatchNorm has no effect.
            carried = ("fuse.mlp.fcs.0.bias", "blocks.0.fc1.bias", "blocks.0.fc2.bias")
            allowed = ("local1.bias", "joint1.bias", *(f"token_prop.{name}" for name in carried))
            assert all(n.startswith(UNREAD) or n.endswith(allowed) for n in silent), silent
        optimizer.step()
        values.append(losses.total.item())
    assert values[-1] < 0.6 * values[0]


def test_a_step_reads_no_value_back_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without values cannot be waited for; shapes follow from sizes alone."""
    monkeypatch.setattr(PosEmbed, "forward", lambda self, x: self.fc2(F.gelu(self.fc1(x))))  # autocast knows no meta
    objective = small().to("meta").train()
    batch = {"xyz": torch.empty(2, 60, 3, device="meta")}
    losses = objective(batch, {"order": torch.empty(2, 5, dtype=torch.int64, device="meta")})
    losses.total.backward()
    rows = [losses.found[f"level.{i}.valid"].shape[1] for i in range(3)]
    assert rows == [20, 6, 2]  # two patches shown, three members each, and all twenty of the finest


@pytest.mark.parametrize("quirks", ["paper", "upstream"])
def test_half_precision(clouds: Tensor, quirks: str) -> None:
    objective = loud(small(quirks))
    noise = drawn(objective, clouds)
    expected = objective({"xyz": clouds}, noise).total
    with torch.autocast("cpu", torch.bfloat16):
        losses = objective.train()({"xyz": clouds}, noise)
    losses.total.backward()
    assert losses.total.dtype == torch.float32
    assert all(p.grad is None or p.grad.isfinite().all() for p in objective.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        found = objective.eval()({"xyz": clouds}, noise).total
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("levels", [2, 4])
def test_any_number_of_levels(clouds: Tensor, levels: int) -> None:
    sizes = {
        **SIZES,
        "num_groups": (20, 14, 9, 5)[:levels],
        "group_size": (6, 4, 3, 3)[:levels],
        "embed_dim": (6, 9, 12, 15)[:levels],
        "depth": (1,) * levels,
        "radius": (0.8, 1.0, 1.5, 0.0)[:levels],
    }
    objective = small(sizes=sizes, decoder_depth=(2, 1, 1)[: levels - 1], up_blocks=(2, 0)[: levels - 2])
    losses = objective({"xyz": clouds}, drawn(objective, clouds))
    losses.total.backward()
    assert losses.found["rebuilt"].shape == (3, 14, 4, 3)
    assert losses.found["decoded"].shape == (3, 14, 9)
    assert objective.mask_token.grad.any()


@pytest.mark.parametrize("seen", [True, False])
def test_released_padding_makes_clouds_depend_on_each_other(clouds: Tensor, seen: bool) -> None:
    objective = loud(small(sizes={**SIZES, "radius": (2.5, 2.5, 2.5)}))
    objective.backbone.config = replace(objective.backbone.config, quirks=PointM2AEQuirks(see_padding=seen))
    mask = torch.tensor([[True, False, True, True, False]] * 3)
    counts = objective({"xyz": clouds}, {}, given={"mask": mask}).found["level.0.valid"].sum(1)
    pair = [int(counts.argmin()), int(counts.argmax())]
    assert counts[pair[0]] < counts[pair[1]]
    together = objective({"xyz": clouds[pair]}, {}, given={"mask": mask[:2]}).found["level.2.visible"][0]
    alone = objective({"xyz": clouds[pair[:1]]}, {}, given={"mask": mask[:1]}).found["level.2.visible"][0]
    assert torch.allclose(together, alone, **CLOSE) != seen


def test_the_picture(clouds: Tensor) -> None:
    objective = small().train()
    noise = drawn(objective, clouds)
    picture = objective.show({"xyz": clouds}, noise)
    assert objective.training
    found = objective.eval()({"xyz": clouds}, noise).found
    hidden = found["level.1.mask"]
    assert torch.equal(picture.hidden, hidden)
    assert picture.rebuilt.shape == (3, int(hidden.sum(1).max()) * 4, 3)
    assert picture.given.shape == (3, int((~found["level.0.mask"]).sum(1).max()) * 6, 3)
    for b in range(3):
        seen = found["level.0.members"][b][~found["level.0.mask"][b]].flatten()
        given = {tuple(p) for p in picture.given[b].tolist()}
        assert given == {tuple(p) for p in clouds[b, seen].tolist()}
        patches = (found["rebuilt"] + found["level.1.centers"].unsqueeze(2))[b][hidden[b]].flatten(0, 1)
        assert {tuple(p) for p in picture.rebuilt[b].tolist()} == {tuple(p) for p in patches.tolist()}
    assert picture.target.shape == picture.rebuilt.shape
    assert torch.cdist(picture.target.double(), clouds.double()).amin(2).max() < 1e-6
    assert not picture.rebuilt.requires_grad


def test_the_backbone_gives_features(clouds: Tensor) -> None:
    objective = small()
    assert objective.backbone.config.level_norms
    assert objective.backbone({"xyz": clouds}).shape == (3, 18)  # mean and max, added
    assert objective.no_weight_decay() == {"mask_token"}


def test_mistakes(clouds: Tensor) -> None:
    with pytest.raises(ConfigError, match=r"mask_ratio 1\.5"):
        small(mask_ratio=1.5)
    with pytest.raises(ConfigError, match=r"up_blocks \(1, 1\): expected a number for each stage but the first"):
        small(up_blocks=(1, 1))
    with pytest.raises(UsageError, match=r"depths \(1,\) for a backbone of 3 levels.*decoder_depth=\(1, 1\)"):
        small(decoder_depth=(1,), up_blocks=())
    one = {**SIZES, **{k: SIZES[k][:1] for k in ("num_groups", "group_size", "embed_dim", "depth", "radius")}}
    with pytest.raises(UsageError, match=r"backbone of 1 levels.*at least two levels"):
        small(sizes=one)
    with pytest.raises(UsageError, match=r"mask_ratio 0\.1 hides none of 5 patches"):
        small(mask_ratio=0.1)
    objective = small()
    with pytest.raises(UsageError, match="hides every patch of a cloud"):
        objective({"xyz": clouds}, {}, given={"mask": torch.ones(3, 5, dtype=torch.bool)})
