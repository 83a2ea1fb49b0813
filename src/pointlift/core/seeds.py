"""Seeds derived, never drawn: the same (seed, epoch, index) gives the same stream in any process."""

from __future__ import annotations

import hashlib
import os
import random

import numpy as np


def derive(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part, e.g. `derive(seed, "augment", epoch, index)`.

    Neighbouring inputs give unrelated outputs, which `seed + index` does not promise.
    """
    text = "\x1f".join(str(p) for p in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """A numpy generator for `derive(*parts)`."""
    return np.random.default_rng(derive(*parts))


def seed_everything(seed: int, *, deterministic: bool = False) -> None:
    """Seed Python, numpy and torch; with `deterministic`, ask torch for deterministic kernels too."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  third-party code may read the global stream
    torch.manual_seed(seed)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
