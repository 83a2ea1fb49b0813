from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from engine_toy import network
from torch import nn

from pointlift.core.errors import UsageError
from pointlift.engine.config import OptimConfig
from pointlift.engine.optim import (
    build_optimizer,
    clip_gradients,
    load_optimizer_tensors,
    optimizer_tensors,
    param_groups,
    set_learning_rate,
)

MANIFESTS = sorted((Path(__file__).parents[1] / "parity" / "files").glob("point-*finetune*.keys.json"))


def skeleton(shapes: dict[str, list[int]]) -> nn.Module:
    """A module tree with parameters of these dotted names, without memory."""
    root = nn.Module()
    for path, shape in shapes.items():
        *parents, name = path.split(".")
        module = root
        for part in parents:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        module.register_parameter(name, nn.Parameter(torch.empty(shape, device="meta")))
    return root


def without_decay(module: nn.Module, config: OptimConfig) -> set[str]:
    return {n for g in param_groups(module, config) if g["weight_decay"] == 0 for n in g["names"]}


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name.split(".")[0])
def test_released_rule_exempts_what_the_released_code_does(manifest: Path) -> None:
    content = json.loads(manifest.read_text())
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    shapes = {name: shape for name, shape in content["keys"].items() if not name.endswith(buffers)}
    exempt = without_decay(skeleton(shapes), OptimConfig(no_weight_decay="released"))
    assert exempt == set(content["no_weight_decay"])


def test_standard_rule_asks_the_modules() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
            self.token_mixer = nn.Linear(4, 4)
            self.norm = nn.LayerNorm(4)

        def no_weight_decay(self) -> set[str]:
            return {"cls_token"}

    inner = nn.Sequential(Tokens(), nn.Linear(4, 2))
    ones = {"0.norm.weight", "0.norm.bias", "0.token_mixer.bias", "1.bias"}
    assert without_decay(inner, OptimConfig()) == ones | {"0.cls_token"}
    released = without_decay(inner, OptimConfig(no_weight_decay="released"))
    assert released == ones | {"0.cls_token", "0.token_mixer.weight"}


def test_groups_hold_every_trainable_parameter_once() -> None:
    module = network()
    module[0].weight.requires_grad_(False)
    groups = param_groups(module, OptimConfig())
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(n for n, p in module.named_parameters() if p.requires_grad)
    for group in groups:
        assert [id(p) for p in group["params"]] == [id(module.get_parameter(n)) for n in group["names"]]


def test_lr_scales_take_the_longest_prefix_of_whole_names() -> None:
    module = nn.ModuleDict({"blocks": nn.ModuleList(nn.Linear(2, 2) for _ in range(11)), "head": nn.Linear(2, 2)})
    config = OptimConfig(lr=0.5, lr_scales={"blocks": 0.5, "blocks.1": 0.1, "head.weight": 4})
    scales = {n: g["lr_scale"] for g in param_groups(module, config) for n in g["names"]}
    assert scales["blocks.1.weight"] == 0.1
    assert scales["blocks.10.weight"] == 0.5
    assert scales["head.weight"] == 4
    assert scales["head.bias"] == 1
    optimizer = build_optimizer(module, config)
    set_learning_rate(optimizer, 0.2)
    assert {g["lr_scale"]: g["lr"] for g in optimizer.param_groups} == pytest.approx(
        {0.5: 0.1, 0.1: 0.02, 4: 0.8, 1: 0.2}
    )


def test_a_prefix_that_fits_nothing_names_the_nearest() -> None:
    module = nn.ModuleDict({"blocks": nn.Linear(2, 2)})
    with pytest.raises(UsageError, match="Did you mean 'blocks'"):
        param_groups(module, OptimConfig(lr_scales={"block": 0.5}))


def test_nothing_trainable_is_an_error() -> None:
    with pytest.raises(UsageError, match="none of the 6 parameters is trainable"):
        param_groups(network().requires_grad_(False), OptimConfig())


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_fused_steps_equal_the_plain_optimiser(name: str) -> None:
    config = OptimConfig(name, lr=0.1, weight_decay=0.1)
    module, twin = network(), network()
    optimizer = build_optimizer(module, config)
    assert all(group["fused"] for group in optimizer.param_groups)
    groups = [{k: g[k] for k in ("params", "weight_decay")} for g in param_groups(twin, config)]
    kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    extra = {"momentum": 0.9} if name == "sgd" else {}
    plain = kinds[name](groups, lr=0.1, foreach=False, **extra)
    for seed in range(3):
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(seed))
        for model, stepper in ((module, optimizer), (twin, plain)):
            model.eval()
            stepper.zero_grad()
            model(x).square().sum().backward()
            stepper.step()
    for a, b in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("limit", [None, 0.5, 1e6])
def test_clipping_scales_the_whole_gradient(limit: float | None) -> None:
    module = network()
    optimizer = build_optimizer(module, OptimConfig())
    module(torch.randn(8, 6)).square().sum().backward()
    before = [p.grad.clone() for p in module.parameters()]
    norm = math.sqrt(sum(float(g.square().sum()) for g in before))
    assert float(clip_gradients(optimizer, limit)) == pytest.approx(norm, rel=1e-5)
    factor = 1.0 if limit is None else min(1.0, limit / norm)
    for parameter, grad in zip(module.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.grad, grad * factor, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_state_goes_back_by_name(name: str) -> None:
    module = network()
    optimizer = build_optimizer(module, OptimConfig(name))
    module(torch.randn(8, 6)).square().sum().backward()
    optimizer.step()
    tensors = {k: v.clone() for k, v in optimizer_tensors(optimizer).items()}
    assert {"0.weight/exp_avg", "0.weight/step"} <= tensors.keys() or name == "sgd"
    # Another split into groups: the order of the parameters changes, their names do not.
    other = build_optimizer(module, OptimConfig(name, lr_scales={"4": 2.0}))
    load_optimizer_tensors(other, tensors)
    back = optimizer_tensors(other)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[key], tensors[key]) for key in tensors)
    assert {g["lr_scale"] for g in other.param_groups} == {1.0, 2.0}
