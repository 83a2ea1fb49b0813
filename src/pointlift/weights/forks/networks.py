"""The `model:` section: which released class, its sizes as options of ours. What turns it is `weights/upstream`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pointlift.core.config import plain
from pointlift.core.errors import CheckpointError, FileFormatError, unknown_name
from pointlift.weights.forks.account import Account, Kind, flag, number, several, whole, word
from pointlift.weights.forks.datasets import WHOLE_SHAPENET, Clouds
from pointlift.weights.upstream import Upstream, upstream_for
from pointlift.weights.upstream.base import smoothing_in_torch


class Key(NamedTuple):
    """A key of a `model:` section: its kind, where its value goes, and whether the released code does without it."""

    kind: Kind
    ours: str
    optional: bool = False


@dataclass(frozen=True)
class Network:
    """A released class.

    Attributes:
        system, upstream: As in `weights/upstream`.
        keys: What its section may say.
        pretraining: Whether it is trained without labels.
        about: For the list of what is known.
    """

    system: str
    upstream: str
    keys: Mapping[str, Key]
    pretraining: bool = False
    about: str = ""


_MODEL, _OBJECTIVE = "model.options.", "objective.options."
_PATCHES = {
    "group_size": Key(whole, f"{_MODEL}group_size"),
    "num_group": Key(whole, f"{_MODEL}num_groups"),
}
_TRANSFORMER = {
    "trans_dim": Key(whole, f"{_MODEL}embed_dim"),
    "depth": Key(whole, f"{_MODEL}depth"),
    "drop_path_rate": Key(number, f"{_MODEL}drop_path"),
    "num_heads": Key(whole, f"{_MODEL}num_heads"),
}
_WIDTH = {"encoder_dims": Key(whole, f"{_MODEL}embed_dim")}
_CLASSIFIER = {**_TRANSFORMER, **_PATCHES, "cls_dim": Key(whole, "")}
_MASKED = {
    **_PATCHES,
    "loss": Key(word, f"{_OBJECTIVE}loss"),
    **{f"transformer_config.{name}": key for name, key in {**_TRANSFORMER, **_WIDTH}.items()},
    "transformer_config.mask_ratio": Key(number, f"{_OBJECTIVE}mask_ratio"),
    "transformer_config.mask_type": Key(word, f"{_OBJECTIVE}mask"),
    "transformer_config.decoder_depth": Key(whole, f"{_OBJECTIVE}decoder_depth"),
    "transformer_config.decoder_num_heads": Key(whole, f"{_OBJECTIVE}decoder_heads"),
}
_TOKENIZER = {
    **_PATCHES,
    "encoder_dims": Key(whole, f"{_MODEL}patch_dim"),
    "num_tokens": Key(whole, f"{_MODEL}num_codes"),
    "tokens_dims": Key(whole, f"{_OBJECTIVE}code_dim"),
    "decoder_dims": Key(whole, f"{_OBJECTIVE}decoder_dim"),
}
_BERT_TOKENIZER = {
    **_TOKENIZER,
    "num_tokens": Key(whole, f"{_OBJECTIVE}tokenizer.num_codes"),
    "tokens_dims": Key(whole, f"{_OBJECTIVE}dvae.code_dim"),
    "decoder_dims": Key(whole, f"{_OBJECTIVE}dvae.decoder_dim"),
}
_BERT = {
    "m": Key(number, f"{_OBJECTIVE}momentum"),
    "T": Key(number, f"{_OBJECTIVE}temperature"),
    "K": Key(whole, f"{_OBJECTIVE}queue"),
    **{f"transformer_config.{name}": key for name, key in _TRANSFORMER.items()},
    "transformer_config.mask_ratio": Key(several(number), f"{_OBJECTIVE}mask_ratio"),
    "transformer_config.mask_type": Key(word, f"{_OBJECTIVE}mask", optional=True),
    "transformer_config.cls_dim": Key(whole, f"{_OBJECTIVE}contrast_dim"),
    "transformer_config.replace_pob": Key(number, f"{_OBJECTIVE}replace", optional=True),
    "transformer_config.moco_loss": Key(flag, f"{_OBJECTIVE}momentum_loss", optional=True),
    "transformer_config.dvae_loss": Key(flag, f"{_OBJECTIVE}code_loss", optional=True),
    "transformer_config.cutmix_loss": Key(flag, f"{_OBJECTIVE}mix_loss", optional=True),
    "transformer_config.return_all_tokens": Key(flag, f"{_OBJECTIVE}predict", optional=True),
    **{f"dvae_config.{name}": key for name, key in _BERT_TOKENIZER.items()},
}
_LEVELS = {
    "group_sizes": Key(several(whole), f"{_MODEL}group_size"),
    "num_groups": Key(several(whole), f"{_MODEL}num_groups"),
    "encoder_depths": Key(several(whole), f"{_MODEL}depth"),
    "encoder_dims": Key(several(whole), f"{_MODEL}embed_dim"),
    "local_radius": Key(several(number), f"{_MODEL}radius"),
    "drop_path_rate": Key(number, f"{_MODEL}drop_path"),
    "num_heads": Key(whole, f"{_MODEL}num_heads"),
}
_HIERARCHICAL = {
    **_LEVELS,
    "mask_ratio": Key(number, f"{_OBJECTIVE}mask_ratio"),
    "decoder_depths": Key(several(whole), f"{_OBJECTIVE}decoder_depth"),
    "decoder_dims": Key(several(whole), f"{_MODEL}embed_dim"),
    "decoder_up_blocks": Key(several(whole), f"{_OBJECTIVE}up_blocks"),
}

_MAE, _BERT_CODE, _M2AE = "Pang-Yatian/Point-MAE:", "lulutang0608/Point-BERT:", "ZrrSkywalker/Point-M2AE:"
MAE_CLASSIFIER = Network(
    *("point-mae", f"{_MAE}models/Point_MAE.py:PointTransformer", {**_CLASSIFIER, **_WIDTH}),
    about="Point-MAE's classifier",
)
BERT_CLASSIFIER = Network(
    *("point-bert", f"{_BERT_CODE}models/Point_BERT.py:PointTransformer"),
    {**_CLASSIFIER, "encoder_dims": Key(whole, f"{_MODEL}patch_dim")},
    about="Point-BERT's classifier",
)
DVAE = Network("point-bert", f"{_BERT_CODE}models/dvae.py:DiscreteVAE", _TOKENIZER, True, "Point-BERT's dVAE")
POINT_BERT = Network(
    "point-bert", f"{_BERT_CODE}models/Point_BERT.py:Point_BERT", _BERT, True, "Point-BERT's pre-training"
)
# By NAME; "PointTransformer" is both classifiers.
NETWORKS = {
    "Point_MAE": Network(
        *("point-mae", f"{_MAE}models/Point_MAE.py:Point_MAE", _MASKED, True, "Point-MAE's pre-training")
    ),
    "PointTransformer": MAE_CLASSIFIER,
    "DiscreteVAE": DVAE,
    "Point_BERT": POINT_BERT,
    "Point_M2AE": Network(
        *("point-m2ae", f"{_M2AE}models/Point_M2AE.py:Point_M2AE", _HIERARCHICAL, True, "Point-M2AE's pre-training")
    ),
    "Point_M2AE_ModelNet40": Network(
        *("point-m2ae", f"{_M2AE}models/Point_M2AE_Finetune.py:Point_M2AE_ModelNet40"),
        {**_LEVELS, "smooth": Key(number, "label_smoothing", optional=True)},
        about="Point-M2AE's classifier of ModelNet40",
    ),
    "Point_M2AE_ScanObjectNN": Network(
        *("point-m2ae", f"{_M2AE}models/Point_M2AE_Finetune.py:Point_M2AE_ScanObjectNN", _LEVELS),
        about="Point-M2AE's classifier of ScanObjectNN",
    ),
}
_CHOICES = {"loss": ("cdl1", "cdl2"), "mask_type": ("rand", "block")}


def network_of(account: Account, system: str | None = None) -> Network:
    """The released class that `model.NAME` means.

    Args:
        system: Whose checkpoint goes with the configuration, where there is one: Point-MAE and Point-BERT call their
            classifiers alike. Without one the width of a patch tells them apart.

    Raises:
        UnknownNameError: None that is known.
    """
    name = account.read("model.NAME", word)
    if name not in NETWORKS:
        known = ", ".join(f"{n} ({network.about})" for n, network in NETWORKS.items())
        error = unknown_name("model NAME", name, NETWORKS)
        raise type(error)(f"{account.file}: no model NAME {name!r} is known", f"one of {known}", error.fix)
    network = NETWORKS[name]
    if network is not MAE_CLASSIFIER:
        return network
    widths = [account.read(f"model.{key}", whole, 0) for key in ("trans_dim", "encoder_dims")]
    if system is None:
        told = "as wide as" if widths[0] == widths[1] else "narrower than"
        found = MAE_CLASSIFIER if widths[0] == widths[1] else BERT_CLASSIFIER
        account.notes.append(f"patches are {told} tokens: {found.about}, not that of its sibling of the same name")
        return found
    return BERT_CLASSIFIER if system == "point-bert" else MAE_CLASSIFIER


def take_network(account: Account, network: Network, clouds: Clouds | None) -> Upstream:
    """Model, and objective where it is pre-trained, with all sizes."""
    section = _read_section(account, network)
    upstream = upstream_for(network.system, network.upstream)
    if upstream is None:
        raise KeyError(network.upstream)  # the table above names what is not there
    try:
        name, options = upstream.config(section)
    except (CheckpointError, ValueError, KeyError, IndexError, ArithmeticError) as error:
        given = error.given if isinstance(error, CheckpointError) else f"{type(error).__name__} {error}"
        raise FileFormatError(f"{account.file}: model: {given}", "sizes of a released model") from error
    options = plain(options)
    if upstream.kind == "objective":
        _put_objective(account, name, options)
    else:
        _put_classifier(account, network, name, options, section)
    account.put(
        "model.quirks",
        "upstream",
        "As released: the network computes as that code does, not as the paper says; our default, paper, differs.",
    )
    account.kept("model.NAME", "model.name")
    if network is DVAE:
        _put_ramps(account, clouds)
    if network is POINT_BERT:
        _put_teacher(account)
    return upstream


def _read_section(account: Account, network: Network) -> dict[str, Any]:
    """The keys that the released class reads, checked, nested as they were."""
    found: dict[str, Any] = {}
    for name, key in network.keys.items():
        where = f"model.{name}"
        value = account.read(where, key.kind, *((None,) if key.optional else ()))
        if value is None:
            continue
        *path, leaf = name.split(".")
        allowed = _CHOICES.get(leaf)
        if allowed is not None and value not in allowed:
            raise FileFormatError(f"{account.file}: {where} is {value!r}", f"one of {', '.join(allowed)}")
        node = found
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value
        if key.ours:
            account.kept(where, key.ours)
    return found


def _put_objective(account: Account, name: str, options: dict[str, Any]) -> None:
    backbone = options.pop("backbone_options")
    backbone.pop("num_classes", None)
    account.put("model.name", options.pop("backbone"))
    account.put("model.options", backbone)
    account.put("objective.name", name)
    account.put("objective.options", options)


def _put_classifier(
    account: Account, network: Network, name: str, options: dict[str, Any], section: Mapping[str, Any]
) -> None:
    outputs = options.pop("num_classes")
    account.put("model.name", name)
    account.put("model.options", options)
    account.ignored("model.cls_dim", f"the data set decides how many classes there are; released: {outputs}")
    if "smooth" in network.keys:
        smooth = section.get("smooth", 0.3)
        if not 0 <= smooth < 1:
            raise FileFormatError(f"{account.file}: model.smooth is {smooth}", "a number from 0 to below 1")
        account.put(
            "label_smoothing",
            smoothing_in_torch(smooth, outputs),
            f"Released: the others share {smooth}; PyTorch shares among all, the true class too. Our default is 0.",
        )
        account.kept("model.smooth", "label_smoothing", "PyTorch counts the true class among those that share")


def _put_ramps(account: Account, clouds: Clouds | None) -> None:
    """Temperature and weight of the divergence over the run; the first 10,000 steps without one are in the code."""
    for key, ours, begin in (("temp", "temperature", 0), ("kldweight", "divergence", 10_000)):
        where = f"{_OBJECTIVE}{ours}"
        ends = {"start": number, "target": number, "ntime": whole}
        start, end, steps = (account.read(f"{key}.{name}", kind) for name, kind in ends.items())
        account.put(where, {"start": start, "end": end, "begin": begin, "steps": steps})
        for name, own in {"start": "start", "target": "end", "ntime": "steps"}.items():
            account.kept(f"{key}.{name}", f"{where}.{own}")
    account.comments[f"{_OBJECTIVE}divergence"] = "The released code begins after 10,000 steps."
    batch = account.read("total_bs", whole)
    if clouds is not None and clouds.clouds and batch > 0:
        whole_set = account.read("dataset.train.others.whole", flag, False)
        epoch = (WHOLE_SHAPENET if whole_set else clouds.clouds) // batch
        account.put(
            f"{_OBJECTIVE}steps",
            max(1, epoch * account.recipe["epochs"]),
            "Steps of this run on the released data: a run of another length passes the ramps at its own pace.",
        )


def _put_teacher(account: Account) -> None:
    key = "model.dvae_config.ckpt"
    path = account.read(key, word, "")
    if path.endswith((".pth", ".pt", ".safetensors")):
        account.put(f"{_OBJECTIVE}teacher", path, "The trained dVAE: a run folder or a checkpoint.")
        account.kept(key, f"{_OBJECTIVE}teacher")
    else:
        account.ignored(key, "no path of a checkpoint")
        account.notes.append("the trained dVAE has to be named: --objective.options.teacher PATH")
