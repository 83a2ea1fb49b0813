"""Reading checkpoint files safely: tensors come out, nothing is executed."""

from __future__ import annotations

import contextlib
import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pointlift.core.errors import CheckpointError, UnsafeCheckpointError

State = dict[str, Tensor]
# Where released runners keep the weights, in the order in which they are tried.
_STATE_KEYS = ("base_model", "model", "state_dict", "model_state_dict")
# What wrappers and pre-training models put in front of a key, outermost first.
PREFIXES = ("module.", "base_model.", "MAE_encoder.")


@dataclass(frozen=True)
class RawCheckpoint:
    """The tensors of a file under the names that it uses, wrapper prefixes removed."""

    path: Path
    state: State
    # Plain values stored beside the weights: epoch, metrics.
    extras: dict[str, Any] = field(default_factory=dict)
    # The safetensors header's metadata.
    metadata: dict[str, str] = field(default_factory=dict)
    # Prefixes that were found and removed.
    stripped: tuple[str, ...] = ()


def read_checkpoint(path: str | Path) -> RawCheckpoint:
    """The weights in a `.safetensors` or PyTorch file.

    Raises:
        CheckpointError: Missing, empty, damaged, or without tensors.
        UnsafeCheckpointError: Reading it would run code from the file.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {str(path)!r}", "a .safetensors, .pth or .pt file")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty", "a .safetensors, .pth or .pt file")
    if _is_safetensors(path):
        state, metadata = _read_safetensors(path)
        extras: dict[str, Any] = {}
    else:
        state, extras = _state_in(_read_torch(path), path)
        metadata = {}
    if not state:
        raise CheckpointError(f"{path} holds no tensors", "a state dict, alone or under " + ", ".join(_STATE_KEYS))
    state, stripped = strip_prefixes(state)
    return RawCheckpoint(path, state, extras, metadata, stripped)


def strip_prefixes(state: Mapping[str, Tensor]) -> tuple[State, tuple[str, ...]]:
    """`module.`, `base_model.` and `MAE_encoder.` removed from the front of every key that has them.

    Raises:
        CheckpointError: Two keys become the same.
    """
    plain: State = {}
    seen: dict[str, None] = {}
    for key, value in state.items():
        rest, changed = key, True
        while changed:
            changed = False
            for prefix in PREFIXES:
                if rest.startswith(prefix):
                    rest, changed = rest[len(prefix) :], True
                    seen[prefix] = None
        if rest in plain:
            raise CheckpointError(f"two tensors are called {rest!r} once prefixes are removed", "one model per file")
        plain[rest] = value
    return plain, tuple(seen)


def _is_safetensors(path: Path) -> bool:
    """By content: eight bytes of header length, then a JSON object."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(9)
    return path.suffix == ".safetensors" or (
        len(head) == 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size
    )


def _read_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}", "a complete file") from error


def _numpy_scalars() -> list[Any]:
    """Types in which runners store their metrics; building them runs no code from the file."""
    import numpy as np

    with contextlib.suppress(AttributeError):
        return [
            np._core.multiarray.scalar,
            np.dtype,
            *(type(np.dtype(t)) for t in ("f4", "f8", "i4", "i8", "?")),
        ]
    return []


def _read_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        text = " ".join(str(error).split())
        if "Unsupported" in text or "global" in text.lower() or "weights_only" in text.lower():
            if not _looks_like_torch(path):
                raise _damaged(path, text) from error
            raise UnsafeCheckpointError(
                f"{path} holds more than tensors and plain values: reading it could run code, so it was not read",
                "tensors alone (torch.save of a state dict, or safetensors)",
                "in the environment that wrote it: torch.save({'model': checkpoint['base_model']}, 'weights_only.pth')",
            ) from error
        raise _damaged(path, text) from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        zipfile.BadZipFile,
        UnicodeDecodeError,
    ) as error:
        raise _damaged(path, str(error)) from error


def _looks_like_torch(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x03", b"\x80\x05")


def _damaged(path: Path, reason: str) -> CheckpointError:
    reason = " ".join(reason.split())[:160]
    return CheckpointError(
        f"{path} cannot be read as a checkpoint: {reason}", "a complete .safetensors, .pth or .pt file"
    )


def _state_in(value: Any, path: Path) -> tuple[State, dict[str, Any]]:
    """The state dict inside what a runner saved, and the plain values beside it."""
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{path} holds a {type(value).__name__}", "a dict of tensors")
    for key in _STATE_KEYS:
        inner = value.get(key)
        if isinstance(inner, Mapping) and any(isinstance(v, Tensor) for v in inner.values()):
            extras = {k: v for k, v in value.items() if isinstance(v, int | float | str | bool)}
            return {str(k): v for k, v in inner.items() if isinstance(v, Tensor)}, extras
    return {str(k): v for k, v in value.items() if isinstance(v, Tensor)}, {}
