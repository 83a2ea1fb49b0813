"""Classifiers against the released ones: built by product code, compared through taps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from states import released_state
from torch import Tensor

from pointlift.models.base import PointModel
from pointlift.models.registry import create_model
from pointlift.weights.load import load_state
from pointlift.weights.upstream import Upstream

# out-name -> tap of `forward_features`.
TAPS = {"center": "centers", "group_tokens": "patch_tokens", "tokens_normed": "tokens"}


def check_classifier(path: Path, upstream: Upstream, metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
    """Every `out/` tensor of the file, in evaluation mode and, where prefixed `train_`, in training mode."""
    released = released_state(path, metadata, tensors)
    arch, sizes, _ = upstream.infer(released)
    sizes |= upstream.config(json.loads(metadata["config"]))[1]
    model = create_model(arch, quirks="upstream", **sizes, head_dropout=0.0)
    renamed = upstream.rename(released)
    load_state(model, renamed.state, dropped=renamed.dropped)
    batch = {"xyz": tensors["in/points"], "label": tensors["in/labels"]}
    expected = {k.removeprefix("out/"): v for k, v in tensors.items() if k.startswith("out/")}
    compared = set()
    for prefix, training in (("", False), ("train_", True)):
        model.train(training)
        found = _run(model, batch, upstream)
        for name, value in expected.items():
            if name.startswith("train_") == training:
                key = name.removeprefix(prefix)
                assert key in found, f"{path.stem}: out/{name} has no counterpart"
                _compare(f"{path.stem}: {name}", found[key](), value, training=training, batch=len(batch["xyz"]))
                compared.add(name)
    assert compared == set(expected), f"{path.stem}: not compared: {set(expected) - compared}"


def _run(model: PointModel, batch: dict[str, Tensor], upstream: Upstream) -> dict[str, Callable[[], Tensor]]:
    """One forward and backward pass; each result under its name in the reference files."""
    model.zero_grad()
    features = model.forward_features(batch, taps=TAPS.values())
    pooled = features.pool(model.config.pooling)
    logits = model.head(pooled)
    loss = F.cross_entropy(logits, batch["label"])
    loss.backward()
    accuracy = 100 * (logits.argmax(1) == batch["label"]).float().mean()
    gradients = {k: p.grad for k, p in model.named_parameters()}

    found: dict[str, Callable[[], Tensor]] = {
        "feature": lambda: pooled,
        "logits": lambda: logits,
        "loss": lambda: loss.reshape(1),
        "acc": lambda: accuracy.reshape(1),
    }
    for name, tap in TAPS.items():
        found[name] = lambda tap=tap: features.taps[tap]

    class Gradients(dict):
        """`grad/<released key>`, found through the same renaming that loads checkpoints."""

        def __contains__(self, name: object) -> bool:
            return super().__contains__(name) or str(name).startswith("grad/")

        def __missing__(self, name: str) -> Callable[[], Tensor]:
            ((ours, _),) = upstream.rename({name.removeprefix("grad/"): torch.zeros(1, 1, 1)}).state.items()
            return lambda: gradients[ours]

    return Gradients(found)


def _compare(name: str, found: Tensor, expected: Tensor, *, training: bool, batch: int) -> None:
    found = found.detach().reshape(expected.shape)
    if not expected.is_floating_point():
        assert torch.equal(found, expected), f"{name} differs"
        return
    kind = name.rsplit(": ", 1)[1].removeprefix("train_")
    if kind.startswith("grad/"):
        # Statistics over a few clouds amplify rounding.
        tolerance = (1e-2 if training and batch < 8 else 1e-3) * expected.abs().max().item() + 1e-7
    elif kind in ("logits", "loss"):
        tolerance = 1e-3 if training else 1e-5
    else:
        tolerance = 1e-3 if training and kind == "feature" else 1e-4
    error = (found - expected).abs().max().item()
    assert error <= tolerance, f"{name} is off by {error:.2e}, allowed {tolerance:.1e}"
