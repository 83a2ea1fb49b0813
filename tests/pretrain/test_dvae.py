"""The discrete VAE: what the paper says of codes, choices and schedules, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pointlift.core.errors import ConfigError, UsageError
from pointlift.pretrain.dvae import DiscreteVAE
from pointlift.pretrain.metrics import category_means, reconstruction_metrics
from pointlift.pretrain.registry import create_objective
from pointlift.pretrain.schedule import Ramp

TOKENIZER = {
    "num_groups": 8,
    "group_size": 8,
    "patch_dim": 12,
    "patch_widths": (8, 8, 16),
    "num_codes": 20,
    "graph_base": 4,
}
SIZES = {"code_dim": 10, "decoder_dim": 12, "decoder_hidden": 16, "fold_hidden": 12}


def small(**options) -> DiscreteVAE:
    torch.manual_seed(0)
    tokenizer = {**TOKENIZER, **options.pop("backbone_options", {})}
    objective = create_objective("dvae", "point_tokenizer", backbone_options=tokenizer, **{**SIZES, **options})
    assert isinstance(objective, DiscreteVAE)
    return objective


@pytest.fixture
def clouds() -> Tensor:
    return torch.randn(4, 60, 3, generator=torch.Generator().manual_seed(1))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sizes_of_the_released_one() -> None:
    with torch.device("meta"):
        objective = create_objective("dvae")
    assert objective.backbone.arch == "point_tokenizer_base"
    assert sum(p.numel() for p in objective.parameters()) == 27_620_891


def test_schedules_at_the_published_steps() -> None:
    config = small().config
    temperature, weight = config.temperature, config.divergence
    assert [temperature.at(s) for s in (0, 50_000, 100_000, 190_000)] == pytest.approx([1, 0.53125, 0.0625, 0.0625])
    assert [weight.at(s) for s in (0, 10_000, 60_000, 110_000, 190_000)] == pytest.approx([0, 0, 0.05, 0.1, 0.1])
    rising = [weight.at(s) for s in range(0, 120_000, 1000)]
    assert rising == sorted(rising)


def test_progress_moves_along_the_schedules(clouds: Tensor) -> None:
    objective = small().train()
    noise = objective.draw({"xyz": clouds}, seeded(0))
    steps = objective.config.steps
    early, late = (objective({"xyz": clouds}, noise, progress) for progress in (0.0, 110_000 / steps))
    assert early.terms["temperature"] == 1
    assert late.terms["temperature"] == pytest.approx(0.0625)
    assert early.total.item() == pytest.approx(early.terms["cd_l1"].item())
    expected = late.terms["cd_l1"] + 0.1 * late.terms["divergence"]
    assert late.total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_choices(clouds: Tensor) -> None:
    objective = small()
    scores = torch.randn(2, 8, 20, generator=seeded(0), requires_grad=True)
    gumbel = objective.draw({"xyz": clouds[:2]}, seeded(1))["gumbel"]
    soft = objective.choose(scores, gumbel, 0.5, hard=False)
    torch.testing.assert_close(soft.sampled, ((scores + gumbel) / 0.5).softmax(-1) @ objective.codebook)
    hard = objective.choose(scores, gumbel, 0.5, hard=True)
    torch.testing.assert_close(hard.sampled, objective.codebook[(scores + gumbel).argmax(-1)])
    assert torch.equal(hard.codes, scores.argmax(-1))
    quiet = objective.choose(scores, None, 1.0, hard=True)
    torch.testing.assert_close(quiet.sampled, objective.codebook[scores.argmax(-1)])
    # Straight through: the gradient is that of the soft choice.
    direction = torch.randn(2, 8, 10, generator=seeded(2))
    grads = [torch.autograd.grad((c.sampled * direction).sum(), scores)[0] for c in (soft, hard)]
    torch.testing.assert_close(*grads)


def test_gumbel_noise_has_its_mean_and_spread(clouds: Tensor) -> None:
    noise = small(backbone_options={"num_codes": 4000}).draw({"xyz": clouds}, seeded(0))["gumbel"]
    assert noise.shape == (4, 8, 4000)
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.02)
    assert noise.std().item() == pytest.approx(math.pi / 6**0.5, abs=0.02)
    assert noise.isfinite().all()


def test_the_divergence_and_its_direction(clouds: Tensor) -> None:
    noise = small().draw({"xyz": clouds}, seeded(0))
    losses = {q: small(quirks=q).train()({"xyz": clouds}, noise) for q in ("paper", "upstream")}
    use = losses["paper"].found["scores"].softmax(-1).mean(1)
    prior = torch.full_like(use, 1 / 20)
    paper = F.kl_div(prior.log(), use, reduction="batchmean")
    upstream = F.kl_div(use.log(), prior, reduction="batchmean")
    assert losses["paper"].terms["divergence"].item() == pytest.approx(paper.item(), rel=1e-4)
    assert losses["upstream"].terms["divergence"].item() == pytest.approx(upstream.item(), rel=1e-4)
    assert abs(paper - upstream) > 1e-4


def test_evaluation_is_without_chance_unless_released(clouds: Tensor) -> None:
    paper, upstream = small(quirks="paper").eval(), small(quirks="upstream").eval()
    noises = [paper.draw({"xyz": clouds}, seeded(seed)) for seed in (0, 1)]
    first, second = (paper({"xyz": clouds}, noise).found["fine"] for noise in noises)
    assert torch.equal(first, second)
    assert torch.equal(paper({"xyz": clouds}, {}).found["fine"], first)
    first, second = (upstream({"xyz": clouds}, noise).found["fine"] for noise in noises)
    assert not torch.equal(first, second)
    with pytest.raises(KeyError):  # noise that was forgotten is not taken for none
        paper.train()({"xyz": clouds}, {})


def test_clouds_stay_apart_and_one_is_enough(clouds: Tensor) -> None:
    objective = small().eval()
    together = objective({"xyz": clouds}, {}).found
    order = torch.tensor([2, 0, 3, 1])
    shuffled = objective({"xyz": clouds[order]}, {}).found
    for name in ("codes", "scores", "coarse", "fine"):
        torch.testing.assert_close(shuffled[name], together[name][order], rtol=0, atol=1e-5)
        alone = objective({"xyz": clouds[:1]}, {}).found[name]
        torch.testing.assert_close(alone, together[name][:1], rtol=0, atol=1e-5)
    objective.train()
    losses = objective({"xyz": clouds[:1]}, objective.draw({"xyz": clouds[:1]}, seeded(0)))
    losses.total.backward()
    assert losses.total.isfinite()


@pytest.mark.parametrize("hard", [False, True])
def test_every_parameter_learns_and_the_loss_falls(clouds: Tensor, hard: bool) -> None:
    objective = small(hard=hard, divergence={"start": 0.1, "end": 0.1}).train()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=5e-3)
    values = []
    for step in range(60):
        optimizer.zero_grad()
        losses = objective({"xyz": clouds}, objective.draw({"xyz": clouds}, seeded(step)), step / 60)
        losses.total.backward()
        if step == 0:
            silent = [n for n, p in objective.named_parameters() if p.grad is None or not p.grad.any()]
            # A bias in front of a BatchNorm has no effect, nor has a shift of all scores.
            assert all(n.endswith(("local1.bias", "joint1.bias", "fcs.0.bias", "fcs.1.bias")) for n in silent), silent
        optimizer.step()
        values.append(losses.terms["cd_l1"].item())
    assert values[-1] < 0.8 * values[0]


def test_something_may_stand_between_codes_and_decoder(clouds: Tensor) -> None:
    class Middle(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(10, 10)

        def forward(self, x: Tensor, centers: Tensor) -> Tensor:
            assert centers.shape == (*x.shape[:2], 3)
            return self.fc(x)

    plain = small()
    objective = DiscreteVAE(plain.backbone, plain.config, Middle()).train()
    losses = objective({"xyz": clouds}, objective.draw({"xyz": clouds}, seeded(0)))
    losses.total.backward()
    assert objective.middle.fc.weight.grad.any()
    assert any(key.startswith("middle.") for key in objective.state_dict())


def test_the_picture_and_its_scores(clouds: Tensor) -> None:
    objective = small().train()
    picture = objective.show({"xyz": clouds}, {})
    assert objective.training
    assert (picture.given.shape, picture.rebuilt.shape) == ((4, 0, 3), (4, 64, 3))
    assert picture.hidden.all()
    assert (picture.coarse.shape, picture.target.shape, picture.codes.shape) == ((4, 16, 3), (4, 64, 3), (4, 8))
    assert torch.cdist(picture.target.double(), clouds.double()).amin(2).max() < 1e-6
    scores = reconstruction_metrics(picture.rebuilt, clouds)
    assert {name: value.shape for name, value in scores.items()} == dict.fromkeys(("cd_l1", "cd_l2", "f_score"), (4,))


def test_metrics() -> None:
    whole = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]])
    same = reconstruction_metrics(whole.flip(1), whole)
    assert (same["cd_l1"].item(), same["cd_l2"].item(), same["f_score"].item()) == (0, 0, 1)
    rebuilt = torch.tensor([[[0.005, 0, 0], [0.0, 0, 0.3], [0.1, 0, 0], [0.0, 0.2, 0]]])
    scores = reconstruction_metrics(rebuilt, whole)
    assert scores["f_score"].item() == pytest.approx(2 * 0.25 * 0.5 / 0.75)
    assert scores["cd_l1"].item() == pytest.approx(((0.005 + 0.3 + 0.1 + 0.2) / 4 + (0.005 + 0.9) / 2) / 2)
    squares = (0.005**2 + 0.3**2 + 0.1**2 + 0.2**2) / 4 + (0.005**2 + 0.9**2) / 2
    assert scores["cd_l2"].item() == pytest.approx(squares)
    assert reconstruction_metrics(rebuilt + 9, whole)["f_score"].item() == 0
    means = category_means(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([7, 3, 7]))
    assert means == {3: 2.0, 7: 2.5}


def test_mistakes(clouds: Tensor) -> None:
    with pytest.raises(UsageError, match="group_size=6"):
        small(backbone_options={"group_size": 6})
    with pytest.raises(ConfigError, match="decoder_dim 10"):
        small(decoder_dim=10)
    with pytest.raises(ConfigError, match="num_codes 21"):
        small(backbone_options={"num_codes": 21})
    with pytest.raises(ConfigError, match="temperature"):
        small(temperature={"start": 1.0, "end": 0.0})
    with pytest.raises(ConfigError, match="steps 0"):
        small(divergence={"start": 0.0, "end": 0.1, "steps": 0})
    with pytest.raises(UsageError, match="at least 8 points"):
        small()({"xyz": clouds[:, :7]}, {})
    with pytest.raises(UsageError, match="a mask for a tokenizer"):
        small().backbone.forward_features({"xyz": clouds}, mask=torch.zeros(4, 8, dtype=torch.bool))
    assert Ramp(1, 0).at(1e9) == 0
