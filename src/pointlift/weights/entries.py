"""Checkpoints that exist: where they are, whose licence, what they are said to score."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pointlift.core.errors import CheckpointError
from pointlift.core.registry import Registry
from pointlift.data.sets.known import MODELNET40_CLASSES
from pointlift.weights.hashing import file_sha256


@dataclass(frozen=True)
class Weights:
    """One checkpoint.

    Attributes:
        name: `arch.tag`.
        holds: backbone | classifier | objective | adapter | source.
        url: Where its authors offer it.
        sha256: Of the file; None where nobody here has had the file in hand.
        licence: Of the weights, as their authors state it.
        paper: arXiv number.
        reported: Scores in the paper or its README, fractions, by data set and metric.
        default: Whether `pretrained=True` means this one.
        config: What tensors do not tell and the released config says (`num_groups` of the 8k model).
        classes: Class names in label order.
    """

    name: str
    holds: str
    url: str
    licence: str
    paper: str
    sha256: str | None = None
    reported: Mapping[str, float] = field(default_factory=dict)
    default: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None

    def local_file(self) -> Path:
        """Where the file is on this machine.

        Raises:
            CheckpointError: It is not there (the error says how to put it there), or it is another file.
        """
        # Named by us: systems call their files alike ("pretrain.pth").
        path = weights_folder() / f"{self.name}{Path(self.url).suffix}"
        if not path.is_file():
            raise CheckpointError(
                f"the weights {self.name!r} are not on this machine",
                f"the file {path}",
                f"download {self.url} to that place, or give the path of a checkpoint you have",
            )
        if self.sha256 is not None and (found := file_sha256(path)) != self.sha256:
            raise CheckpointError(
                f"{path} has sha256 {found[:12]}…", f"{self.sha256[:12]}…, as published", f"download {self.url} again"
            )
        return path


WEIGHTS: Registry[Weights] = Registry("weights entry", "`pointlift list weights`")


def weights_folder() -> Path:
    """Where downloaded weights live: `$POINTLIFT_HOME/weights`, or the user's cache folder."""
    home = os.environ.get("POINTLIFT_HOME")
    return Path(home) / "weights" if home else Path.home() / ".cache" / "pointlift" / "weights"


def weights_for(arch: str) -> list[str]:
    """Names of the entries of one architecture."""
    return WEIGHTS.names(f"{arch}.*")


SCANOBJECTNN_CLASSES = (
    *("bag", "bin", "box", "cabinet", "chair", "desk", "display", "door"),
    *("shelf", "table", "bed", "pillow", "sink", "sofa", "toilet"),
)
_POINT_MAE = "https://github.com/Pang-Yatian/Point-MAE/releases/download/main/"


def _point_mae(
    tag: str,
    file: str,
    classes: tuple[str, ...] | None,
    groups: int,
    reported: Mapping[str, float] | None = None,
) -> None:
    name = f"point_mae_base.{tag}"
    WEIGHTS.register(
        name,
        Weights(
            name=name,
            holds="backbone" if classes is None else "classifier",
            url=_POINT_MAE + file,
            licence="MIT (repository); trained on ShapeNet55 / ModelNet40 / ScanObjectNN, research terms",
            paper="2203.06604",
            reported=reported or {},
            config={"num_groups": groups, "group_size": 32, "num_heads": 6},
            classes=classes,
        ),
    )


_SCAN = "scanobjectnn_"
_point_mae("shapenet55", "pretrain.pth", None, 64)
_point_mae(
    *("modelnet_1k", "modelnet_1k.pth", MODELNET40_CLASSES, 64),
    {"modelnet40/overall_accuracy": 0.932, "modelnet40/vote": 0.938},
)
_point_mae("modelnet_8k", "modelnet_8k.pth", MODELNET40_CLASSES, 512, {"modelnet40/vote": 0.9404})
_point_mae(
    "scan_hardest", "scan_hardest.pth", SCANOBJECTNN_CLASSES, 128, {_SCAN + "pb_t50_rs/overall_accuracy": 0.8518}
)
_point_mae("scan_objbg", "scan_objbg.pth", SCANOBJECTNN_CLASSES, 128, {_SCAN + "obj_bg/overall_accuracy": 0.9002})
_point_mae("scan_objonly", "scan_objonly.pth", SCANOBJECTNN_CLASSES, 128, {_SCAN + "obj_only/overall_accuracy": 0.8829})
