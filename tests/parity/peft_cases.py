"""Point-PEFT against the released one: an adapted classifier, its groupings, its prompts and its gradients."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from comparing import compare
from states import released_state
from torch import Tensor

from pointlift.adapt.memory_bank import MemoryBank
from pointlift.adapt.registry import adapt_model
from pointlift.models.base import PointModel
from pointlift.models.registry import create_model
from pointlift.ops import gather, group
from pointlift.weights.load import load_state
from pointlift.weights.upstream import Upstream

Results = dict[str, Callable[[], Tensor]]

# The last of a block's name is what it is about; a hierarchy counts levels, a plain trunk has one.
BLOCK = re.compile(r"(?:level(\d+)\.)?block(\d+)(?:\.(attention|pooled_neighbourhood))?")


def adapted(upstream: Upstream, released: dict[str, Tensor], config: dict[str, Any], **options: Any) -> PointModel:
    """The released model: built by product code, adapted as its config says, every tensor loaded."""
    arch, sizes, _ = upstream.infer(released)
    sizes |= upstream.config(config)[1] | {"num_classes": sizes["num_classes"]} | options
    model = create_model(arch, **{"quirks": "upstream", **sizes})
    assert upstream.adaptation is not None
    kind = upstream.adaptation(released, config)
    adapt_model(model, kind.pop("name"), **kind)
    renamed = upstream.rename(released)
    report = load_state(model, renamed.state, dropped=renamed.dropped, expected_new=renamed.expected_new)
    assert len(report.loaded) == len(released)
    return model


def check_peft(path: Path, upstream: Upstream, metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
    """Every `out/` tensor of the file: `eval.…` in evaluation mode, `train.…` in training mode without chance."""
    config = json.loads(metadata["config"])
    model = adapted(upstream, released_state(path, metadata, tensors), config, drop_path=0.0, head_dropout=0.0)
    model.adapters["point_peft"].set_bank(MemoryBank(tensors["in/memory_bank"].T.contiguous()))
    trainable = json.loads(metadata["trainable"])
    learned = set(upstream.rename(dict.fromkeys(trainable, torch.zeros(1))).state)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == learned
    expected = {k.removeprefix("out/"): v for k, v in tensors.items() if k.startswith("out/")}
    features = [tensors[k] for k in sorted(tensors) if k.startswith("in/cp_feat")]
    batch = {"xyz": tensors["in/points"], "prior": features[-1], "label": tensors["in/labels"]}
    for training in (False, True):
        prefix = "train." if training else "eval."
        model.train(training)
        model.zero_grad()
        found = _run(model, batch, [k.removeprefix(prefix) for k in expected if k.startswith(prefix)])
        for name, value in expected.items():
            if name.startswith(prefix):
                name = name.removeprefix(prefix)
                kind = "grad/prompt_cor" if name == "grad.prompt_cor" else name
                kind = "logits" if kind.startswith("logits") else kind
                assert name in found, f"{path.stem}: {name} has no counterpart"
                where = f"{path.stem}: {prefix}{name}: {kind}"
                compare(where, found[name](), value, training=training, batch=len(batch["xyz"]), trained=2e-3)
    _check_norms(path.stem, upstream, dict(model.named_parameters()), json.loads(metadata.get("grad_norms", "{}")))


def _check_norms(stem: str, upstream: Upstream, parameters: dict[str, Tensor], norms: dict[str, float | None]) -> None:
    """The length of each gradient of the pass in training mode; none where the released parameter has none.

    BatchNorm over two clouds amplifies rounding: weights moved by 1e-7 of themselves move these lengths by up to 1 %,
    and a gate's, which is one number in which the terms of all rows cancel, by 5 %. What is zero in exact arithmetic
    (biases before a BatchNorm) comes out as up to 7e-4; the shortest other one of the known files is 0.45 long.
    """
    for name, expected in norms.items():
        ((ours, _),) = upstream.rename({name: torch.zeros(1, 1, 1)}).state.items()
        gradient = parameters[ours].grad
        assert (gradient is None) == (expected is None), f"{stem}: {name}: a gradient on one side only"
        if gradient is not None and expected is not None:
            share, found = 0.1 if gradient.numel() == 1 else 0.02, gradient.norm().item()
            assert abs(found - expected) <= share * expected + 2e-3, f"{stem}: {name}: {found:.6g}, not {expected:.6g}"


def _run(model: PointModel, batch: dict[str, Tensor], wanted: list[str]) -> Results:
    """One forward and backward pass; each result under its name in the reference files."""
    top = len(getattr(model.config, "depth", ())) - 1 if isinstance(model.config.depth, tuple) else 0
    taps = {name: _tap(*match.groups()) for name in wanted if (match := BLOCK.fullmatch(name))}
    taps |= {f"tokens{i}": f"level.{i}.patch_tokens" for i in range(top + 1)}
    taps |= {"tokens": "patch_tokens", "final_norm": "tokens"}
    features = model.forward_features(batch, taps=[tap for name, tap in taps.items() if name in wanted])
    logits = model.head(features.pool(model.config.pooling))
    loss = F.cross_entropy(logits, batch["label"])
    loss.backward()
    adapter: Any = model.adapters["point_peft"]
    found: Results = {
        "logits": lambda: logits,
        "loss": lambda: loss,
        "global_feature": lambda: features.pool(model.config.pooling),
        "cache_prompt": lambda: adapter.retrieve(batch["prior"]),
        "grad.prompt_cor": lambda: adapter.prompt_xyz.grad,
        "logits_each_cloud_alone": lambda: _alone(model, batch),
        **{name: (lambda tap=tap: features.taps[tap]) for name, tap in taps.items()},
    }
    return found | _groupings(model, batch["xyz"])


def _tap(level: str | None, block: str, part: str | None) -> str:
    name = f"level.{level or 0}.block.{block}"
    return name if part is None else f"{name}.{'pooled' if part.startswith('pooled') else part}"


def _alone(model: PointModel, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return torch.cat([model({k: v[i : i + 1] for k, v in batch.items()}) for i in range(len(batch["xyz"]))])


def _groupings(model: PointModel, xyz: Tensor) -> Results:
    """The clouds' patches (call 0), and those of the clouds with the prompts' coordinates in front (call 1)."""
    real = model.groups(xyz)
    adapter: Any = model.adapters["point_peft"]
    prompts = adapter.prompt_xyz.detach().expand(len(xyz), -1, -1)
    count, size = real[0].idx.shape[1:]
    first = group(torch.cat([prompts, xyz], 1), count, size, **adapter.rule)
    prompted, _ = adapter.surroundings(real)
    found: Results = {}

    def put(level: int, call: int, centers: Tensor, center_idx: Tensor, idx: Tensor, rows: int) -> None:
        names = [f"group_dividers{level}.call{call}."] + ([f"group_divider.call{call}."] if level == 0 else [])
        for name in names:
            found[name + "center"] = lambda: centers
            found[name + "flat_center_idx"] = lambda: _flat(center_idx, rows).int()
            found[name + "flat_knn_idx"] = lambda: _flat(idx, rows).int()

    put(0, 1, first.centers, first.center_idx, first.idx, first.points.shape[1])
    for i, level in enumerate(real):
        put(i, 0, level.centers, level.center_idx, level.idx, level.points.shape[1])
        if i:
            near = prompted[i - 1]
            put(i, 1, near.centers, near.center_idx, near.idx, level.points.shape[1])
            assert torch.equal(near.centers, gather(found[f"group_dividers{i - 1}.call1.center"](), near.center_idx))
    return found


def _flat(idx: Tensor, rows: int) -> Tensor:
    """Indices per cloud -> into all clouds one after another."""
    return (idx + rows * torch.arange(len(idx)).view(-1, *[1] * (idx.dim() - 1))).flatten()
