"""`reconstructions.npz`: clouds, what a pre-trained objective saw of them, and what it made of the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pointlift.core.errors import DataError, UsageError
from pointlift.core.seeds import derive
from pointlift.data.config import DataConfig
from pointlift.data.dataset import CloudSplit, DatasetMeta
from pointlift.data.loading import dataset_from_config
from pointlift.data.pipeline import build_transform
from pointlift.pretrain.metrics import reconstruction_metrics
from pointlift.pretrain.objective import Objective
from pointlift.pretrain.reading import FOLDER, read_objective
from pointlift.pretrain.registry import create_objective
from pointlift.tasks.config import PretrainConfig
from pointlift.tasks.files import write_arrays
from pointlift.tasks.record import Record
from pointlift.tasks.run import read_run_config
from pointlift.weights.modelfile import TENSORS

FILE = "reconstructions.npz"
PARTS = ("whole", "given", "target", "rebuilt", "coarse")
WIDEST = 2.0  # times the largest coordinate of a cloud: what is rebuilt farther out is drawn in to there


@dataclass(frozen=True)
class _Shown:
    """One cloud of the file: points (P, 3) float32 of each part, and its scores."""

    parts: dict[str, np.ndarray]
    centers: np.ndarray
    codes: np.ndarray | None
    cd_l1: float
    cd_l2: float


def held_out(dataset_parts: tuple[CloudSplit, CloudSplit | None]) -> tuple[str, CloudSplit]:
    """The clouds to show: held-out ones where there are any, else those that were learned from."""
    train, val = dataset_parts
    return ("train", train) if val is None else ("val", val)


def write_reconstructions(
    out: Path,
    objective: Objective,
    parts: tuple[CloudSplit, CloudSplit | None],
    data: DataConfig,
    meta: DatasetMeta,
    *,
    keep_clouds: int,
    seed: int,
) -> Path | None:
    """Write what the objective makes of `keep_clouds` clouds, spread over the held-out ones; none for 0.

    The file holds, for each of `PARTS`, `<part>_i16` (P, 3) of all clouds one after the other and `<part>_count`
    (M,); `scale` (M,): coordinates are int16 / 32767 * scale; `centers_i16` (M, G, 3), `codes` (M, G) of an objective
    that has any; `cd_l1`, `cd_l2` (M,): Chamfer distances between what was asked for and what was rebuilt, as
    `reconstruction_metrics` has them; `names`, `index` (M,) and `split`, which part of the data they are.

    Raises:
        PointLiftError: The file cannot be written.
    """
    path = out / FILE
    if keep_clouds == 0:
        forget_reconstructions(out)
        return None
    name, split = held_out(parts)
    count = min(keep_clouds, len(split))
    rows = np.arange(count) * len(split) // count
    shown = list(_show(objective, split, rows, data, meta, seed))
    scale = np.array([WIDEST * np.abs(one.parts["whole"]).max(initial=1e-6) for one in shown], np.float32)
    arrays: dict[str, np.ndarray] = {
        "split": np.array(name),
        "names": np.array([split.names[i] for i in rows]),
        "index": rows,
        "scale": scale,
        "cd_l1": np.array([one.cd_l1 for one in shown], np.float32),
        "cd_l2": np.array([one.cd_l2 for one in shown], np.float32),
        "centers_i16": np.stack([_small(one.centers, s) for one, s in zip(shown, scale, strict=True)]),
    }
    if shown[0].codes is not None:
        arrays["codes"] = np.stack([one.codes for one in shown if one.codes is not None])
    for part in PARTS:
        arrays[f"{part}_i16"] = np.concatenate(
            [_small(one.parts[part], s) for one, s in zip(shown, scale, strict=True)]
        )
        arrays[f"{part}_count"] = np.array([len(one.parts[part]) for one in shown])
    return write_arrays(path, arrays, hint="Free some space and go on with --resume")


def forget_reconstructions(out: Path) -> None:
    """Remove the file, where there is one."""
    (out / FILE).unlink(missing_ok=True)


def reconstruct(run: str | Path, keep_clouds: int, *, root: str | Path | None = None) -> Path | None:
    """Make the `reconstructions.npz` of a finished pre-training run anew, from its objective and its data.

    Args:
        run: The run folder.
        keep_clouds: How many clouds; 0 removes the file, and needs no data.
        root: Where the data are now, if not where they were.

    Raises:
        UsageError: No pre-training run.
        DataError: The data are not there, or others than the run learned from.
    """
    run = Path(run)
    config = read_run_config(run)
    if not isinstance(config, PretrainConfig):
        raise UsageError(f"{run} is a run of {config.task}", "a pre-training run: it alone rebuilds clouds")
    if not (run / FOLDER / TENSORS).is_file():
        raise DataError(f"{run} has no folder {FOLDER}", "a finished pre-training run")
    if keep_clouds == 0:
        forget_reconstructions(run)
        return None
    data = replace(config.data, test_fraction=0.0, root=config.data.root if root is None else str(root))
    dataset = dataset_from_config(data)
    parts = dataset.hold_out(data.val_fraction, data.split_seed)
    recorded = Record.read(run).data["dataset"].get("splits")
    sizes = {"train": len(parts[0])} | ({} if parts[1] is None else {"val": len(parts[1])})
    if recorded != sizes:
        raise DataError(f"{data.root or data.name} holds {sizes}", f"the run's own data, {recorded}")
    objective = read_objective(run, create_objective)
    return write_reconstructions(
        run, objective, parts, with_default_rule(data), dataset.meta, keep_clouds=keep_clouds, seed=config.seed
    )


def with_default_rule(data: DataConfig) -> DataConfig:
    """The data configuration with pre-training's rule for points near the origin where it names none."""
    if data.resample.skip_near_origin is not None:
        return data
    return replace(data, resample=replace(data.resample, skip_near_origin=False))


def _show(
    objective: Objective, split: CloudSplit, rows: np.ndarray, data: DataConfig, meta: DatasetMeta, seed: int
) -> Iterator[_Shown]:
    """One cloud at a time: in a batch, clouds that show fewer patches than others would repeat some."""
    transform = build_transform(data, meta, "test")
    device = next(objective.parameters()).device
    for i in rows:
        batch = {"xyz": torch.from_numpy(transform(split[int(i)])["xyz"]).unsqueeze(0).to(device)}
        stream = torch.Generator(device).manual_seed(derive(seed, "picture", int(i)))
        picture = objective.show(batch, objective.draw(batch, stream))
        score = reconstruction_metrics(picture.rebuilt, picture.target)
        found = {part: getattr(picture, part) for part in PARTS}
        yield _Shown(
            {k: np.zeros((0, 3), np.float32) if v is None else v[0].float().cpu().numpy() for k, v in found.items()},
            picture.centers[0].cpu().numpy(),
            None if picture.codes is None else picture.codes[0].cpu().numpy(),
            score["cd_l1"].item(),
            score["cd_l2"].item(),
        )


def _small(xyz: np.ndarray, scale: float) -> np.ndarray:
    """Coordinates as int16."""
    return np.round((xyz / scale).clip(-1, 1) * 32767).astype(np.int16)
