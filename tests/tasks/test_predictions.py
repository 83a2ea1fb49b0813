"""Clouds chosen for the report, and the file that holds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pointlift.data.config import DataConfig
from pointlift.data.loading import load_dataset
from pointlift.tasks.classification import Scores
from pointlift.tasks.predictions import GALLERY_POINTS, gallery, write_predictions


def scores(pred: list[int], label: list[int], sure: list[float]) -> Scores:
    logits = np.zeros((len(pred), 3), np.float32)
    logits[np.arange(len(pred)), pred] = sure
    return Scores(logits, np.array(label), np.arange(len(pred)))


def test_surest_mistakes_then_right_ones_of_each_class_in_turn() -> None:
    found = scores([0, 1, 1, 2, 0, 0, 2], [0, 0, 2, 2, 0, 1, 2], [1, 2, 9, 1, 1, 5, 1])
    assert gallery(found, 4).tolist() == [2, 5, 0, 3]  # two mistakes by confidence; a 0 and a 2
    assert gallery(found, 7).tolist() == [2, 5, 1, 0, 3, 4, 6]
    assert gallery(found, 100).tolist() == [2, 5, 1, 0, 3, 4, 6]


def test_all_right_or_all_wrong() -> None:
    assert gallery(scores([0, 1], [0, 1], [1, 1]), 2).tolist() == [0, 1]
    assert gallery(scores([1, 0], [0, 1], [1, 2]), 2).tolist() == [1, 0]  # the room that right ones leave is used


def test_kept_clouds_are_those_of_the_split(data: Path, tmp_path: Path) -> None:
    dataset = load_dataset(data)
    assert dataset.test is not None
    label = dataset.test.labels
    logits = np.eye(4, dtype=np.float32)[label]
    config = DataConfig(points=64)
    write_predictions(tmp_path, Scores(logits, label, np.arange(12)), dataset.test, dataset.meta, config, keep_clouds=3)
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as saved:
        assert saved["xyz_i16"].shape == (3, GALLERY_POINTS, 3)
        assert saved["xyz_i16"].dtype == np.int16
        assert saved["xyz_index"].tolist() == [0, 1, 2]
        assert saved["names"].tolist() == list(dataset.test.names)
        assert saved["classes"].tolist() == list(dataset.meta.classes)
        kept = saved["xyz_i16"][1] / 32767
    stored = dataset.test[1]["xyz"]
    stored = stored - stored.mean(0)
    stored /= np.linalg.norm(stored, axis=1).max()
    distance = np.abs(kept[:, None] - stored[None]).max(-1).min(1)
    assert distance.max() < 1e-4
