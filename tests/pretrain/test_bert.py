"""Masked point modelling: masks, mixing, the follower, the queue, and that it learns."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointlift.core.config import to_dict
from pointlift.core.errors import CheckpointError, CheckpointMismatchError, ConfigError, UsageError
from pointlift.pretrain.bert import MaskedPointModelling
from pointlift.pretrain.bert_network import Patches, Replacing, see
from pointlift.pretrain.dvae import DiscreteVAE
from pointlift.pretrain.masking import block_mask
from pointlift.pretrain.queue import KeyQueue
from pointlift.pretrain.reading import read_objective
from pointlift.pretrain.registry import create_objective
from pointlift.weights.modelfile import describe, write_model_folder

TOKENIZER = {
    "num_groups": 8,
    "group_size": 8,
    "patch_dim": 12,
    "patch_widths": (8, 8, 16),
    "num_codes": 20,
    "graph_base": 4,
}
DECODER = {"code_dim": 10, "decoder_dim": 12, "decoder_hidden": 16, "fold_hidden": 12}
BACKBONE = {
    **{name: TOKENIZER[name] for name in ("num_groups", "group_size", "patch_dim", "patch_widths")},
    "embed_dim": 12,
    "depth": 2,
    "num_heads": 3,
    "pos_hidden": 6,
    "drop_path": 0.0,
}
PASSES = ("query", "mixed", "key")


def small(**options) -> MaskedPointModelling:
    torch.manual_seed(0)
    sizes = {"tokenizer": TOKENIZER, "dvae": DECODER, "contrast_dim": 10, "queue": 12}
    backbone = {**BACKBONE, **options.pop("backbone_options", {})}
    objective = create_objective("bert", "point_transformer", backbone_options=backbone, **{**sizes, **options})
    assert isinstance(objective, MaskedPointModelling)
    return objective


def trained_dvae() -> DiscreteVAE:
    """A tokenizer whose every tensor differs from a fresh one."""
    torch.manual_seed(7)
    dvae = create_objective("dvae", "point_tokenizer", backbone_options=TOKENIZER, **DECODER)
    assert isinstance(dvae, DiscreteVAE)
    for value in dvae.state_dict().values():
        value.copy_(torch.rand(value.shape) + 0.5)
    return dvae


@pytest.fixture
def clouds() -> Tensor:
    return torch.randn(4, 60, 3, generator=torch.Generator().manual_seed(1))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sizes_of_the_released_one() -> None:
    with torch.device("meta"):
        objective = create_objective("bert")
    assert objective.backbone.arch == "point_bert_base"
    assert sum(p.numel() for p in objective.parameters()) == 78_566_683
    assert sum(p.numel() for p in objective.parameters() if p.requires_grad) == 25_472_896


def test_blocks_of_different_sizes(clouds: Tensor) -> None:
    anchor, hidden = torch.tensor([4, 0, 59, 3]), torch.tensor([1, 7, 20, 0])
    mask = block_mask(clouds, anchor, hidden)
    assert torch.equal(mask.sum(1), hidden)
    for i in range(3):
        assert torch.equal(mask[i : i + 1], block_mask(clouds[i : i + 1], anchor[i : i + 1], int(hidden[i])))


@pytest.mark.parametrize("kind", ["block", "random"])
def test_masks(kind: str) -> None:
    options = {"num_groups": 32, "group_size": 4}
    objective = small(mask=kind, backbone_options=options, tokenizer={**TOKENIZER, **options})
    xyz = torch.randn(40, 60, 3, generator=seeded(0))
    noise = objective.draw({"xyz": xyz}, seeded(0))
    (grouping,) = objective.backbone.groups(xyz)
    masks = [objective._mask(name, grouping.centers, noise) for name in PASSES]
    for mask in masks:
        counts = mask.sum(1)
        if kind == "block":  # 25 to 45 %, rounded down, drawn for each cloud
            assert counts.min() >= 8
            assert counts.max() <= 14
            assert len(counts.unique()) > 3
        else:
            assert 0.2 < mask.float().mean() < 0.5
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_patches_of_two_clouds_are_mixed_with_their_centres_and_codes(clouds: Tensor) -> None:
    whole = Patches(torch.randn(4, 8, 5, 3), torch.randn(4, 8, 3), torch.arange(32).view(4, 8))
    keep = torch.rand(4, 8, generator=seeded(0)) < 0.5
    mixed = whole.mixed(keep)
    for b in range(4):
        for g in range(8):
            source = b if keep[b, g] else 3 - b
            for part, all_of in zip(mixed, whole, strict=True):
                assert torch.equal(part[b, g], all_of[source, g])
    assert all(torch.equal(a, b) for a, b in zip(whole.mixed(torch.ones_like(keep)), whole, strict=True))


def test_hidden_patches_are_not_seen(clouds: Tensor) -> None:
    objective = small().eval()
    (grouping,) = objective.backbone.groups(clouds)
    codes = torch.zeros_like(grouping.center_idx)
    patches = Patches(grouping.neighborhoods, grouping.centers, codes)
    mask = torch.rand(4, 8, generator=seeded(0)) < 0.4
    other = patches._replace(points=torch.where(mask[..., None, None], 9.0, patches.points))
    seen, same = (see(objective.backbone, objective.heads, p, mask) for p in (patches, other))
    assert torch.equal(seen.tokens, same.tokens)
    assert torch.equal(seen.altered, mask)
    assert seen.tokens.shape == (4, 8, 12)
    moved = patches._replace(points=torch.where(mask[..., None, None], patches.points, 9.0))
    assert not torch.equal(seen.direction, see(objective.backbone, objective.heads, moved, mask).direction)


def test_replaced_patches_are_those_of_others(clouds: Tensor) -> None:
    objective = small(replace=0.5).eval()
    (grouping,) = objective.backbone.groups(clouds)
    patches = Patches(grouping.neighborhoods, grouping.centers, torch.zeros_like(grouping.center_idx))
    mask, chance = (torch.rand(4, 8, generator=seeded(s)) < 0.4 for s in (0, 1))
    order = torch.randperm(32, generator=seeded(2))
    seen = see(objective.backbone, objective.heads, patches, mask, Replacing(0.5, (~chance).float(), order))
    assert torch.equal(seen.altered, mask | chance)
    given = patches.points.flatten(0, 1)[order].view_as(patches.points)
    by_hand = patches._replace(points=torch.where((chance & ~mask)[..., None, None], given, patches.points))
    expected = see(objective.backbone, objective.heads, by_hand, mask)
    torch.testing.assert_close(seen.tokens, expected.tokens, rtol=0, atol=1e-6)
    losses = objective({"xyz": clouds}, objective.draw({"xyz": clouds}, seeded(0)))
    hidden = objective._mask("query", grouping.centers, objective.draw({"xyz": clouds}, seeded(0))).sum()
    assert len(losses.found["query_scores"]) > hidden


@pytest.mark.parametrize("predict", ["hidden", "all"])
def test_codes_that_are_asked_for(clouds: Tensor, predict: str) -> None:
    objective = small(predict=predict).eval()
    mask = torch.rand(4, 8, generator=seeded(0)) < 0.4
    noise = objective.draw({"xyz": clouds}, seeded(0))
    given = {"mask_query": mask, "mask_mixed": mask, "codes": torch.randint(20, (4, 8), generator=seeded(3))}
    losses = objective({"xyz": clouds}, noise, given=given)
    found = losses.found
    asked = mask if predict == "hidden" else torch.ones_like(mask)
    assert found["query_scores"].shape == (asked.sum(), 20)
    assert torch.equal(found["codes"], given["codes"])
    expected = F.cross_entropy(found["query_scores"], given["codes"][asked])
    expected = expected + F.cross_entropy(found["mixed_scores"], found["mixed_codes"][asked])
    assert losses.terms["codes"].item() == pytest.approx(expected.item(), rel=1e-5)
    right = (found["query_scores"].argmax(1) == given["codes"][asked]).sum()
    right += (found["mixed_scores"].argmax(1) == found["mixed_codes"][asked]).sum()
    assert losses.terms["accuracy"].item() == pytest.approx(right.item() / (2 * asked.sum().item()))


def test_contrasts(clouds: Tensor) -> None:
    objective = small(momentum_loss=True, temperature=0.5).eval()
    noise = objective.draw({"xyz": clouds}, seeded(0))
    losses = objective({"xyz": clouds}, noise)
    query, mixed, key = (F.normalize(losses.found[f"{name}_direction"], dim=1) for name in PASSES)
    queue, ratio = objective.queue.keys, noise["mix_ratio"]
    mix = momentum = 0.0
    for i in range(4):
        others = mixed[i] @ torch.cat([key, queue]).T / 0.5
        mix -= ratio[i] * others.log_softmax(0)[i] + (1 - ratio[i]) * others.log_softmax(0)[3 - i]
        own = torch.cat([query[i] @ key[i : i + 1].T, query[i] @ queue.T]) / 0.5
        momentum -= own.log_softmax(0)[0]
    assert losses.terms["mix"].item() == pytest.approx(mix.item() / 4, rel=1e-5)
    assert losses.terms["momentum"].item() == pytest.approx(momentum.item() / 4, rel=1e-5)
    parts = losses.terms["codes"] + losses.terms["mix"] + losses.terms["momentum"]
    assert losses.total.item() == pytest.approx(parts.item(), rel=1e-5)


def test_the_follower_and_the_queue_move_in_training_alone(clouds: Tensor) -> None:
    objective = small(momentum=0.9)
    with torch.no_grad():
        objective.heads.mask_token.add_(1.0)
    before = {k: v.clone() for k, v in objective.state_dict().items()}
    noise = objective.draw({"xyz": clouds}, seeded(0))
    asked = objective.eval()({"xyz": clouds}, noise).found["key_direction"]
    assert all(torch.equal(v, before[k]) for k, v in objective.state_dict().items())
    losses = objective.train()({"xyz": clouds}, noise)
    losses.total.backward()  # what the losses read has not changed under them
    after = objective.state_dict()
    name = "heads.mask_token"
    expected = 0.9 * before[f"follower.{name}"] + 0.1 * before[name]
    torch.testing.assert_close(after[f"follower.{name}"], expected)
    assert all(p.grad is None for p in objective.follower.parameters())
    keys = F.normalize(losses.found["key_direction"], dim=1)
    torch.testing.assert_close(after["queue.keys"][:4], keys)
    assert torch.equal(after["queue.keys"][4:], before["queue.keys"][4:])
    assert after["queue.at"].item() == 4
    # In evaluation it answered as after the step: its BatchNorm's own statistics are the only difference.
    moved = copy.deepcopy(objective.follower)
    moved.load_state_dict({k: before[f"follower.{k}"] if "running" in k else v for k, v in moved.state_dict().items()})
    (grouping,) = objective.backbone.groups(clouds)
    patches = Patches(grouping.neighborhoods, grouping.centers, torch.zeros_like(grouping.center_idx))
    torch.testing.assert_close(moved.eval()(patches, None, None), asked, rtol=0, atol=1e-5)


def test_a_resumed_run_goes_on_bit_for_bit(clouds: Tensor) -> None:
    def run(objective: MaskedPointModelling, steps: range) -> MaskedPointModelling:
        objective.train()
        optimizer = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=1e-2)
        for step in steps:
            optimizer.zero_grad()
            objective({"xyz": clouds}, objective.draw({"xyz": clouds}, seeded(step))).total.backward()
            optimizer.step()
        return objective

    whole = run(small(), range(6))
    first = run(small(), range(3))
    again = small(queue=12)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    again.load_state_dict(first.state_dict())
    run(again, range(3, 6))
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())


def test_the_queue_is_a_ring() -> None:
    queue = KeyQueue(5, 2)
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(5))
    rows = torch.arange(14.0).view(7, 2)
    queue.push(rows[:3])
    queue.push(rows[3:6])
    assert torch.equal(queue.keys, rows[[5, 1, 2, 3, 4]])
    assert queue.at.item() == 1
    queue.push(rows)  # more than fit: the last five stay, and the next go on behind them
    assert queue.at.item() == 3
    assert {tuple(row) for row in queue.keys.tolist()} == {tuple(row) for row in rows[2:].tolist()}
    assert torch.equal(queue.keys[2], rows[6])


def test_the_teacher_stands_still(clouds: Tensor) -> None:
    paper, upstream = small(quirks="paper"), small(quirks="upstream")
    for objective, moves in ((paper, False), (upstream, True)):
        objective.train()
        assert objective.dvae.training == moves
        before = {k: v.clone() for k, v in objective.dvae.state_dict().items()}
        objective({"xyz": clouds}, objective.draw({"xyz": clouds}, seeded(0))).total.backward()
        changed = {k for k, v in objective.dvae.state_dict().items() if not torch.equal(v, before[k])}
        assert bool(changed) == moves
        assert all("running" in k or "tracked" in k for k in changed)
        assert all(p.grad is None for p in objective.dvae.parameters())
        assert not objective.eval().dvae.training
        # Saved for resuming; left out of what is worth keeping, unless it is asked for.
        assert not any(k.startswith("dvae.") for k in objective.kept_state())
        assert objective.kept_state(teachers=True).keys() == objective.state_dict().keys()
        assert {k for k in objective.state_dict() if not k.startswith("dvae.")} == objective.kept_state().keys()


def test_a_clouds_codes_and_direction_do_not_depend_on_the_batch(clouds: Tensor) -> None:
    objective = small().train()
    noise = objective.draw({"xyz": clouds}, seeded(0))
    order = torch.tensor([2, 0, 3, 1])
    together = objective({"xyz": clouds}, noise).found["codes"]
    assert torch.equal(objective({"xyz": clouds[order]}, noise).found["codes"], together[order])
    other = torch.cat([clouds[:1], 10 * clouds[1:] + 3])
    assert torch.equal(objective({"xyz": other}, noise).found["codes"][0], together[0])
    objective.eval()
    features = objective.contrast_features({"xyz": clouds})
    torch.testing.assert_close(objective.contrast_features({"xyz": clouds[order]}), features[order])
    torch.testing.assert_close(objective.contrast_features({"xyz": clouds[:1]}), features[:1], rtol=0, atol=1e-5)


def test_released_keys_are_of_masked_clouds(clouds: Tensor) -> None:
    found = {}
    for quirks in ("paper", "upstream"):
        objective = small(quirks=quirks).eval()
        with torch.no_grad():
            objective.follower.heads.mask_token.fill_(1.0)
        noises = [objective.draw({"xyz": clouds}, seeded(seed)) for seed in (0, 1)]
        found[quirks] = [objective({"xyz": clouds}, noise).found["key_direction"] for noise in noises]
    assert torch.equal(*found["paper"])
    assert not torch.equal(*found["upstream"])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mask", ["block", "random"])
def test_a_batch_of_one(clouds: Tensor, training: bool, mask: str) -> None:
    objective = small(mask=mask, momentum_loss=True, replace=0.2).train(training)
    losses = objective({"xyz": clouds[:1]}, objective.draw({"xyz": clouds[:1]}, seeded(0)))
    losses.total.backward()
    assert losses.total.isfinite()


def test_nothing_hidden_is_no_error(clouds: Tensor) -> None:
    objective = small().eval()
    nothing = torch.zeros(4, 8, dtype=torch.bool)
    noise = objective.draw({"xyz": clouds}, seeded(0))
    losses = objective({"xyz": clouds}, noise, given={"mask_query": nothing, "mask_mixed": nothing})
    assert losses.terms["codes"] == 0
    assert losses.total.isfinite()


@pytest.mark.parametrize(
    ("options", "terms"),
    [
        ({}, {"codes", "mix", "accuracy"}),
        ({"momentum_loss": True}, {"codes", "mix", "momentum", "accuracy"}),
        ({"mix_loss": False}, {"codes", "accuracy"}),
        ({"code_loss": False}, {"mix"}),
    ],
)
def test_every_parameter_learns_and_the_loss_falls(clouds: Tensor, options: dict, terms: set[str]) -> None:
    objective = small(**options).train()
    objective.set_tokenizer(trained_dvae())
    learned = {n: p for n, p in objective.named_parameters() if p.requires_grad}
    assert {n.partition(".")[0] for n in learned} == {"backbone", "heads"}
    optimizer = torch.optim.AdamW(learned.values(), lr=3e-3)
    noise, values = objective.draw({"xyz": clouds}, seeded(0)), []
    for _ in range(30):
        optimizer.zero_grad()
        losses = objective({"xyz": clouds}, noise)
        losses.total.backward()
        if not values:
            assert losses.terms.keys() == terms
            silent = {n for n, p in learned.items() if p.grad is None or not p.grad.any()}
            # A bias in front of a BatchNorm has no effect; heads of losses that are off learn nothing.
            off = {"code_loss": "heads.codes", "mix_loss": "heads.contrast"}
            idle = tuple(head for loss, head in off.items() if not getattr(objective.config, loss))
            assert all(n.endswith(("local1.bias", "joint1.bias")) or n.startswith(idle) for n in silent), silent
        optimizer.step()
        values.append(losses.terms["codes"].item() if "codes" in terms else 0.0)
    if "codes" in terms:  # directions of a fresh network all point alike: they take longer than a test
        assert values[-1] < 0.9 * values[0]


@pytest.mark.parametrize("mask", ["block", "random"])
def test_the_picture(clouds: Tensor, mask: str) -> None:
    objective = small(mask=mask).train()
    noise = objective.draw({"xyz": clouds}, seeded(0))
    picture = objective.show({"xyz": clouds}, noise)
    assert objective.training
    hidden = int(0.35 * 8)
    assert (picture.hidden.sum(1) == hidden).all()
    assert (picture.given.shape, picture.rebuilt.shape) == ((4, (8 - hidden) * 8, 3), (4, hidden * 8, 3))
    assert torch.cdist(picture.given.double(), clouds.double()).amin(2).max() < 1e-6
    assert torch.cdist(picture.target.double(), clouds.double()).amin(2).max() < 1e-6
    assert (picture.target.shape, picture.codes.shape) == (picture.rebuilt.shape, (4, 8))
    uneven = torch.zeros(4, 8, dtype=torch.bool)
    uneven[0, 0] = True
    with pytest.raises(UsageError, match="the same number"):
        objective.show({"xyz": clouds}, noise, {"mask_query": uneven})


def test_autocast(clouds: Tensor) -> None:
    objective = small(momentum_loss=True, replace=0.2).train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = objective({"xyz": clouds}, objective.draw({"xyz": clouds}, seeded(0)))
    losses.total.backward()
    assert losses.total.isfinite()
    assert objective.queue.keys.dtype == torch.float32


def test_a_tokenizer_is_taken_over_with_its_patch_embedding() -> None:
    objective, dvae = small(), trained_dvae()
    objective.set_tokenizer(dvae)
    assert all(torch.equal(v, dvae.state_dict()[k]) for k, v in objective.dvae.state_dict().items())
    for network in (objective.backbone, objective.follower.backbone):
        taken = network.patch_embed.state_dict()
        assert all(torch.equal(v, taken[k]) for k, v in dvae.backbone.patch_embed.state_dict().items())
    with pytest.raises(CheckpointMismatchError, match="codebook"):
        small(tokenizer={**TOKENIZER, "num_codes": 24}).set_tokenizer(dvae)
    with pytest.raises(UsageError, match="patch embedding"):
        small(backbone_options={"patch_widths": (8, 8, 20)}).set_tokenizer(dvae)


def save(objective: nn.Module, name: str, folder: Path) -> Path:
    """As a run folder keeps it."""
    options = {"name": name, "options": to_dict(objective.config)}
    state = objective.kept_state()
    backbone = objective.backbone
    said = describe(
        backbone.arch,
        to_dict(backbone.config),
        state,
        holds="objective",
        classes=None,
        preprocess={},
        objective=options,
    )
    write_model_folder(folder / "objective", state, said)
    return folder


def test_objectives_are_read_from_run_folders(tmp_path: Path, clouds: Tensor) -> None:
    dvae = trained_dvae()
    place = save(dvae, "dvae", tmp_path / "dvae")
    twin = read_objective(place, create_objective)
    assert all(torch.equal(v, twin.state_dict()[k]) for k, v in dvae.state_dict().items())
    # Sizes follow the teacher's file: they need not be repeated.
    objective = create_objective("bert", "point_transformer", backbone_options=BACKBONE, teacher=str(place), queue=12)
    assert all(torch.equal(v, objective.dvae.state_dict()[k]) for k, v in dvae.state_dict().items())
    kept = save(objective, "bert", tmp_path / "bert")
    again = read_objective(kept, create_objective)  # its file is without the teacher
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in objective.state_dict().items())
    with pytest.raises(UsageError, match=r"'bert'.*Expected: a discrete VAE"):
        create_objective("bert", "point_transformer", backbone_options=BACKBONE, teacher=str(kept))
    with pytest.raises(CheckpointError, match="no checkpoint"):
        create_objective("bert", "point_transformer", backbone_options=BACKBONE, teacher=str(tmp_path / "none"))


def test_what_is_no_objective_is_said(tmp_path: Path) -> None:
    dvae = trained_dvae()
    kept = save(dvae, "dvae", tmp_path / "dvae") / "objective" / "weights.safetensors"
    state = dvae.kept_state()

    def written(changes: dict, options: dict | None = None, **extra: object) -> Path:
        config = {**to_dict(dvae.backbone.config), **changes}
        learned = {"name": "dvae", "options": {**to_dict(dvae.config), **(options or {})}}
        said = {"holds": "objective", "classes": None, "preprocess": {}, "objective": learned, **extra}
        write_model_folder(tmp_path / "odd", state, describe("point_tokenizer", config, state, **said))
        return tmp_path / "odd"

    assert isinstance(read_objective(kept, create_objective), DiscreteVAE)
    for path, message in (
        (lambda: written({}, holds="backbone"), "holds a backbone"),
        (lambda: written({}, objective="dvae"), "the folder `objective`"),
        (lambda: written({"num_codes": 40}), "codebook"),
        (lambda: written({"num_codes": 2**62}), "sizes that cannot be"),
        (lambda: written({}, options={"depth": 10**9}), "at most 1000 blocks"),
        (lambda: written({}, options={"decoder_depth": [1, 10**9]}), "at most 1000 blocks"),
    ):
        with pytest.raises(CheckpointError, match=message):
            read_objective(path(), create_objective)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="of no objective that is known"):
        read_objective(tmp_path / "other.pth", create_objective)


def test_mistakes() -> None:
    with pytest.raises(UsageError, match=r"num_groups=9 and a tokenizer with 8.*set tokenizer.num_groups=9"):
        small(backbone_options={"num_groups": 9})
    with pytest.raises(UsageError, match="class token"):
        small(backbone_options={"class_token": False, "pooling": "max"})
    with pytest.raises(UsageError, match="hides none"):
        small(mask_ratio=(0.1, 0.5))
    for options, message in (
        ({"mask_ratio": (0.5, 0.2)}, "mask_ratio"),
        ({"replace": 1.0}, "replace 1.0"),
        ({"queue": 0}, "queue 0"),
        ({"temperature": 0.0}, "temperature 0.0"),
        ({"code_loss": False, "mix_loss": False}, "at least one"),
    ):
        with pytest.raises(ConfigError, match=message):
            small(**options)


def test_each_process_puts_in_the_keys_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes with two and three clouds, taken through the all-reduces side by side."""
    rows = [torch.arange(4.0).view(2, 2), torch.arange(4.0, 10.0).view(3, 2)]
    counts = torch.tensor([2, 3])
    everything = torch.cat(rows)

    def all_reduce_sum(tensor: Tensor) -> Tensor:
        return tensor.copy_(counts if tensor.ndim == 1 else everything)

    monkeypatch.setattr("pointlift.engine.distributed.world_size", lambda: 2)
    monkeypatch.setattr("pointlift.engine.distributed.all_reduce_sum", all_reduce_sum)
    for rank in range(2):
        sent = []
        monkeypatch.setattr("pointlift.engine.distributed.rank", lambda rank=rank: rank)
        monkeypatch.setattr(
            "pointlift.engine.distributed.all_reduce_sum",
            lambda t, sent=sent: (sent.append(t.clone()), all_reduce_sum(t))[1],
        )
        queue = KeyQueue(6, 2)
        queue.push(rows[rank])
        assert torch.equal(queue.keys[:5], everything)
        assert queue.at.item() == 5
        assert sent[0].tolist() == [2 if rank == 0 else 0, 3 if rank == 1 else 0]
        at = slice(0, 2) if rank == 0 else slice(2, 5)
        assert torch.equal(sent[1][at], rows[rank])
        assert sent[1].sum() == rows[rank].sum()
