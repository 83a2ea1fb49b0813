"""Number formats of the forward pass: fp32, bf16 or fp16, and what the device does natively."""

from __future__ import annotations

import functools
import logging
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from pointlift.core.errors import UsageError

logger = logging.getLogger(__name__)

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """A resolved choice: `name` is fp32, bf16 or fp16; parameters and optimiser stay fp32 in all of them."""

    name: str
    device: torch.device

    def autocast(self) -> AbstractContextManager[object]:
        """The context of forward passes and losses."""
        dtype = _DTYPES[self.name]
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling for fp16, whose gradients underflow without it; off in the other formats."""
        return torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")


def resolve_precision(name: str, device: torch.device) -> Precision:
    """The format to compute in; `auto` is bf16 where the device has it in hardware, else fp32.

    A format that the device only emulates is allowed, with a warning: bf16 on a CPU without bf16
    instructions runs several times slower than fp32.
    """
    if name == "auto":
        return Precision("bf16" if native_bf16(device) else "fp32", device)
    if name not in _DTYPES:
        raise UsageError(f"precision {name!r}", "auto, fp32, bf16 or fp16")
    slow = (name == "bf16" and not native_bf16(device)) or (name == "fp16" and device.type == "cpu")
    if slow:
        logger.warning("%s is emulated on this %s: expect it to be slower than fp32", name, device.type)
    return Precision(name, device)


def native_bf16(device: torch.device) -> bool:
    """Whether `device` multiplies bf16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and _cpu_has_bf16()


@functools.cache
def _cpu_has_bf16() -> bool:
    path = Path("/proc/cpuinfo")  # torch only says whether it *can* compute bf16, which every CPU can, slowly
    return path.is_file() and cpuinfo_has_bf16(path.read_text(errors="replace"))


def cpuinfo_has_bf16(text: str) -> bool:
    """Whether Linux' `/proc/cpuinfo` lists bf16 matrix instructions (AVX-512, AMX, or Arm's)."""
    for line in text.splitlines():
        key, _, flags = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return bool(re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags))
    return False
