"""Checkpoints that exist: where they are, whose licence, what they are said to score."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pointlift.core.errors import CheckpointError
from pointlift.core.registry import Registry
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
    """

    name: str
    holds: str
    url: str
    licence: str
    paper: str
    sha256: str | None = None
    reported: Mapping[str, float] = field(default_factory=dict)
    default: bool = False

    def local_file(self) -> Path:
        """Where the file is on this machine.

        Raises:
            CheckpointError: It is not there (the error says how to put it there), or it is another file.
        """
        path = weights_folder() / self.url.rsplit("/", 1)[-1]
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


_POINT_MAE = "https://github.com/Pang-Yatian/Point-MAE/releases/download/main/"

for _tag, _file, _holds, _reported in (
    ("shapenet55", "pretrain.pth", "backbone", {}),
    (
        "modelnet_1k",
        "modelnet_1k.pth",
        "classifier",
        {"modelnet40/overall_accuracy": 0.932, "modelnet40/vote": 0.938},
    ),
    ("modelnet_8k", "modelnet_8k.pth", "classifier", {"modelnet40/vote": 0.9404}),
    ("scan_hardest", "scan_hardest.pth", "classifier", {"scanobjectnn_pb_t50_rs/overall_accuracy": 0.8518}),
    ("scan_objbg", "scan_objbg.pth", "classifier", {"scanobjectnn_obj_bg/overall_accuracy": 0.9002}),
    ("scan_objonly", "scan_objonly.pth", "classifier", {"scanobjectnn_obj_only/overall_accuracy": 0.8829}),
):
    WEIGHTS.register(
        f"point_mae_base.{_tag}",
        Weights(
            name=f"point_mae_base.{_tag}",
            holds=_holds,
            url=_POINT_MAE + _file,
            licence="MIT (repository); trained on ShapeNet55 / ModelNet40 / ScanObjectNN, research terms",
            paper="2203.06604",
            reported=_reported,
        ),
    )
