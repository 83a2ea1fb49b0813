"""Reading files, data sets, transforms, batches, procedural shapes.

Names are imported on first use, so that the configuration is there without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "PointCloud": "cloud",
    "checked_xyz": "cloud",
    "FORMATS": "files",
    "find_clouds": "files",
    "read": "files",
    "read_many": "files",
    "write": "files",
    "DATASETS": "catalog",
    "DatasetEntry": "catalog",
    "CloudSplit": "dataset",
    "DatasetMeta": "dataset",
    "CloudDataset": "dataset",
    "stratified_split": "dataset",
    "dataset_from_config": "loading",
    "load_dataset": "loading",
    "load_shapes": "shapes",
    "registered": "loading",
    "AugmentConfig": "config",
    "DataConfig": "config",
    "ResampleConfig": "config",
    "CloudTransform": "pipeline",
    "build_transform": "pipeline",
    "collate": "batches",
    "to_dense": "batches",
    "to_packed": "batches",
    "Loader": "loader",
    "make_loader": "loader",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
