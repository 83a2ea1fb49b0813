"""Classifiers and part segmenters against the released ones: built by product code, compared through taps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch.nn.functional as F
from comparing import Gradients, compare_all
from states import released_state
from torch import Tensor

from pointlift.models.base import PointModel
from pointlift.models.registry import create_model
from pointlift.weights.load import load_state
from pointlift.weights.upstream import Upstream
from pointlift.weights.upstream.base import smoothing_in_torch

# out-name -> tap of `forward_features`.
TAPS = {"center": "centers", "group_tokens": "patch_tokens", "tokens_normed": "tokens"}
SMOOTHING = 0.2  # of Point-BERT's second loss


def check_classifier(path: Path, upstream: Upstream, metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
    """Every `out/` tensor of the file, in evaluation mode and, where prefixed `train_`, in training mode."""
    released = released_state(path, metadata, tensors)
    arch, sizes, _ = upstream.infer(released)
    sizes |= upstream.config(json.loads(metadata["config"]))[1]
    # Training mode is compared without chance: the references were made so.
    model = create_model(arch, quirks="upstream", **(sizes | {"drop_path": 0.0, "head_dropout": 0.0}))
    renamed = upstream.rename(released)
    load_state(model, renamed.state, dropped=renamed.dropped)
    batch = {"xyz": tensors["in/points"]}
    if "in/cls_onehot" in tensors:
        batch |= {"category": tensors["in/cls_onehot"].argmax(-1), "part": tensors["in/target"].long()}
        compare_all(path.stem, tensors, lambda training: _run_parts(model, batch, upstream, training))
        return
    batch["label"] = tensors["in/labels"]
    compare_all(path.stem, tensors, lambda training: _run(model, batch, upstream, training))


def _run(
    model: PointModel, batch: dict[str, Tensor], upstream: Upstream, training: bool
) -> dict[str, Callable[[], Tensor]]:
    """One forward and backward pass; each result under its name in the reference files."""
    model.train(training)
    model.zero_grad()
    features = model.forward_features(batch, taps=TAPS.values())
    pooled = features.pool(model.config.pooling)
    logits = model.head(pooled)
    loss = F.cross_entropy(logits, batch["label"])
    smooth = F.cross_entropy(logits, batch["label"], label_smoothing=smoothing_in_torch(SMOOTHING, logits.shape[1]))
    loss.backward()
    accuracy = 100 * (logits.argmax(1) == batch["label"]).float().mean()
    found: dict[str, Callable[[], Tensor]] = {
        "feature": lambda: pooled,
        "logits": lambda: logits,
        "loss": lambda: loss.reshape(1),
        "loss_ce": lambda: loss.reshape(1),
        "loss_smooth": lambda: smooth.reshape(1),
        "acc": lambda: accuracy.reshape(1),
    }
    for name, tap in TAPS.items():
        found[name] = lambda tap=tap: features.taps[tap]
    return Gradients(found, upstream, dict(model.named_parameters()), dict(model.named_buffers()))


# out-name -> tap, and module whose output it is.
PART_TAPS = {"center": "centers", "group_tokens": "patch_tokens"} | {
    f"block{i}": f"level.0.block.{i}" for i in range(12)
}
PART_MODULES = {
    "label_feature": "head.category",
    "propagated": "head.propagation",
    **{f"propagation_{i}": f"head.lift.{i - 1}" for i in (1, 2)},
    **{f"dgcnn_pro_{i}": f"head.steps.{i - 1}" for i in (1, 2)},
}


def _run_parts(
    model: PointModel, batch: dict[str, Tensor], upstream: Upstream, training: bool
) -> dict[str, Callable[[], Tensor]]:
    """One forward and backward pass of a segmenter. Released features are (B, C, N), ours (B, N, C)."""
    model.train(training)
    model.zero_grad()
    outputs: dict[str, Tensor] = {}
    modules = dict(model.named_modules())
    hooks = [
        modules[name].register_forward_hook(lambda m, i, out, key=key: outputs.__setitem__(key, out))
        for key, name in PART_MODULES.items()
        if name in modules
    ]
    log_probs = F.log_softmax(model(batch), -1)
    for hook in hooks:
        hook.remove()
    loss = F.nll_loss(log_probs.flatten(0, 1), batch["part"].flatten())
    loss.backward()
    features = model.forward_features(batch, taps=PART_TAPS.values())
    found: dict[str, Callable[[], Tensor]] = {
        "log_probs": lambda: log_probs,
        "loss": lambda: loss.reshape(1),
        "label_feature": lambda: outputs["label_feature"].unsqueeze(-1),
        "f_level_3": lambda: _last_block(model, features.taps).transpose(1, 2).contiguous(),
    }
    for name in PART_MODULES.keys() & outputs.keys() - {"label_feature"}:
        found[name] = lambda name=name: outputs[name].transpose(1, 2).contiguous()
    for name, tap in PART_TAPS.items():
        found[name] = lambda tap=tap: features.taps[tap]
    return Gradients(found, upstream, dict(model.named_parameters()), dict(model.named_buffers()))


def _last_block(model: PointModel, taps: dict[str, Tensor]) -> Tensor:
    """Patches behind the last block that the head reads, normed."""
    config = model.config
    return model.trunk.norm(taps[f"level.0.block.{config.part_head.fetch[-1]}"][:, -config.num_groups :])
