"""The hierarchy against the released one: classifiers, part segmenters and pre-training, any number of levels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from comparing import Gradients, compare_all
from states import released_state
from torch import Tensor, nn

from pointlift.models.base import PointModel
from pointlift.models.registry import create_model
from pointlift.pretrain.objective import Objective
from pointlift.pretrain.registry import create_objective
from pointlift.weights.load import load_state
from pointlift.weights.upstream import Upstream, point_m2ae

Results = dict[str, Callable[[], Tensor]]

# out-name of a level -> name in `Losses.found`.
FOUND = {
    "center{}": "level.{}.centers",
    "mask_level{}": "level.{}.mask",
    "token_embed{}": "level.{}.patch_tokens",
    "x_vis{}": "level.{}.visible",
    "valid_level{}": "level.{}.valid",
}


def check_m2ae(path: Path, upstream: Upstream, metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
    """Every `out/` tensor of the file, in evaluation mode and, where prefixed `train_`, in training mode."""
    released, config = released_state(path, metadata, tensors), json.loads(metadata["config"])
    if upstream.kind == "objective":
        name, options = upstream.config(config)
        module: nn.Module = create_objective(name, quirks="upstream", **options)
        run: Callable[..., Results] = _run_objective
    else:
        arch, sizes, _ = upstream.infer(released)
        told = upstream.config(config)[1]
        sizes |= {**told, "num_classes": sizes["num_classes"], "drop_path": 0.0, "head_dropout": 0.0}
        module = create_model(arch, quirks="upstream", **sizes)
        run = _run_parts if "in/cls_onehot" in tensors else _run_classifier
    renamed = upstream.rename(released)
    load_state(module, renamed.state, dropped=renamed.dropped)

    def results(training: bool) -> Gradients:
        module.train(training)
        module.zero_grad()
        found = run(module, tensors, config)
        buffers = {k: v.clone() for k, v in module.named_buffers()}
        if "svm_feature" in expected and not training:
            found["svm_feature"] = lambda: module.backbone({"xyz": tensors["in/points"]})
        return Gradients(found, upstream, dict(module.named_parameters()), buffers)

    expected = {k.removeprefix("out/") for k in tensors}
    compare_all(path.stem, tensors, results)


def _run_classifier(model: PointModel, tensors: dict[str, Tensor], config: dict[str, Any]) -> Results:
    """One forward and backward pass; each result under its name in the reference files."""
    depth = model.config.depth
    centers = {f"center{i}": f"level.{i}.centers" for i in range(len(depth))}
    last = f"level.{len(depth) - 1}.block.{depth[-1] - 1}"
    features = model.forward_features({"xyz": tensors["in/points"]}, taps=[*centers.values(), last])
    pooled = features.pool(model.config.pooling)
    logits, label = model.head(pooled), tensors["in/labels"]
    smoothing = 0.0
    if model.config.pooling == "mean_plus_max":  # the ModelNet40 class has its own loss
        smoothing = point_m2ae.label_smoothing(config, logits.shape[1])
    loss = F.cross_entropy(logits, label, label_smoothing=smoothing)
    loss.backward()
    return {
        "feature": lambda: pooled,
        "logits": lambda: logits,
        "loss": lambda: loss,
        "acc": lambda: 100 * (logits.argmax(1) == label).float().mean(),
        "encoder_tokens": lambda: features.taps[last],
        **{out: (lambda tap=tap: features.taps[tap]) for out, tap in centers.items()},
    }


def _run_parts(model: PointModel, tensors: dict[str, Tensor], config: dict[str, Any]) -> Results:
    """One forward and backward pass of a segmenter. Released features are (B, C, N), ours (B, N, C)."""
    batch = {"xyz": tensors["in/points"], "category": tensors["in/cls_onehot"].argmax(-1)}
    carried: list[Tensor] = []
    hooks = [m.register_forward_hook(lambda m, i, out: carried.append(out)) for m in model.head.propagations]
    features = model.forward_features(batch)
    log_probs = F.log_softmax(model.head(batch["xyz"], features.levels, batch["category"]), -1)
    for hook in hooks:
        hook.remove()
    loss = F.nll_loss(log_probs.flatten(0, 1), tensors["in/target"].long().flatten())
    loss.backward()
    found: Results = {"log_probs": lambda: log_probs, "loss": lambda: loss}
    for i, level in enumerate(features.levels):
        found[f"center{i}"] = lambda level=level: level.xyz
        found[f"level{i}_normed_bcn"] = lambda level=level: level.feats.transpose(1, 2).contiguous()
        found[f"propagated{i}"] = lambda i=i: carried[i].transpose(1, 2).contiguous()
    return found


def _run_objective(objective: Objective, tensors: dict[str, Tensor], config: dict[str, Any]) -> Results:
    """One forward and backward pass; the released numbers are of the hidden patches alone, ours of all."""
    losses = objective({"xyz": tensors["in/points"]}, {}, given={"mask": tensors["in/mask_top"].bool()})
    losses.total.backward()
    own = losses.found
    mask = own["level.1.mask"]
    found: Results = {
        "loss": lambda: losses.total,
        "decoder_tokens": lambda: own["decoded"],
        "rec_points": lambda: own["rebuilt"][mask],
        "gt_points": lambda: own["target"][mask],
    }
    points = tensors["in/points"].shape[1]
    for i, groups in enumerate(objective.backbone.config.num_groups):
        found |= {out.format(i): (lambda name=name.format(i): own[name]) for out, name in FOUND.items()}
        found[f"knn_flat_idx{i}"] = lambda i=i, n=points: _flat(own[f"level.{i}.members"], n)
        points = groups
    return found


def _flat(members: Tensor, count: int) -> Tensor:
    """Indices per cloud -> into all clouds one after another."""
    return (members + count * torch.arange(len(members)).view(-1, 1, 1)).flatten()
