"""Pre-training objectives against the released ones: the given masks, then losses, intermediates and gradients."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from comparing import Gradients, compare, compare_all
from states import released_state
from torch import Tensor

from pointlift.pretrain.masked import CHAMFER
from pointlift.pretrain.masking import block_mask, num_hidden, random_mask
from pointlift.pretrain.objective import Losses, Objective
from pointlift.pretrain.registry import create_objective
from pointlift.weights.load import load_state
from pointlift.weights.upstream import Upstream

# out-name -> name in `Losses.found`.
FOUND = {
    "center": "centers",
    "neighborhood": "neighborhoods",
    "group_tokens": "patch_tokens",
    "x_vis": "visible",
    "x_rec": "decoded",
    "rebuild_points": "rebuilt",
    "gt_points": "target",
}


def check_objective(path: Path, upstream: Upstream, metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
    """Every `out/` tensor of the file, in evaluation mode and, where prefixed `train_`, in training mode."""
    released = released_state(path, metadata, tensors)
    name, options = upstream.config(json.loads(metadata["config"]))
    objective = create_objective(name, quirks="upstream", **options)
    renamed = upstream.rename(released)
    load_state(objective, renamed.state, dropped=renamed.dropped)
    batch = {"xyz": tensors["in/points"]}
    given = {k.removeprefix("in/"): v for k, v in tensors.items() if k.startswith("in/") and k != "in/points"}
    compare_all(path.stem, tensors, lambda training: _run(objective, batch, given, upstream, training))


def _run(
    objective: Objective, batch: dict[str, Tensor], given: dict[str, Tensor], upstream: Upstream, training: bool
) -> dict[str, Callable[[], Tensor]]:
    """One forward and backward pass; each result under its name in the reference files."""
    objective.train(training)
    objective.zero_grad()
    losses = objective(batch, {}, given=given)
    losses.total.backward()
    buffers = {k: v.clone() for k, v in objective.named_buffers()}
    found: dict[str, Callable[[], Tensor]] = {
        out: (lambda name=name: losses.found[name]) for out, name in FOUND.items() if name in losses.found
    }
    for kind in CHAMFER:
        found["loss_" + kind.replace("_", "")] = lambda kind=kind: _chamfer(kind, losses)
    if not training:
        found |= _picture(objective, batch, given, losses)
    return Gradients(found, upstream, dict(objective.named_parameters()), buffers)


def _chamfer(kind: str, losses: Losses) -> Tensor:
    return CHAMFER[kind](losses.found["rebuilt"], losses.found["target"]).reshape(1)


def _picture(
    objective: Objective, batch: dict[str, Tensor], given: dict[str, Tensor], losses: Losses
) -> dict[str, Callable[[], Tensor]]:
    """The released picture flattens the batch: all visible patches, then all rebuilt ones."""
    picture = objective.show(batch, {}, given)
    hidden, centers = picture.hidden, picture.centers
    return {
        "vis_visible_points": lambda: picture.given.reshape(1, -1, 3),
        "vis_full_points": lambda: torch.cat([picture.given.reshape(1, -1, 3), picture.rebuilt.reshape(1, -1, 3)], 1),
        "vis_centers": lambda: torch.cat([centers[hidden], centers[~hidden]]),
    }


def check_masking(path: Path, metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
    """The masks themselves, from the released random numbers."""
    centers, anchor = tensors["in/center"], tensors["in/block_anchor_index"]
    ratio = json.loads(metadata["config"])["transformer_config"]["mask_ratio"]
    hidden = num_hidden(centers.shape[1], ratio)
    rng = np.random.RandomState(int(metadata["seed"]))
    # Shuffling zeros and ones takes the same random numbers as permuting positions.
    order = torch.from_numpy(np.stack([rng.permutation(centers.shape[1]) for _ in centers]))
    compare(f"{path.stem}: mask_rand", random_mask(order, hidden), tensors["out/mask_rand"].bool())
    compare(f"{path.stem}: mask_block", block_mask(centers, anchor.long(), hidden), tensors["out/mask_block"].bool())
