"""What is fuzzed: every registered file ending, every data-set layout, and everything else that reads files."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fuzz import Files, seeds
from fuzz.set_seeds import SETS
from pointlift.data.cloud import PointCloud
from pointlift.data.dataset import CloudDataset
from pointlift.data.files import FORMATS, read
from pointlift.data.formats.limits import unpacked

# Bytes of memory per byte of file, or of what the file may unpack to: text becomes float64 numbers several times;
# of unpacked arrays there may be four copies, each in the child that reads them too; data sets name all their clouds.
PLAIN, PACKED, SET = 64, 6, 11


class Invalid(Exception):
    """A reader gave back something that no reader may give."""


@dataclass(frozen=True)
class Target:
    """One reader: `read(folder, first file)` reads and checks the result; `make_seeds()` gives good and hostile files.

    Args:
        factor: Memory may grow by this many bytes per byte of file (besides a fixed floor).
        packed: Per byte that the reader lets the file unpack to instead.
    """

    read: Callable[[Path, str], None]
    make_seeds: Callable[[], list[Files]]
    factor: int = PLAIN
    packed: bool = False

    @functools.cached_property
    def _seeds(self) -> list[Files]:
        return self.make_seeds()

    def memory(self, files: Files) -> int:
        """Bytes by which reading the files may make the process and its child grow."""
        return self.factor * sum(unpacked(len(data)) if self.packed else len(data) for data in files.values())

    def seeds(self) -> list[Files]:
        """Made once per process."""
        return self._seeds


def check_cloud(cloud: PointCloud) -> None:
    """The promises of `PointCloud`."""
    _check_points(cloud.xyz)
    for name, values in cloud.feats.items():
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "biufU":
            raise Invalid(f"feature of type {getattr(values, 'dtype', type(values))}")
        if values.ndim < 1 or len(values) != len(cloud.xyz):
            raise Invalid("feature without one row per point")
        if name == "colors" and (values.shape[1:] != (3,) or values.dtype not in (np.uint8, np.float32)):
            raise Invalid(f"colors {values.dtype} {values.shape[1:]}")
        if name == "normals" and (values.shape[1:] != (3,) or values.dtype != np.float32):
            raise Invalid(f"normals {values.dtype} {values.shape[1:]}")
        # Labels are int64; what is no whole number stays as the file has it.
        if name in ("semantic", "instance") and (values.ndim != 1 or values.dtype not in (np.int64, np.float32)):
            raise Invalid(f"{name} {values.dtype} {values.shape[1:]}")
    if cloud.offset.shape != (3,) or cloud.offset.dtype != np.float64 or not np.isfinite(cloud.offset).all():
        raise Invalid(f"offset {cloud.offset!r}")


def _check_points(xyz: np.ndarray) -> None:
    if xyz.dtype != np.float32 or xyz.ndim != 2 or xyz.shape[1] != 3 or len(xyz) < 1:
        raise Invalid(f"coordinates {xyz.dtype} of {xyz.ndim} dimensions")
    if not np.isfinite(xyz).all():
        raise Invalid("coordinates that are not finite")
    if not xyz.flags.c_contiguous or not xyz.dtype.isnative:
        raise Invalid("coordinates that are not contiguous and native")


def check_dataset(data: CloudDataset) -> None:
    """The first and last cloud of every split, with all fields, and the labels."""
    for split in (data.train, data.test, getattr(data, "val", None)):
        if split is None or len(split) == 0:
            continue
        labels = split.labels
        if labels is not None and (labels.min() < 0 or labels.max() >= len(data.meta.classes)):
            raise Invalid("labels outside the classes")
        split = split.with_fields(*split.store.fields)
        for i in {0, len(split) - 1}:
            sample = split[i]
            _check_points(sample["xyz"])
            for name in split.fields:
                if len(sample[name]) != len(sample["xyz"]):
                    raise Invalid("field without one row per point")
        split.counts()
    data.content_hash()


def _read_cloud(folder: Path, main: str) -> None:
    check_cloud(read(folder / main))


def _read_set(name: str) -> Callable[[Path, str], None]:
    def read_set(folder: Path, main: str) -> None:
        from pointlift.data.loading import load_dataset

        check_dataset(load_dataset(folder, name=name))

    return read_set


def _read_pickle(folder: Path, main: str) -> None:
    from pointlift.data.sets.pickles import read_pickle

    read_pickle(folder / main)


def _read_model(folder: Path, main: str) -> None:
    from pointlift.weights.modelfile import read_model_file

    path = folder / main
    file = read_model_file(folder if main.startswith("model/") else path)
    if not all(type(key) is str for key in file.state):
        raise Invalid("tensor names that are not text")


def _read_checkpoint(folder: Path, main: str) -> None:
    from pointlift.weights.reading import read_checkpoint

    raw = read_checkpoint(folder / main)
    if not all(type(key) is str for key in raw.state) or not raw.state:
        raise Invalid("tensor names that are not text, or none")
    for tensor in raw.state.values():
        tensor.clone()  # touches what the header says is there


def _read_run(folder: Path, main: str) -> None:
    from pointlift.report.run import read_run

    read_run(folder)


def _read_recipe(folder: Path, main: str) -> None:
    from pointlift.core.config import build, read_recipe
    from pointlift.tasks.config import FinetuneConfig

    build(FinetuneConfig, read_recipe(folder / main), main)


def _read_fork(folder: Path, main: str) -> None:
    from pointlift.core.config import dump_yaml, parse_yaml
    from pointlift.tasks.fork import Fork, check_recipe, text_of, translated

    found = translated(folder / main)
    text_of(Fork(folder / main, folder, found))
    if check_recipe(parse_yaml(dump_yaml(found.recipe, found.comments), "recipe"), found).note[:9] != "converted":
        raise Invalid("a recipe that does not come back as it was written")
    keys = [line.key for line in found.lines]
    if len(keys) != len(set(keys)):
        raise Invalid("a key with two fates")


def _targets() -> dict[str, Target]:
    found: dict[str, Target] = {}
    for ending in FORMATS:
        packed = ending in {".npz", ".h5", ".hdf5", ".laz", ".pcd"}
        found[ending.lstrip(".")] = Target(
            _read_cloud, _later(seeds.clouds, ending), PACKED if packed else PLAIN, packed
        )
    for name, make in SETS.items():
        found[f"set-{name}"] = Target(_read_set(name), make, SET, packed=True)
    found["pickle"] = Target(_read_pickle, seeds.pickles, PLAIN)
    found["checkpoint"] = Target(_read_checkpoint, seeds.checkpoints, PACKED, packed=True)
    found["model"] = Target(_read_model, seeds.models, PACKED, packed=True)
    found["run"] = Target(_read_run, seeds.runs, PACKED, packed=True)
    found["recipe"] = Target(_read_recipe, seeds.recipes, PLAIN)
    found["fork"] = Target(_read_fork, seeds.forks, PLAIN)
    return found


def _later(make: Callable[[str], list[Files]], name: str) -> Callable[[], list[Files]]:
    return lambda: make(name)


@functools.cache
def warm_up(name: str) -> None:
    """Import and compile what a target needs, so that it counts neither as time nor as memory of a case."""
    target = TARGETS[name]
    for files in target.seeds()[:8]:
        with tempfile.TemporaryDirectory() as folder:
            for file, data in files.items():
                path = Path(folder) / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            # Whatever is wrong, the case itself will tell.
            with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):
                target.read(Path(folder), next(iter(files)))


TARGETS: dict[str, Target] = _targets()
