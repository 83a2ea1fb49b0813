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
        holds: backbone | classifier | segmenter | objective | adapter | source.
        url: Where its authors offer it: the file, or the page that leads to it.
        sha256: Of the file; None where nobody here has had the file in hand.
        licence: Of the weights, as their authors state it.
        paper: arXiv number.
        reported: Scores in the paper or its README, fractions, by data set and metric.
        default: Whether `pretrained=True` means this one.
        config: What tensors do not tell and the released config says (`num_groups` of the 8k model).
        classes: Class names in label order.
        preprocess: What a cloud must go through, where tensors would suggest something else.
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
    preprocess: Mapping[str, Any] = field(default_factory=dict)

    def local_file(self) -> Path:
        """Where the file is on this machine.

        Raises:
            CheckpointError: It is not there (the error says how to put it there), or it is another file.
        """
        # Named by us: systems call their files alike ("pretrain.pth").
        suffix = Path(self.url).suffix
        path = weights_folder() / f"{self.name}{suffix if suffix in _SUFFIXES else '.pth'}"
        if not path.is_file():
            raise CheckpointError(
                f"the weights {self.name!r} are not on this machine",
                f"the file {path}",
                f"download it from {self.url} to that place, or give the path of a checkpoint you have",
            )
        if self.sha256 is not None and (found := file_sha256(path)) != self.sha256:
            raise CheckpointError(
                f"{path} has sha256 {found[:12]}…", f"{self.sha256[:12]}…, as published", f"download {self.url} again"
            )
        return path


_SUFFIXES = (".pth", ".pt", ".safetensors")

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

# Served from Tsinghua's and Baidu's clouds, which the page links to.
_POINT_BERT = "https://github.com/Julie-tang00/Point-BERT"
# Its ScanObjectNN models have 40 outputs, of which 15 were ever trained for.
_SCAN_OF_40 = (*SCANOBJECTNN_CLASSES, *(f"unused_{i}" for i in range(len(SCANOBJECTNN_CLASSES), 40)))


def _point_bert(
    name: str,
    holds: str,
    config: Mapping[str, Any],
    classes: tuple[str, ...] | None = None,
    reported: Mapping[str, float] | None = None,
) -> None:
    WEIGHTS.register(
        name,
        Weights(
            name=name,
            holds=holds,
            url=_POINT_BERT,
            licence="MIT (repository); trained on ShapeNet55 / ModelNet40 / ScanObjectNN, research terms",
            paper="2111.14819",
            reported=reported or {},
            config={"group_size": 32, **config},
            classes=classes,
            preprocess={"normalize": "none"} if classes == _SCAN_OF_40 else {},
        ),
    )


_point_bert("point_tokenizer_base.shapenet55", "objective", {"num_groups": 64})
_point_bert("point_bert_base.shapenet55", "backbone", {"num_groups": 64, "num_heads": 6})
for _points, _groups, _plain, _vote in (
    ("1k", 64, 0.9267, 0.9324),
    ("4k", 256, 0.9291, 0.9348),
    ("8k", 512, 0.9319, 0.9376),
):
    _point_bert(
        f"point_bert_base.modelnet_{_points}",
        "classifier",
        {"num_groups": _groups, "num_heads": 6},
        MODELNET40_CLASSES,
        {"modelnet40/overall_accuracy": _plain, "modelnet40/vote": _vote},
    )
for _tag, _edition, _score in (
    ("scan_hardest", "pb_t50_rs", 0.8307),
    ("scan_objbg", "obj_bg", 0.8743),
    ("scan_objonly", "obj_only", 0.8812),
):
    _point_bert(
        f"point_bert_base.{_tag}",
        "classifier",
        {"num_groups": 64, "num_heads": 6},
        _SCAN_OF_40,
        {f"{_SCAN}{_edition}/overall_accuracy": _score},
    )

# Google Drive files, which the page links to; it gives one link for OBJ-BG and OBJ-ONLY.
_POINT_M2AE = "https://github.com/ZrrSkywalker/Point-M2AE"


def _point_m2ae(
    tag: str,
    holds: str,
    reported: Mapping[str, float],
    classes: tuple[str, ...] | None = None,
    sizes: tuple[int, ...] = (16, 8, 8),
) -> None:
    name = f"point_m2ae_base.{tag}"
    WEIGHTS.register(
        name,
        Weights(
            name=name,
            holds=holds,
            url=_POINT_M2AE,
            licence="MIT (repository); trained on ShapeNet55 / ModelNet40 / ScanObjectNN, research terms",
            paper="2205.14401",
            reported=reported,
            config={
                "num_groups": (512, 256, 64),
                "group_size": sizes,
                "radius": (0.32, 0.64, 1.28),
                "num_heads": 6,
            },
            classes=classes,
        ),
    )


_point_m2ae("shapenet55", "backbone", {"modelnet40/svm": 0.9287, _SCAN + "obj_bg/svm": 0.8412})
_point_m2ae(
    *("modelnet_1k", "classifier", {"modelnet40/overall_accuracy": 0.9343, "modelnet40/vote": 0.9396}),
    MODELNET40_CLASSES,
)
for _tag, _edition, _score in (
    ("scan_hardest", "pb_t50_rs", 0.8643),
    ("scan_objbg", "obj_bg", 0.9122),
    ("scan_objonly", "obj_only", 0.8881),
):
    _point_m2ae(
        *(_tag, "classifier", {f"{_SCAN}{_edition}/overall_accuracy": _score}), SCANOBJECTNN_CLASSES, (32, 16, 16)
    )
_point_m2ae("shapenetpart", "segmenter", {"shapenetpart/instance_miou": 0.8651, "shapenetpart/class_miou": 0.8486})
