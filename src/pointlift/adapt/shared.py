"""Several adapters on one frozen trunk, switched per request at no cost.

Every adapter becomes a model of its own whose frozen tensors *are* the base's: the same memory, never a copy. Nothing
is switched on or off to go from one to another, so requests may run in threads side by side.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pointlift.adapt.base import adaptation_options
from pointlift.adapt.io import apply_file, base_file, base_tensors, base_weights, check_fits
from pointlift.adapt.memory_bank import Remembering
from pointlift.adapt.prior import Prior
from pointlift.core.config import to_dict
from pointlift.core.errors import CheckpointMismatchError, UsageError, unknown_name
from pointlift.models.base import HEAD_FIELDS, PointModel
from pointlift.models.features import PointFeatures
from pointlift.models.registry import MODELS, from_file, sketch
from pointlift.ops import Grouping
from pointlift.weights.hub import short_name
from pointlift.weights.load import load_state
from pointlift.weights.modelfile import ModelFile, read_model_file

# Fields of a config that change neither how clouds are cut into patches nor what the trunk makes of them in evaluation.
_BESIDE_THE_TRUNK = (*HEAD_FIELDS, "head_dropout", "drop_path")


class SharedTrunk:
    """Adapters by name, on one base.

    Attributes:
        base: The frozen trunk. Whoever changes it changes every model.
        models: Name -> a model in evaluation mode, whose frozen tensors are the base's.
        paths: Name -> the adapter's file.

    Example:
        >>> shared = SharedTrunk("base.safetensors", ["chairs.safetensors", "tools.safetensors"])  # doctest: +SKIP
        >>> pl.predict(shared, "cloud.ply")["tools"].label  # doctest: +SKIP
    """

    def __init__(
        self,
        base: PointModel | str | Path | None,
        adapters: Mapping[str, str | Path] | Iterable[str | Path],
        *,
        device: str | torch.device | None = None,
    ) -> None:
        """
        Args:
            base: A model without an adaptation, its file, or the name of weights or of an architecture with default
                ones (`adapt.io.base_weights`); None takes the base that the first adapter names.
            adapters: Adapter files by name, or in order: then each is called as its file, without the ending, or as its
                folder where the file is a run's `adapter.safetensors`.
            device: Where to compute; the base is moved there. None: where it is.

        Raises:
            UsageError: No adapters, two of one name, or a base that is adapted itself.
            CheckpointError: A file that cannot be read, is no adapter, or names a base that is not there.
            CheckpointMismatchError: An adapter of another base, or of another kind of network.
        """
        self.paths = _named(adapters)
        files = {name: read_model_file(path) for name, path in self.paths.items()}
        for file in files.values():
            adaptation_options(file)
        if not isinstance(base, PointModel):
            first = next(iter(files.values()))
            base = from_file(base_file(first) if base is None else base_weights(base)).eval()
        self.base = base
        self.base.check_not_adapted()
        if device is not None:  # now: models that are moved one by one would not share memory any more
            self.base.to(device)
        self.models = {name: _on_base(self.base, file) for name, file in files.items()}
        self._cut = {name: _of_trunk(model) for name, model in self.models.items()}
        self._alone = {name for name, model in self.models.items() if _is_a_head_alone(model)}
        self._asks = _who_ask_alike(self.models, self._cut)

    def __iter__(self) -> Iterator[str]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)

    def __getitem__(self, name: str) -> PointModel:
        """The model of one adapter; `UnknownNameError` for another name."""
        if name not in self.models:
            raise unknown_name("adapter", name, self.models)
        return self.models[name]

    def logits(self, batch: Mapping[str, Tensor], names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """What each adapter's model says of a batch, computing once what is common.

        Clouds are cut into patches once; adapters that are a head alone share one pass through the trunk, and those
        that look things up in memory banks with the same frozen network share its pass (`adapt.prior`).

        Args:
            batch: As the models read it; `xyz` (B, N, 3).
            names: Which adapters; all when None.

        Returns:
            Name -> logits (B, classes of that adapter).
        """
        groups: dict[str, list[Grouping]] = {}
        plain: dict[str, PointFeatures] = {}
        queries: dict[str, Tensor] = {}
        found = {}
        names = list(self.models) if names is None else names
        asking = Counter(self._asks[name] for name in names if name in self._asks)
        for name in names:
            model, cut = self[name], self._cut[name]
            if cut not in groups:
                groups[cut] = model.groups(batch["xyz"])
            alike = asking[self._asks.get(name, "")]
            given = batch if alike < 2 else self._with_query(name, batch, groups[cut], queries)
            if model.config.head == "parts":  # its head reads what no other does
                found[name] = model(given)
                continue
            features = plain.get(cut) if name in self._alone else None
            if features is None:
                features = model.forward_features(given, groups=groups[cut])
            if name in self._alone:
                plain[cut] = features
            found[name] = model.logits(features)
        return found

    def _with_query(
        self, name: str, batch: Mapping[str, Tensor], levels: Sequence[Grouping], queries: dict[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """The batch with what the model's frozen network says of it, kept in `queries` for those who ask the same."""
        prior = _prior(self[name])
        if prior is None or "prior" in batch:  # the adapter was taken off; or the caller has asked
            return batch
        first = self._asks[name]
        if first not in queries:
            queries[first] = prior(batch, levels)
        return {**batch, "prior": queries[first]}


