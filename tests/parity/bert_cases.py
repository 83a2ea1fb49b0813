"""Point-BERT's two objectives against the released ones: the discrete VAE and masked point modelling."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from comparing import Gradients, compare, compare_all
from states import released_state
from torch import Tensor

from pointlift.pretrain.bert import MaskedPointModelling
from pointlift.pretrain.dvae import DiscreteVAE
from pointlift.pretrain.objective import Objective
from pointlift.pretrain.registry import create_objective
from pointlift.weights.load import load_state
from pointlift.weights.upstream import Upstream

Found = dict[str, Callable[[], Tensor]]
CLEAR = 1e-4  # a code whose score leads by less may flip

# out-name -> name in `Losses.found`.
DVAE_FOUND = {
    "center": "centers",
    "encoder_tokens": "patch_tokens",
    "logits": "scores",
    "sampled": "sampled",
    "decoder_features": "features",
    "coarse": "coarse",
    "fine": "fine",
}
BERT_FOUND = {
    "mix_label": "mixed_codes",
    "q_cls_raw": "query_direction",
    "mix_cls_raw": "mixed_direction",
    "k_cls_raw": "key_direction",
    "masked_logits": "query_scores",
    "mix_masked_logits": "mixed_scores",
}
GIVEN = {
    "mask_q": "mask_query",
    "mask_mix": "mask_mixed",
    "mask_k": "mask_key",
    "mixup_ratio": "mix_ratio",
    "mixup_rand": "mix_chance",
}


def build(path: Path, upstream: Upstream, metadata: dict[str, str], tensors: dict[str, Tensor], **options) -> Objective:
    """The objective of a file, with its weights."""
    released = released_state(path, metadata, tensors)
    name, arguments = upstream.config(json.loads(metadata["config"]))
    objective = create_objective(name, quirks="upstream", **{**arguments, **options})
    renamed = upstream.rename(released)
    load_state(objective, renamed.state, dropped=renamed.dropped)
    return objective


def check_dvae(path: Path, upstream: Upstream, metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
    """Soft and hard choices, in evaluation and in training mode; names without a choice are those of the soft one."""
    objective = build(path, upstream, metadata, tensors)
    assert isinstance(objective, DiscreteVAE)
    expected = {k.removeprefix("out/"): v for k, v in tensors.items() if k.startswith("out/")}
    margin = expected.pop("token_top2_margin")
    compared = set()
    for training in (False, True):
        for kind in ("soft", "hard"):
            found = _run_dvae(objective, upstream, metadata, tensors, training=training, hard=kind == "hard")
            for name, value in expected.items():
                plain = name.removeprefix("train_")
                if name.startswith("train_") != training or not (plain.startswith(kind) or kind == "soft"):
                    continue
                own = plain.removeprefix(f"{kind}_")
                if own.startswith("hard_"):
                    continue
                result = found[own]()
                if own == "token_ids":
                    result = torch.where(margin > CLEAR, result, value)
                # Called logits there, they are activations in the middle of the network.
                where = f"{path.stem}: {own.replace('logits', 'scores')}"
                compare(where, result, value, training=training, batch=len(tensors["in/points"]))
                compared.add(name)
    assert compared == set(expected), f"{path.stem}: not compared: {set(expected) - compared}"


def _run_dvae(
    objective: DiscreteVAE,
    upstream: Upstream,
    metadata: dict[str, str],
    tensors: dict[str, Tensor],
    *,
    training: bool,
    hard: bool,
) -> Gradients:
    """One forward and backward pass with the file's noise and temperature."""
    objective.train(training)
    objective.zero_grad()
    (grouping,) = objective.backbone.groups(tensors["in/points"])
    gumbel = tensors["in/gumbel"] if "in/gumbel" in tensors else _gumbel(int(metadata["seed"]), objective, tensors)
    losses = objective.rebuild(grouping, gumbel, float(tensors["in/tau"]), 0.1, hard=hard)
    losses.total.backward()
    found: Found = {out: partial(losses.found.__getitem__, name) for out, name in DVAE_FOUND.items()}
    centers = losses.found["centers"].unsqueeze(2)
    for name in ("coarse", "fine"):
        found[f"whole_{name}"] = lambda name=name: (losses.found[name] + centers).flatten(1, 2)
    found |= {
        "token_ids": lambda: losses.found["codes"],
        "loss_recon": lambda: losses.terms["cd_l1"].reshape(1),
        "loss_kld": lambda: losses.terms["divergence"].reshape(1),
    }
    return Gradients(found, upstream, dict(objective.named_parameters()), {})


def _gumbel(seed: int, objective: DiscreteVAE, tensors: dict[str, Tensor]) -> Tensor:
    """The recipe in the notes of files that do not store the noise."""
    shape = (len(tensors["in/points"]), objective.backbone.config.num_groups, objective.backbone.config.num_codes)
    uniform = np.random.RandomState(seed).uniform(1e-6, 1 - 1e-6, shape)
    return torch.from_numpy((-np.log(-np.log(uniform))).astype(np.float32))


def check_bert(path: Path, upstream: Upstream, metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
    """Passes, losses with and without momentum contrast, gradients, and the state after a step of training."""
    plain = build(path, upstream, metadata, tensors)
    contrast = build(path, upstream, metadata, tensors, momentum_loss=True)
    after = {k: tensors.pop(k) for k in list(tensors) if k.startswith("out/after/")}
    compare_all(path.stem, tensors, lambda training: _run_bert(plain, contrast, upstream, tensors, training))
    state = plain.state_dict()
    for name, value in after.items():
        key = name.removeprefix("out/after/")
        if key == "queue_head":
            found = state["queue.keys"][: value.shape[1]].T
        else:
            ((ours, _),) = upstream.rename({key: torch.zeros(1, 1, 1)}).state.items()
            found = state[ours]
        compare(f"{path.stem}: {key}", found, value)


def _run_bert(
    plain: Objective, contrast: Objective, upstream: Upstream, tensors: dict[str, Tensor], training: bool
) -> Gradients:
    """One forward and backward pass of each, with the file's masks and mixing."""
    assert isinstance(plain, MaskedPointModelling)
    batch = {"xyz": tensors["in/points"]}
    given = {name: tensors[f"in/{key}"] for key, name in GIVEN.items()}
    for objective in (plain, contrast):
        objective.train(training).zero_grad()
    losses, with_momentum = plain(batch, {}, given=given), contrast(batch, {}, given=given)
    losses.total.backward()
    terms, more = losses.terms, with_momentum.terms
    found: Found = {out: partial(losses.found.__getitem__, name) for out, name in BERT_FOUND.items()}
    found |= {
        "dvae_label": lambda: losses.found["codes"],
        "loss_1": lambda: terms["codes"].reshape(1),
        "loss_2": lambda: terms["mix"].reshape(1),
        "moco_loss_1": lambda: (more["codes"] + more["momentum"]).reshape(1),
        "moco_loss_2": lambda: more["mix"].reshape(1),
        "svm_feature": lambda: plain.contrast_features(batch),
    }
    return Gradients(found, upstream, dict(plain.named_parameters()), {})


# By what the released class holds.
BERT_CHECKS = {"discrete VAE": check_dvae, "pre-training model with a tokenizer": check_bert}
