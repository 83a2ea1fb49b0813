"""Small seed files for every target: good ones from our own writers and by hand, then hostile ones."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import numpy as np

from fuzz import Files, hostile
from fuzz.handmade import BY_HAND
from fuzz.set_seeds import npz
from pointlift.core.errors import PointLiftError
from pointlift.data.cloud import PointCloud
from pointlift.data.files import FORMATS, write


def example_clouds(points: int = 12) -> list[PointCloud]:
    """A bare cloud, one with everything, one far from the origin."""
    draw = np.random.default_rng(0)
    xyz = draw.normal(size=(points, 3)).astype(np.float32)
    normals = (xyz / np.linalg.norm(xyz, axis=1, keepdims=True)).astype(np.float32)
    feats = {
        "colors": draw.integers(0, 256, (points, 3)).astype(np.uint8),
        "normals": normals,
        "intensity": draw.random(points).astype(np.float32),
        "semantic": draw.integers(0, 5, points),
    }
    far = PointCloud.from_array(xyz.astype(np.float64) + np.array([4e5, 5.2e6, 100.0]), "far")
    return [PointCloud(xyz), PointCloud(xyz, feats), far]


def clouds(ending: str) -> list[Files]:
    """Seeds of one file ending; a format that appears in the registry is covered by its writer at once."""
    files = _written(ending)
    files += [_as_files(ending, made) for made in (*BY_HAND.get(ending, ()), *hostile.clouds(ending))]
    if not files:
        files = [{f"cloud{ending}": b"0 0 0\n1 0 0\n0 1 0\n"}]  # better ones belong into fuzz/handmade.py
    return files


def _as_files(ending: str, made: bytes | Files) -> Files:
    return {f"cloud{ending}": made} if isinstance(made, bytes) else made


def _written(ending: str) -> list[Files]:
    if FORMATS.get(ending).write is None:
        return []
    found: list[Files] = []
    for cloud in example_clouds():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"cloud{ending}"
            try:
                write(cloud, path)
            except PointLiftError:
                continue  # the format cannot hold it
            found.append({f"cloud{ending}": path.read_bytes()} | _folder(Path(folder)))
    return found


def _folder(folder: Path) -> Files:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def pickles() -> list[Files]:
    """For the machine that reads the caches of released codes."""
    return [{"cache.pkl": data} for data in hostile.pickles()]


def checkpoints() -> list[Files]:
    """`torch.save` in both layouts, safetensors, and pickles that want to run code."""
    import torch
    from safetensors.torch import save

    state = {"module.a.weight": torch.arange(12.0).reshape(3, 4), "module.b": torch.ones(2, dtype=torch.int64)}
    metrics = {"acc": np.float64(0.5)}
    files: list[Files] = []
    for legacy in (False, True):
        out = io.BytesIO()
        torch.save(
            {"base_model": state, "epoch": 3, "metrics": metrics}, out, _use_new_zipfile_serialization=not legacy
        )
        files.append({"model.pth": out.getvalue()})
    bf16 = {"a": torch.ones(2, 2, dtype=torch.bfloat16), "h": torch.ones(3, dtype=torch.float16), "e": torch.ones(0, 3)}
    files.append({"model.safetensors": save(state, {"note": "x"})})
    files.append({"model.safetensors": save(bf16)})
    return [*files, *({"model.pth": data} for data in (*hostile.pickles(), hostile.swelling_checkpoint()))]


def models() -> list[Files]:
    """Our own model file and folder, and one released layout's first keys."""
    import torch

    from pointlift.weights.modelfile import describe, write_model_file

    state = {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2)}
    said = describe("point_mae_tiny", {"depth": 2}, state, classes=("x", "y"), preprocess={"points": 64})
    with tempfile.TemporaryDirectory() as folder:
        data = write_model_file(Path(folder) / "m.safetensors", state, said).read_bytes()
    return [
        {"model.safetensors": data},
        {"model/weights.safetensors": data, "model/model.json": json.dumps(said).encode()},
    ]


def runs() -> list[Files]:
    """A run folder as `finetune` leaves it, without the model."""
    draw = np.random.default_rng(0)
    record = {
        "task": "classification", "dataset": {"name": "x", "classes": ["a", "b"], "splits": {"train": 4, "test": 2}},
        "metrics": {"overall_accuracy": 0.5, "class_accuracy": [1.0, 0.0]}, "seed": 0, "points": 64,
    }  # fmt: skip
    epochs = b"".join(
        json.dumps({"event": "epoch", "epoch": i, "loss": 1.5 - i, "lr": 1e-3}).encode() + b"\n" for i in range(3)
    )
    predictions = npz(
        logits=draw.normal(size=(2, 2)).astype(np.float32), label=np.array([0, 1]), index=np.array([0, 1]),
        names=np.array(["a/1", "b/2"]), xyz_i16=draw.integers(-9, 9, (1, 5, 3)).astype(np.int16),
        xyz_index=np.array([1]),
    )  # fmt: skip
    return [
        {
            "record.json": json.dumps(record, indent=1).encode(),
            "metrics.jsonl": epochs,
            "predictions.npz": predictions,
            "config.yaml": b"task: classification\nepochs: 3\n",
        }
    ]


