"""Several processes, started by `torchrun` on one machine or several; one process needs none of it.

Every function here also works without a process group, as a world of one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pointlift.core.errors import UsageError

T = TypeVar("T")


@contextmanager
def process_group(device: str | torch.device = "cpu") -> Iterator[torch.device]:
    """Join the processes that `torchrun` started, and leave them at the end.

    Yields:
        The device of this process: with several GPUs, the one of its local rank.

    Raises:
        UsageError: CUDA is asked for and absent, or has fewer GPUs than local processes.
    """
    started = initialize(device)
    try:
        yield started
    finally:
        finish()


def initialize(device: str | torch.device = "cpu") -> torch.device:
    """Read torchrun's environment, join the process group if there is one, and return this process's device.

    gloo carries CPU tensors and nccl CUDA tensors. Without torchrun only the device is checked.
    """
    device = check_device(device)
    if launched_size() == 1 or is_initialized():
        return device
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"local process {local} has no GPU: there are {torch.cuda.device_count()}",
                "at most one process per GPU",
                "Lower --nproc-per-node",
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return device


def check_device(device: str | torch.device) -> torch.device:
    """`device` as torch names it; raises `UsageError` for a name it does not know or a GPU that is absent."""
    try:
        device = torch.device(device)
    except RuntimeError:
        raise UsageError(f"device {str(device)!r}", "cpu, cuda, or cuda:0, cuda:1, …") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda, but torch sees no GPU", "cpu", "`pointlift doctor` shows what is there")
    return device


def finish() -> None:
    """Leave the process group, if this process is in one."""
    if is_initialized():
        dist.destroy_process_group()


def launched_size() -> int:
    """How many processes torchrun started (1 without it), whether or not they have joined yet."""
    return int(os.environ["WORLD_SIZE"]) if {"RANK", "WORLD_SIZE"} <= os.environ.keys() else 1


def is_initialized() -> bool:
    """Whether this process is in a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if is_initialized() else 1


def is_main() -> bool:
    """Whether this is the process that writes files and shows progress."""
    return rank() == 0


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """The sum of `tensor` over all processes, in place; all processes must call it with the same shape."""
    if world_size() > 1:
        dist.all_reduce(tensor, op=dist.ReduceOp.SUM)
    return tensor


def all_reduce_min(value: int) -> int:
    """The smallest `value` of all processes."""
    if world_size() == 1:
        return value
    tensor = torch.tensor(value)
    dist.all_reduce(tensor, op=dist.ReduceOp.MIN)
    return int(tensor)


def from_main(action: Callable[[], T]) -> T:
    """Run `action` in the main process only; every process returns its result or raises its error.

    Without this, the others would wait for ever when the main process fails.
    """
    if world_size() == 1:
        return action()
    answer: list[object] = [None, None]
    if is_main():
        try:
            answer[0] = action()
        except Exception as error:
            answer[1] = error
    dist.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise answer[1]  # type: ignore[misc]
    return answer[0]  # type: ignore[return-value]


def broadcast_buffers(module: nn.Module) -> None:
    """Give every process the main one's buffers: plain BatchNorms see other batches in each process."""
    if world_size() > 1:
        with torch.no_grad():
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)


def is_launched_main() -> bool:
    """Whether torchrun started this process as the main one; also answers outside the process group."""
    return int(os.environ.get("RANK", "0")) == 0
