"""Run folders made of nothing but numpy, in the format that a finished run has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

EVERYDAY = (
    *("airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone", "cup"),
    *("curtain", "desk", "door", "dresser", "flower_pot", "glass_box", "guitar", "keyboard", "lamp", "laptop"),
    *("mantel", "monitor", "night_stand", "person", "piano", "plant", "radio", "range_hood", "sink", "sofa"),
    *("stairs", "stool", "table", "tent", "toilet", "tv_stand", "vase", "wardrobe", "xbox"),
)


def class_names(count: int) -> list[str]:
    """`count` names of everyday length; past forty with a number behind."""
    return [EVERYDAY[i % 40] + (f"_{i // 40 + 1}" if i >= 40 else "") for i in range(count)]


def logits_and_labels(count: int, classes: int, accuracy: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits with about the given accuracy; mistakes go to a few neighbouring classes, as they do in life."""
    rng = np.random.default_rng(seed)
    label = np.sort(rng.integers(0, classes, count))
    label[:classes] = np.arange(classes)[: len(label[:classes])]
    difficulty = rng.uniform(0.3, 1.7, classes)
    answer = label.copy()
    wrong = rng.random(count) < (1 - accuracy) * difficulty[label]
    answer[wrong] = (label[wrong] + rng.choice([1, 1, 1, 2, classes // 2 or 1], wrong.sum())) % classes
    logits = rng.normal(0, 1, (count, classes)).astype(np.float32)
    logits[np.arange(count), answer] += rng.uniform(3, 9, count)
    logits[np.arange(count), label] += 1.5
    return logits, label


def solid(kind: int, rng: np.random.Generator, count: int = 1024) -> np.ndarray:
    """Points (count, 3) on a stool, a mug, an arrow or a ring, z up; enough to see something turn."""
    u, v = rng.uniform(0, 2 * np.pi, count), rng.uniform(0, 1, count)
    part = rng.random(count)
    if kind % 4 == 0:  # stool: seat and four legs
        seat = np.stack([np.sqrt(v) * np.cos(u) * 0.5, np.sqrt(v) * np.sin(u) * 0.5, 0.5 + 0.06 * (part > 0.3)], 1)
        corner = rng.integers(0, 4, count) * np.pi / 2 + 0.78
        legs = np.stack(
            [0.38 * np.cos(corner) + 0.04 * np.cos(u), 0.38 * np.sin(corner) + 0.04 * np.sin(u), v * 1.1 - 0.6], 1
        )
        xyz = np.where(part[:, None] < 0.5, seat, legs)
    elif kind % 4 == 1:  # mug: wall, floor, handle
        wall = np.stack([0.42 * np.cos(u), 0.42 * np.sin(u), v - 0.5], 1)
        floor = np.stack([np.sqrt(v) * 0.42 * np.cos(u), np.sqrt(v) * 0.42 * np.sin(u), np.full(count, -0.5)], 1)
        bend = (v - 0.5) * np.pi
        handle = np.stack(
            [
                0.4 + (0.28 + 0.05 * np.cos(u)) * np.cos(bend),
                0.05 * np.sin(u),
                (0.28 + 0.05 * np.cos(u)) * np.sin(bend),
            ],
            1,
        )
        xyz = np.where(part[:, None] < 0.62, wall, np.where(part[:, None] < 0.78, floor, handle))
    elif kind % 4 == 2:  # plane: body, wings, tail
        body = np.stack([v * 2 - 1, 0.12 * np.cos(u), 0.12 * np.sin(u)], 1)
        wings = np.stack([0.3 * part - 0.05 - 0.25 * np.abs(v * 2 - 1), (v * 2 - 1) * 0.9, 0.02 * np.cos(u)], 1)
        tail = np.stack([-0.95 + 0.2 * part, 0.01 * np.cos(u), v * 0.4], 1)
        xyz = np.where(part[:, None] < 0.5, body, np.where(part[:, None] < 0.88, wings, tail))
    else:  # ring
        w = v * 2 * np.pi
        xyz = np.stack([(0.6 + 0.2 * np.cos(w)) * np.cos(u), (0.6 + 0.2 * np.cos(w)) * np.sin(u), 0.2 * np.sin(w)], 1)
    return (xyz * rng.uniform(0.8, 1.2, 3)).astype(np.float32)


def epoch_lines(count: int, *, held: str = "val") -> list[dict[str, Any]]:
    """Plausible learning curves."""
    rng = np.random.default_rng(1)
    lines: list[dict[str, Any]] = [{"event": "start", "classes": 16}]
    for epoch in range(count):
        t = (epoch + 1) / max(count, 2)
        train = 0.25 + 2.5 * np.exp(-5 * t) + 0.02 * rng.normal()
        val = 0.42 + 2.3 * np.exp(-4.5 * t) + 0.06 * rng.normal()
        lines.append(
            {
                "event": "epoch",
                "epoch": epoch,
                "step": 40 * (epoch + 1),
                "lr": 5e-4 * min(1.0, (epoch + 1) / 3) * 0.5 * (1 + np.cos(np.pi * t)) + 1e-6,
                "train": {"loss": train, "accuracy": 0.95 - 0.8 * np.exp(-4 * t), "grad_norm": 1.0},
                held: {
                    "loss": val,
                    "overall_accuracy": 0.9 - 0.75 * np.exp(-4.4 * t) + 0.01 * rng.normal(),
                    "mean_class_accuracy": 0.88 - 0.75 * np.exp(-4.2 * t) + 0.01 * rng.normal(),
                },
                "seconds": 9.5,
                "samples_seen": 3200 * (epoch + 1),
            }
        )
    return [*lines, {"event": "end"}]


def write_run(
    folder: Path,
    *,
    classes: list[str] | int = 16,
    count: int = 800,
    accuracy: float = 0.88,
    epochs: int = 30,
    clouds: int = 0,
    names: list[str] | None = None,
    record: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a run folder and return its record; `record` replaces top-level keys (None removes one)."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = class_names(classes) if isinstance(classes, int) else classes
    logits, label = logits_and_labels(count, len(labels), accuracy, seed=len(labels))
    index = np.arange(count)
    arrays: dict[str, np.ndarray] = {
        "logits": logits,
        "label": label,
        "index": index,
        "names": np.array(names or [f"test/{labels[k]}/{i:04d}.npy" for i, k in enumerate(label)]),
    }
    right = logits.argmax(1) == label
    recall = [right[label == k].mean() for k in range(len(labels)) if (label == k).any()]
    if clouds:
        rng = np.random.default_rng(2)
        wrong, good = np.flatnonzero(~right), np.flatnonzero(right)
        some = [*wrong[: clouds // 3], *rng.choice(good, clouds - len(wrong[: clouds // 3]), replace=False)]
        arrays["xyz_index"] = np.array(some, dtype=np.int64)
        arrays["xyz_i16"] = np.stack(
            [np.clip(solid(int(label[i]), rng) / 1.5 * 32767, -32767, 32767).astype(np.int16) for i in some]
        )
    np.savez_compressed(folder / "predictions.npz", **arrays)

    content: dict[str, Any] = {
        "schema": 1,
        "task": "classification",
        "protocol": "plain",
        "command": "pointlift finetune demo/shapes --train.epochs 30 --seed 0 --out runs/demo",
        "recipe": "demo/shapes",
        "dataset": {
            "name": "shapes",
            "variant": "everyday-16",
            "root": "shapes",
            "content_hash": "9f31c2a86be7d4410c5f2a7e83b96d10",
            "splits": {"train": 3200, "val": 400, "test": count},
            "classes": labels,
            "up_axis": "z",
            "native_points": 2048,
            "unit": None,
            "note": "Procedural shapes, made from a seed on the fly.",
        },
        "split": "test",
        "metrics": {
            "overall_accuracy": float(right.mean()),
            "mean_class_accuracy": float(np.mean(recall)),
            "loss": 0.4127,
        },
        "validation": {"overall_accuracy": 0.8925, "mean_class_accuracy": 0.8871, "loss": 0.3951},
        "points": 1024,
        "augmentation": {"scale": [0.8, 1.25], "shift": 0.1},
        "seed": 0,
        "voting": {"rounds": 0, "pool": "none"},
        "epoch_rule": "best on validation",
        "epoch": max(0, epochs - 4),
        "epochs": epochs,
        "samples_seen": 96000,
        "model": {
            "arch": "point_mae_tiny",
            "config": {"embed_dim": 192, "depth": 6},
            "adaptation": "full",
            "pretrained": None,
            "parameters": 2913744,
            "trainable": 2913744,
            "trainable_without_head": 2748112,
            "hash": "c2aa81",
        },
        "quirks": {},
        "checkpoint_sha256": "5f0c3a7be19d44c08e2b6a91d7f3c5e00b1846aa3fd97c2e64d8b5107ce92f3a",
        "versions": {"pointlift": "0.1.0", "python": "3.11.7", "torch": "2.13.0+cpu", "numpy": "2.4.0"},
        "device": {"name": "CPU (AVX2)", "threads": 2, "precision": "float32"},
        "time": {"started": "2026-11-21T14:48:39+00:00", "train_seconds": 284.6, "evaluate_seconds": 2.31},
    }
    for key, value in (record or {}).items():
        if value is None:
            content.pop(key, None)
        else:
            content[key] = value
    (folder / "record.json").write_text(json.dumps(content), "utf-8")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in epoch_lines(epochs)), "utf-8")
    (folder / "config.yaml").write_text("recipe: demo/shapes\ntrain:\n  epochs: 30\n  lr: 0.0005\n", "utf-8")
    return content


def write_pretraining(
    folder: Path,
    *,
    clouds: int = 6,
    epochs: int = 10,
    masked: bool = True,
    codes: bool = False,
    monitor: bool = False,
    record: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the folder of a pre-training run and return its record; without `clouds` nothing was rebuilt.

    Half of each cloud was seen; what was rebuilt of the other half is off by a tenth.
    """
    names = [EVERYDAY[i % 40] for i in range(clouds)]
    changed = {
        "task": "pretraining",
        "protocol": "pre-training",
        "split": "val",
        "metrics": {"loss": 0.0312} | ({"svm_accuracy": 0.71} if monitor else {}),
        "objective": {"name": "masked" if masked else "dvae", "mask_ratio": 0.6},
        "validation": None,
    }
    content = write_run(folder, classes=2, count=4, epochs=epochs, record=changed | (record or {}))
    (folder / "predictions.npz").unlink()
    lines = epoch_lines(epochs)
    for line in lines:
        if line["event"] == "epoch":
            line["train"], line["val"] = {"loss": line["train"]["loss"]}, {"loss": line["val"]["loss"]}
            if monitor:
                line["val"]["svm_accuracy"] = 0.4 + 0.03 * line["epoch"]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    if not clouds:
        return content
    rng = np.random.default_rng(3)
    whole = [solid(i, rng, 512) for i in range(clouds)]
    nothing = [np.zeros((0, 3), np.float32)] * clouds
    asked = [xyz[256:] if masked else xyz for xyz in whole]
    parts = {
        "whole": whole,
        "given": [xyz[:256] for xyz in whole] if masked else nothing,
        "target": asked,
        "rebuilt": [(xyz + 0.1 * rng.standard_normal(xyz.shape)).astype(np.float32) for xyz in asked],
        "coarse": nothing if masked else [xyz[::4] for xyz in whole],
    }
    scale = np.array([2 * np.abs(xyz).max() for xyz in whole], np.float32)

    def small(xyz: np.ndarray, i: int) -> np.ndarray:
        return np.round((xyz / scale[i]).clip(-1, 1) * 32767).astype(np.int16)

    arrays: dict[str, np.ndarray] = {
        "split": np.array("val"),
        "names": np.array(names),
        "index": np.arange(clouds),
        "scale": scale,
        "cd_l1": np.linspace(0.01, 0.02, clouds).astype(np.float32),
        "cd_l2": np.linspace(0.001, 0.002, clouds).astype(np.float32),
        "centers_i16": np.stack([small(xyz[::32], i) for i, xyz in enumerate(whole)]),
    }
    if codes:
        arrays["codes"] = np.arange(16 * clouds).reshape(clouds, 16) % 20
    for part, several in parts.items():
        arrays[f"{part}_i16"] = np.concatenate([small(xyz, i) for i, xyz in enumerate(several)])
        arrays[f"{part}_count"] = np.array([len(xyz) for xyz in several])
    np.savez_compressed(folder / "reconstructions.npz", **arrays)
    return content