def recipes() -> list[Files]:
    """The packaged recipes, and YAML's darker corners."""
    from pointlift.core.config import recipe_names, recipe_text

    good = [{"recipe.yaml": recipe_text(name)[0].encode()} for name in recipe_names()]
    return [*good, *({"recipe.yaml": data} for data in hostile.YAML)]


def forks() -> list[Files]:
    """Configurations of the Point-BERT family, each with a data set's file, and YAML's darker corners."""
    wide = "{trans_dim: 48, depth: 2, drop_path_rate: 0.1, num_heads: 4"
    patches = "group_size: 8, num_group: 16"
    levels = (
        "group_sizes: [8, 4], num_groups: [32, 8], encoder_depths: [1, 1], encoder_dims: [12, 24], "
        "local_radius: [0.3, 0.6], drop_path_rate: 0.1, num_heads: 3"
    )
    tokens = f"{patches}, encoder_dims: 16, num_tokens: 32, tokens_dims: 16, decoder_dims: 16"
    models = (
        f"{wide}, {patches}, encoder_dims: 48, cls_dim: 15, NAME: PointTransformer}}",
        f"{wide}, {patches}, encoder_dims: 24, cls_dim: 40, NAME: PointTransformer}}",
        f"{{NAME: Point_MAE, {patches}, loss: cdl1, transformer_config: {wide}, encoder_dims: 48, mask_ratio: 0.5, "
        "mask_type: 'rand', decoder_depth: 1, decoder_num_heads: 4}}",
        f"{{NAME: DiscreteVAE, {tokens}}}",
        f"{{NAME: Point_BERT, m: 0.9, T: 0.1, K: 32, transformer_config: {wide}, mask_ratio: [0.2, 0.4], cls_dim: 8, "
        f"replace_pob: 0., moco_loss: False}}, dvae_config: {{{tokens}, ckpt: 'dvae.pth'}}}}",
        f"{{NAME: Point_M2AE, {levels}, mask_ratio: 0.8, decoder_depths: [1], decoder_dims: [24], "
        "decoder_up_blocks: [1]}",
        f"{{NAME: Point_M2AE_ModelNet40, {levels}, smooth: 0.3}}",
        f"{{NAME: Point_M2AE_ScanObjectNN, {levels}}}",
        "{NAME: PointMamba, depth: 3}",
    )
    bases = (
        b"NAME: ScanObjectNN_hardest\nROOT: data/ScanObjectNN/main_split\n",
        b"NAME: ModelNet\nDATA_PATH: data/m40\nN_POINTS: 8192\nNUM_CATEGORY: 40\nUSE_NORMALS: FALSE\n",
        b"NAME: ShapeNet\nDATA_PATH: data/s/ShapeNet-55\nN_POINTS: 8192\nPC_PATH: data/s/shapenet_pc\n",
        b"NAME: ScanObjectNN\nROOT: data\nSPLIT: OBJ-BG\n",
    )
    files: list[Files] = []
    for number, model in enumerate(models):
        text = (
            "optimizer: {type: AdamW, kwargs: {lr: 0.0005, weight_decay: 0.05}}\n"
            "scheduler: {type: CosLR, kwargs: {epochs: 300, initial_epochs: 10}}\n"
            "temp: {start: 1, target: 0.06, ntime: 100}\nkldweight: {start: 0, target: 0.1, ntime: 100}\n"
            "dataset:\n"
            "  train: {_base_: sets/a.yaml, others: {subset: 'train', npoints: 64}}\n"
            "  val: {_base_: sets/a.yaml, others: {subset: 'test'}}\n"
            "  test: {_base_: sets/ModelNet40.yaml, others: {subset: 'test'}}\n"
            f"model: {model}\n"
            "npoints: 64\ntotal_bs: 8\nstep_per_update: 1\nmax_epoch: 3\ngrad_norm_clip: 10\nconsider_metric: CDL1\n"
        )
        files.append({"fork.yaml": text.encode(), "sets/a.yaml": bases[number % len(bases)]})
    return [*files, *({"fork.yaml": data} for data in hostile.YAML)]
