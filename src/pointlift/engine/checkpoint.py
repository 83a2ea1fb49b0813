"""Checkpoints: one safetensors file per kept epoch, checked when read: the last good one always loads.

A file holds tensors named `model/…` and `optimizer/…`, the rest of the run's state as JSON in its header, and
a SHA-256 over both. Nothing in it can be executed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pointlift.core.errors import CheckpointError
from pointlift.engine.files import Buffer, remove_temporaries, write_atomic

logger = logging.getLogger(__name__)

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_NAME = re.compile(r"epoch-(\d+)\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A run after one epoch.

    Attributes:
        epoch: The finished epoch, from 0.
        best_epoch: The best epoch so far, whose file must be kept; None without selection.
        state: Everything else that is not a tensor, as JSON values.
        model: The module's state dict.
        optimizer: `engine.optim.optimizer_tensors`.
    """

    epoch: int
    best_epoch: int | None = None
    state: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)


class Checkpoints:
    """The folder of a run's checkpoints: the newest two epochs, and the best epoch of either.

    Two, so that one damaged file costs an epoch and not the run. The best weights are one of these files,
    never a copy, so they cannot disagree with what the newest checkpoint says about them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._previous: Checkpoint | None = None

    def path(self, epoch: int) -> Path:
        """Where the checkpoint of `epoch` is or would be."""
        return self.folder / f"epoch-{epoch:04d}.safetensors"

    def epochs(self) -> list[int]:
        """Epochs that have a file, readable or not, newest first."""
        found = (_NAME.fullmatch(path.name) for path in self.folder.glob("epoch-*.safetensors"))
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write `checkpoint`, then remove the files that are no longer needed.

        Raises:
            PointLiftError: The disk is full; the older checkpoints are untouched.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(checkpoint.epoch)
        write_checkpoint(path, checkpoint)
        keep = {checkpoint.epoch, checkpoint.best_epoch}
        if self._previous is not None:
            keep |= {self._previous.epoch, self._previous.best_epoch}
        for epoch in set(self.epochs()) - keep:
            self.path(epoch).unlink(missing_ok=True)
        self._previous = Checkpoint(checkpoint.epoch, checkpoint.best_epoch)
        return path

    def load(self, epoch: int) -> Checkpoint:
        """The checkpoint of `epoch`; raises `CheckpointError` when it is missing or damaged."""
        return read_checkpoint(self.path(epoch))

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that can be read; None when there is no file at all.

        Damaged files that are newer are removed, with a warning. Only the run's one writer may call this.

        Raises:
            CheckpointError: There are files, and none can be read.
        """
        remove_temporaries(self.folder)
        epochs = self.epochs()
        for tried, epoch in enumerate(epochs):
            try:
                checkpoint = read_checkpoint(self.path(epoch))
            except CheckpointError as error:
                logger.warning("%s The checkpoint before it is used", error)
                continue
            for damaged in epochs[:tried]:
                self.path(damaged).unlink()
            self._previous = Checkpoint(checkpoint.epoch, checkpoint.best_epoch)
            return checkpoint
        if epochs:
            raise CheckpointError(
                f"none of the {len(epochs)} checkpoints in {self.folder} can be read",
                "at least one complete file",
                "Start the run again in a new folder",
            )
        return None


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write one checkpoint file atomically; raises `PointLiftError` when the disk is full."""
    tensors = _plain({f"model/{k}": v for k, v in checkpoint.model.items()})
    tensors |= _plain({f"optimizer/{k}": v for k, v in checkpoint.optimizer.items()})
    head = {"epoch": checkpoint.epoch, "best_epoch": checkpoint.best_epoch, "state": checkpoint.state}
    text = json.dumps(head, sort_keys=True)
    metadata = {"format": "pointlift-checkpoint-1", "run": text, "sha256": _digest(text, tensors)}
    hint = "Free some space and go on with --resume: the checkpoint before is intact"
    write_atomic(path, _safetensors(tensors, metadata), hint=hint)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and check one checkpoint file; tensors on the CPU.

    Raises:
        CheckpointError: It is missing, cut short, changed, or not a checkpoint of a run.
    """
    fix = "Use an earlier checkpoint of the run"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable checkpoint ({error})", "a complete file", fix) from error
    if metadata.get("format") != "pointlift-checkpoint-1":
        raise CheckpointError(f"{path} was not written by a training run", "a file of its checkpoints folder")
    if metadata.get("sha256") != _digest(metadata.get("run", ""), tensors):
        raise CheckpointError(f"{path} is damaged: its content does not fit its SHA-256", "the file as written", fix)
    head = json.loads(metadata["run"])
    return Checkpoint(
        head["epoch"],
        head["best_epoch"],
        head["state"],
        _below("model", tensors),
        _below("optimizer", tensors),
    )


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = prefix + "/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors that share no memory: safetensors stores tied weights only as copies."""
    plain: dict[str, Tensor] = {}
    owners: set[int] = set()
    for name, tensor in tensors.items():
        copy = tensor.detach().cpu().contiguous()
        storage = copy.untyped_storage()
        if storage.data_ptr() in owners or storage.nbytes() != copy.nbytes:
            copy = copy.clone()
        owners.add(copy.untyped_storage().data_ptr())
        plain[name] = copy
    return plain


def _safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[Buffer]:
    """The parts of a safetensors file; the package's own writers first copy everything, twice."""
    ordered = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # aligned by falling size
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in ordered:
        begin, end = end, end + tensors[name].nbytes
        header[name] = {
            "dtype": _DTYPES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in ordered:
        yield _bytes(tensors[name])


def _bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the JSON text and over name, type, shape and bytes of every tensor."""
    sha = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(_bytes(tensor))
    return sha.hexdigest()
