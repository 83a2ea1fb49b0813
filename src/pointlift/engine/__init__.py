"""How a run happens: loop, optimiser groups, schedules, autocast, processes, checkpoints and resume, logging.

The room sees dicts of tensors and never what they mean. `fit` is the entry; the configuration dataclasses in
`engine.config` do not import torch, so names are loaded only when used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pointlift.engine.config import FitConfig, OptimConfig, ScheduleConfig
    from pointlift.engine.loop import FitResult, Loaders, fit

_HOMES = {
    "FitConfig": "config",
    "FitResult": "loop",
    "Loaders": "loop",
    "OptimConfig": "config",
    "ScheduleConfig": "config",
    "fit": "loop",
}

__all__ = ["FitConfig", "FitResult", "Loaders", "OptimConfig", "ScheduleConfig", "fit"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
