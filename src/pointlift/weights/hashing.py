"""Hashes of weights and files: how records and adapters name the exact thing they were made from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `pointlift list weights` reads file hashes without waiting for torch
    from torch import Tensor


def state_hash(state: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes, types and bytes of a state dict, independent of order and device."""
    import torch

    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().to("cpu").contiguous()
        digest.update(f"{key}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def file_sha256(path: str | Path) -> str:
    """sha256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