def _named(adapters: Mapping[str, str | Path] | Iterable[str | Path]) -> dict[str, str | Path]:
    if isinstance(adapters, str | Path):
        raise UsageError(f"adapters {str(adapters)!r}", "a list of adapter files, or a dict by name")
    if isinstance(adapters, Mapping):
        named = {str(name): path for name, path in adapters.items()}
    else:
        named = {}
        for path in adapters:
            name = short_name(path)
            if name == "adapter" and (folder := Path(path).resolve().parent.name):  # as every run calls its own
                name = folder
            if name in named:
                raise UsageError(
                    f"two adapters are called {name!r}: {named[name]} and {path}",
                    "files of different names, or a dict {name: path}",
                )
            named[name] = path
    if not named:
        raise UsageError("no adapters", "at least one adapter file")
    return named


def _of_trunk(model: PointModel) -> str:
    """What decides the patches and the trunk of a model: equal texts stand for equal computations."""
    config = {k: v for k, v in to_dict(model.config).items() if k not in _BESIDE_THE_TRUNK}
    return json.dumps(config, sort_keys=True)


def _is_a_head_alone(model: PointModel) -> bool:
    """Whether an adapter leaves the trunk as the base has it."""
    return not model.adapters and all(key.startswith("head.") for key in model.adaptation.carried())


def _prior(model: PointModel) -> Prior | None:
    """The frozen network that asks the model's memory bank, where it has one."""
    inserted = None if model.adaptation is None else model.adaptation.inserted
    return inserted.prior if isinstance(inserted, Remembering) else None


def _who_ask_alike(models: Mapping[str, PointModel], cuts: Mapping[str, str]) -> dict[str, str]:
    """Of each model with a memory bank, the first one whose frozen network says the same of the same patches."""
    asking: dict[str, str] = {}
    first: dict[str, Prior] = {}
    for name, model in models.items():
        prior = _prior(model)
        if prior is None:
            continue
        asking[name] = next((n for n, known in first.items() if cuts[n] == cuts[name] and prior.same_as(known)), name)
        first.setdefault(asking[name], prior)
    return asking


def _on_base(base: PointModel, file: ModelFile) -> PointModel:
    """The model of an adapter file: the base's tensors themselves, and memory of its own for what the file holds."""
    if MODELS.get(file.arch).network is not MODELS.get(base.arch).network:
        raise CheckpointMismatchError(
            f"{file.path} adapts {file.arch}, and the base is {base.arch}", "adapters of one base"
        )
    model = sketch(file)
    check_fits(model, file, with_head=False)
    given = base_tensors(model, base.base_state(), file)
    try:  # that all fit; the model has no memory yet, so nothing is copied
        model.load_report = load_state(model, given, expected_new=tuple(file.state))
    except CheckpointMismatchError as error:
        raise CheckpointMismatchError(
            f"{file.path} on this {base.arch}: {error.given}", "the base that it adapts"
        ) from None
    device = next(base.parameters()).device
    own = {k: given.get(k, file.state[k]).to(device, copy=True) for k in model.base_state() if k in file.state}
    model.load_state_dict({**given, **own}, assign=True)
    model.origin = base.origin
    apply_file(model, file)
    return model.eval()
