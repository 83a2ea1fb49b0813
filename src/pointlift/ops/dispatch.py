"""Which implementation runs: one table from operation to back end to function.

`reference` (plain PyTorch) exists for every operation and device and is the truth in tests. `numba` runs on
CPU tensors. Unless told otherwise the fastest back end that can run here is taken; `backends()` shows which.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from pointlift.core.errors import UsageError, unknown_name

ENVIRONMENT = "POINTLIFT_OPS"
REFERENCE = "reference"

_MODULES = {  # back end -> where its functions live, by device; faster ones first
    "numba": "pointlift.ops.numba_cpu",
    REFERENCE: "pointlift.ops.reference",
}
_DEVICES = {"numba": ("cpu",)}  # absent: every device
_REQUIRES = {"numba": "numba"}  # package that the back end imports

TABLE: dict[str, tuple[str, ...]] = {  # operation -> back ends that implement it, fastest first
    "farthest_point_sample": ("numba", REFERENCE),
    "knn": ("numba", REFERENCE),
    "ball_query": ("numba", REFERENCE),
    "three_nn": ("numba", REFERENCE),
    "three_interpolate": ("numba", REFERENCE),
    "three_interpolate_backward": ("numba", REFERENCE),
    "chamfer": ("numba", REFERENCE),
    "chamfer_backward": ("numba", REFERENCE),
    "linear_max": ("numba", REFERENCE),
    "linear_max_backward": ("numba", REFERENCE),
    "neighborhood_max": ("numba", REFERENCE),
    "neighborhood_attention": ("numba", REFERENCE),
    "neighborhood_attention_backward": ("numba", REFERENCE),
    "emd_match": (REFERENCE,),
}

_override: ContextVar[str | None] = ContextVar("pointlift_ops_backend", default=None)


class Active(str):
    """The name of a back end; `why` says what decided for it."""

    why: str

    def __new__(cls, name: str, why: str) -> "Active":
        active = super().__new__(cls, name)
        active.why = why
        return active


@cache
def _missing(backend: str) -> str:
    """Why a back end cannot run in this environment, or an empty string."""
    package = _REQUIRES.get(backend)
    if package is None:
        return ""
    if importlib.util.find_spec(package) is None:
        return f"{package} is not installed"
    try:
        importlib.import_module(package)
    except Exception as error:  # a package too old or new for this numpy fails in its own ways
        return f"{package} cannot be imported: {error}"
    return ""


def _requested() -> tuple[str, str]:
    """The back end asked for and by what, or two empty strings."""
    name = _override.get()
    if name is not None:
        return name, "use_backend"
    name = os.environ.get(ENVIRONMENT, "")
    return (_checked(name), f"environment variable {ENVIRONMENT}") if name else ("", "")


def _checked(name: str) -> str:
    if name not in _MODULES:
        raise unknown_name("back end of pointlift.ops", name, _MODULES)
    if _missing(name):
        raise UsageError(f"back end {name!r} was asked for, but {_missing(name)}", "", "Install it, or use 'reference'")
    return name


def active(operation: str, device: str = "cpu") -> Active:
    """The back end that `operation` uses for tensors on `device` ("cpu", "cuda")."""
    known = TABLE[operation]
    asked, by = _requested()
    if asked and device not in _DEVICES.get(asked, (device,)):
        raise UsageError(
            f"back end {asked!r} ({by}) was given a tensor on {device}",
            f"a tensor on {' or '.join(_DEVICES[asked])}",
            "Move the tensor, or choose 'reference'",
        )
    if asked in known:
        return Active(asked, f"chosen by {by}")
    if asked:
        return Active(REFERENCE, f"the only back end besides {', '.join(known)}" if len(known) > 1 else "the only one")
    reasons = []
    for name in known:
        if device not in _DEVICES.get(name, (device,)):
            reasons.append(f"{name} does not run on {device}")
        elif _missing(name):
            reasons.append(_missing(name))
        else:
            return Active(name, "; ".join(reasons) or ("the fastest" if len(known) > 1 else "the only one"))
    raise AssertionError(f"{operation} has no reference")  # the table above guarantees one


def backends(device: str = "cpu") -> dict[str, Active]:
    """The active back end of every operation, by name.

    Args:
        device: Kind of device that holds the tensors: "cpu" or "cuda".

    Returns:
        Operation -> name of the back end; the name's attribute `why` gives the reason, for example
        "numba is not installed".
    """
    return {operation: active(operation, device) for operation in TABLE}


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Inside the `with` block, use back end `name` ("reference", "numba") wherever an operation has it.

    An operation without that back end runs its reference. The choice belongs to the current thread or task.

    Raises:
        UnknownNameError: No back end has that name.
        UsageError: Its package is missing; or, on use, a tensor lies on a device that it does not serve.
    """
    token = _override.set(_checked(name))
    try:
        yield
    finally:
        _override.reset(token)


def kernel(operation: str, device: str) -> Callable[..., Any]:
    """The function that implements `operation` for tensors on `device`."""
    return getattr(importlib.import_module(_MODULES[active(operation, device)]), operation)
