"""A strict load that says what happened to every tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pointlift.core.errors import CheckpointMismatchError, did_you_mean


@dataclass(frozen=True)
class LoadReport:
    """What a load did, tensor by tensor.

    Attributes:
        loaded: Our keys that took the checkpoint's values.
        derived: Our keys computed from other tensors of the checkpoint.
        dropped: Checkpoint keys left out on purpose.
        new: Our keys that keep their initial values on purpose.
        unexplained: Anything else, with the reason; a load with any of these fails.
        assumed: What the tensors do not tell and was taken from the released configs.
    """

    loaded: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    unexplained: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = [
            f"{len(self.loaded)} loaded",
            f"{len(self.derived)} derived",
            f"{len(self.dropped)} dropped on purpose",
            f"{len(self.new)} new",
            f"{len(self.unexplained)} unexplained",
        ]
        return ", ".join(counts) + (f"; assumed: {'; '.join(self.assumed)}" if self.assumed else "")


def load_state(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    dropped: Sequence[str] = (),
    derived: Sequence[str] = (),
    expected_new: Sequence[str] = (),
) -> LoadReport:
    """Copy `state` into `module`; nothing is changed unless everything is explained.

    Args:
        dropped: Checkpoint keys left out on purpose.
        derived: Keys of `state` that were computed from other tensors.
        expected_new: Prefixes of the module's keys that the checkpoint need not hold.

    Raises:
        CheckpointMismatchError: A tensor without a place, a place without a tensor, a shape that differs, or
            nothing to load at all.
    """
    own = module.state_dict()
    dropped_set = set(dropped)
    state = {k: v for k, v in state.items() if k not in dropped_set}
    fits = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    wrong = [
        f"{k} is {tuple(v.shape)}, the model has {tuple(own[k].shape)}"
        for k, v in state.items()
        if k in own and own[k].shape != v.shape
    ]
    homeless = [f"{k} {tuple(v.shape)} has no place in the model" for k, v in state.items() if k not in own]
    absent = [k for k in own if k not in state]
    # A counter that only a BatchNorm without momentum reads; some writers leave it out.
    new = [k for k in absent if k.startswith(tuple(expected_new)) or k.endswith("num_batches_tracked")]
    missing = [f"{k} {tuple(own[k].shape)} is not in the checkpoint" for k in absent if k not in set(new)]
    unexplained = (*wrong, *missing, *homeless)
    if unexplained or not fits:
        raise _mismatch(state, own, unexplained)
    with torch.no_grad():
        for key, value in fits.items():
            own[key].copy_(value)
    loaded = tuple(k for k in fits if k not in set(derived))
    return LoadReport(loaded, tuple(derived), tuple(dropped), tuple(new), ())


def _mismatch(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], unexplained: Sequence[str]
) -> CheckpointMismatchError:
    hint = "`pointlift info FILE` says what a checkpoint holds"
    if not state.keys() & own.keys():
        key = next(iter(state), "")
        first = f" (first: {key}.{did_you_mean(key, own)})" if key else ""
        return CheckpointMismatchError(
            f"none of the {len(state)} tensors is called like one of the model's {len(own)}{first}",
            "a checkpoint of this architecture",
            hint,
        )
    shown = "; ".join(unexplained[:4]) + (f"; and {len(unexplained) - 4} more" if len(unexplained) > 4 else "")
    return CheckpointMismatchError(
        f"{len(unexplained)} tensors are unexplained: {shown}", "a checkpoint of this architecture", hint
    )
