"""Feature vectors of files and data sets, labelled where labels are known; and what a model says of each point."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pointlift.core.errors import DataError, PointLiftError, UsageError
from pointlift.data.catalog import DATASETS
from pointlift.data.cloud import PointCloud
from pointlift.data.config import Axis
from pointlift.data.dataset import CloudSplit, PartName
from pointlift.data.files import find_clouds
from pointlift.data.loading import layout_of, load_dataset
from pointlift.data.sets.class_folders import class_of_files
from pointlift.models.base import PointModel
from pointlift.ops import interpolate
from pointlift.tasks.inputs import ModelInput, Source, model_batch
from pointlift.tasks.predict import features_many
from pointlift.tasks.principal import principal_axes

UNKNOWN = -1
WITHOUT_LABELS = ("cloud_files", "kitti_sequences")  # files are read one by one, so that a bad one is let go


@dataclass(frozen=True)
class Sources:
    """Clouds to be described.

    Attributes:
        items: One source per cloud, read when its turn comes.
        names: What each is called.
        labels: Index into `classes`, -1 where unknown.
        classes: Names of the classes; empty where nothing is labelled.
        up_axis: The axis that points up, if all clouds are known to share one.
    """

    items: Iterable[Source]
    names: list[str]
    labels: np.ndarray
    classes: tuple[str, ...]
    up_axis: Axis | None = None


@dataclass(frozen=True)
class CloudFeatures:
    """What a model says of clouds.

    Attributes:
        features: (n, C) float32.
        names: n names.
        labels: (n,) int64 into `classes`, -1 where unknown.
        classes: Class names.
        clouds: n arrays (P, 3) float32 as the model read them; empty unless they were asked for.
        failed: How many could not be read.
        up_axis: The axis that points up, if known.
    """

    features: np.ndarray
    names: list[str]
    labels: np.ndarray
    classes: tuple[str, ...]
    clouds: list[np.ndarray]
    failed: int
    up_axis: Axis | None


def sources_of(paths: Sequence[str], *, part: PartName = "all", limit: int | None = None) -> Sources:
    """Clouds of files, folders and patterns; of one folder that holds a data set, its clouds with their labels.

    In class folders each file stands for itself, so that one that cannot be read does not stop the others.

    Args:
        paths: As `find_clouds` takes them; or one folder with a data set; or one name of made data ("shapes").
        part: Of a data set, or of class folders.
        limit: At most so many clouds, spread over the classes.

    Raises:
        UsageError: A part of what has none.
        DataError: A data set that is there and wrong.
    """
    if len(paths) == 1 and not Path(paths[0]).exists() and _is_made(paths[0]):
        return _of_split(load_dataset(name=paths[0]).part(part).take(limit))
    if len(paths) == 1 and Path(paths[0]).is_dir():
        layout = layout_of(paths[0])
        if layout == "class_folders":
            return _of_class_folders(Path(paths[0]), part, limit)
        if layout not in (None, *WITHOUT_LABELS):
            split = load_dataset(paths[0]).part(part)
            if split.labels is not None:
                return _of_split(split.take(limit))
    if part != "all":
        raise UsageError(f"split {part} of {', '.join(paths)}", "a data set with labels, or class folders")
    files: list[Source] = [path for given in paths for path in _files(given)]
    if limit is not None and limit < len(files):
        files = [files[i * len(files) // limit] for i in range(limit)]
    return Sources(files, [str(path) for path in files], np.full(len(files), UNKNOWN), ())


def _is_made(name: str) -> bool:
    """Whether this is the name of made data, which need no folder."""
    import pointlift.data.procedural
    import pointlift.data.shapes  # noqa: F401  importing these registers them

    return name in DATASETS and DATASETS.get(name).detect is None


def _files(given: str) -> Sequence[str | Path]:
    """Files that a path stands for; the path itself where there are none, so that its error comes in its turn."""
    try:
        return find_clouds([given])
    except PointLiftError:
        return [given]


def _of_split(split: CloudSplit) -> Sources:
    def clouds() -> Iterator[PointCloud]:
        for i in range(len(split)):
            yield PointCloud(split[i]["xyz"])

    meta = split.meta
    labels = np.full(len(split), UNKNOWN) if split.labels is None else split.labels
    classes = () if meta is None or split.labels is None else meta.classes
    return Sources(clouds(), list(split.names), labels, classes, None if meta is None else meta.up_axis)


def _of_class_folders(root: Path, part: PartName, limit: int | None) -> Sources:
    known = class_of_files(root)
    named = {path: name for files in known.values() for path, name in files.items()}
    files = find_clouds([root]) if part == "all" else sorted(known[part])
    if not files:
        raise UsageError(f"{root} has no part {part}", "another part, or all")
    classes = tuple(sorted(set(named.values())))
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[named[path]] if path in named else UNKNOWN for path in files], dtype=np.int64)
    if limit is not None and limit < len(files):
        so_far: Counter[int] = Counter()
        turn = np.array([so_far.update([label]) or so_far[label] for label in labels.tolist()])
        chosen = np.sort(np.lexsort((np.arange(len(files)), turn))[:limit])
        files, labels = [files[i] for i in chosen], labels[chosen]
    if len(classes) < 2:  # one folder of clouds is no class
        classes, labels = (), np.full(len(files), UNKNOWN)
    return Sources(list(files), [str(path) for path in files], labels, classes)


def cloud_features(
    model: PointModel,
    sources: Sources,
    *,
    pooling: str | None = None,
    batch_size: int = 32,
    keep_clouds: bool = False,
    said: Callable[[ModelInput, str], None] = lambda item, name: None,
) -> CloudFeatures:
    """The features of every cloud that can be read.

    Args:
        model: Left in evaluation mode.
        sources: What to read.
        pooling: As in `features_many`.
        batch_size: Clouds per forward pass.
        keep_clouds: Keep the clouds as the model read them.
        said: Called with every input that has notes or an error, and its name.

    Raises:
        UsageError: Another pooling.
    """
    rows, kept, clouds = [], [], []
    found = features_many(model, sources.items, pooling=pooling, batch_size=batch_size)
    for i, (item, row) in enumerate(found):
        if item.notes or item.error is not None:
            said(item, sources.names[i])
        if row is None or item.xyz is None:
            continue
        rows.append(row)
        kept.append(i)
        if keep_clouds:
            clouds.append(item.xyz)
    return CloudFeatures(
        np.stack(rows) if rows else np.zeros((0, 0), np.float32),
        [sources.names[i] for i in kept],
        np.asarray(sources.labels[kept], np.int64) if kept else np.zeros(0, np.int64),
        sources.classes,
        clouds,
        len(sources.names) - len(kept),
        sources.up_axis,
    )


@torch.inference_mode()
def point_colours(model: PointModel, clouds: Sequence[np.ndarray], *, batch_size: int = 16) -> list[np.ndarray]:
    """Each point coloured by what the model says of the place it lies in: (P, 3) uint8 for each cloud (P, 3).

    Tokens of the coarsest level are carried to the points through their three nearest centres. Red, green and blue
    are the first three principal components of the tokens of all these clouds together, each from its 1st to its
    99th percentile: the same colour means alike in all of them, as in pictures of DINO features.

    Raises:
        DataError: Tokens that are not finite.
    """
    model.eval()
    tokens, carried = [], []
    for start in range(0, len(clouds), batch_size):
        chunk = np.stack(clouds[start : start + batch_size])
        batch = model_batch(model, chunk)
        top = model.forward_features(batch).levels[-1]
        feats = top.feats.float()
        xyz = torch.from_numpy(chunk).to(feats.device)
        tokens.append((feats if top.valid is None else feats[top.valid]).flatten(0, -2).cpu().numpy())
        carried += list(interpolate(xyz, top.xyz.float(), feats).cpu().numpy())
    seen = np.concatenate(tokens).astype(np.float64)
    if not np.isfinite(seen).all():
        raise DataError(f"{model.arch} gives features that are not finite", "sound weights")
    middle = seen.mean(axis=0)
    axes = np.zeros((seen.shape[1], 3))
    axes[:, : min(3, seen.shape[1])] = principal_axes(seen - middle)[1][:, :3]
    low, high = np.percentile((seen - middle) @ axes, (1, 99), axis=0)
    width = np.where(high > low, high - low, 1.0)
    shares = [((rows.astype(np.float64) - middle) @ axes - low) / width for rows in carried]
    return [np.round(255 * share.clip(0, 1)).astype(np.uint8) for share in shares]


def one_of_each(labels: np.ndarray, count: int) -> list[int]:
    """Positions of `count` clouds to look at: of as many classes as there are, else spread evenly."""
    order = np.argsort(labels, kind="stable")
    turn = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        turn[of_class] = np.arange(len(of_class))
    if len(np.unique(labels)) == 1:
        return [i * len(labels) // min(count, len(labels)) for i in range(min(count, len(labels)))]
    return np.lexsort((labels, turn))[:count].tolist()
