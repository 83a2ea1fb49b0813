"""Reading a run folder: what may be missing, and what is refused with a clear error."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pointlift.core.errors import DataError, FileFormatError
from pointlift.report.run import read_epochs, read_run


def test_not_a_run_folder(tmp_path):
    with pytest.raises(DataError, match=r"has no record\.json.*Expected: a run folder with record\.json") as error:
        read_run(tmp_path)
    assert "pointlift finetune" in error.value.fix
    with pytest.raises(DataError, match="is not a folder"):
        read_run(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "\x00", "[" * 100_000])
def test_malformed_record(tmp_path, content):
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(FileFormatError, match=r"record\.json"):
        read_run(tmp_path)


def test_not_finite_numbers_become_none(tmp_path):
    (tmp_path / "record.json").write_text('{"metrics": {"loss": NaN, "list": [Infinity, 1]}}')
    assert read_run(tmp_path).record == {"metrics": {"loss": None, "list": [None, 1]}}


def test_epochs_of_a_run_that_was_killed_and_resumed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [{"event": "start"}, *({"event": "epoch", "epoch": e, "lr": lr} for e, lr in [(0, 1), (1, 2), (1, 3)])]
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"event": "epo')
    epochs, unread = read_epochs(path)
    assert [(line["epoch"], line["lr"]) for line in epochs] == [(0, 1), (1, 3)]
    assert unread == 1


def save(folder, **arrays):
    (folder / "record.json").write_text('{"dataset": {"classes": ["a", "b", "c"]}}')
    good = {"logits": np.zeros((4, 3), np.float32), "label": np.zeros(4, np.int64)}
    np.savez(folder / "predictions.npz", **{k: v for k, v in (good | arrays).items() if v is not None})


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"logits": None}, "no array 'logits'"),
        ({"label": np.zeros(3, np.int64)}, r"label is int64 \(3,\)"),
        ({"label": np.zeros(4, np.float32)}, "label is float32"),
        ({"label": np.array([0, 1, 2, 3])}, "label 3 is outside the classes.*0 to 2"),
        ({"label": np.array([0, -1, 2, 1])}, "label -1 is outside"),
        ({"logits": np.zeros((4, 2), np.float32)}, "2 columns.*names 3"),
        ({"names": np.array([1, 2, 3, 4])}, "names is int64"),
        ({"names": np.array(["a", None, 1, {}], dtype=object)}, "Python objects"),
        ({"xyz_i16": np.zeros((1, 8, 3), np.float32), "xyz_index": np.zeros(1, np.int64)}, "xyz_i16 is float32"),
        ({"xyz_i16": np.zeros((1, 8, 3), np.int16), "xyz_index": np.array([9])}, "xyz_index 9 is not in index"),
        ({"xyz_i16": np.zeros((1, 8, 3), np.int16)}, "xyz_index"),
    ],
)
def test_malformed_predictions(tmp_path, arrays, message):
    save(tmp_path, **arrays)
    with pytest.raises(FileFormatError, match=message):
        read_run(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04cut short"])
def test_predictions_that_are_no_archive(tmp_path, content):
    save(tmp_path)
    (tmp_path / "predictions.npz").write_bytes(content)
    with pytest.raises(FileFormatError, match=r"predictions\.npz"):
        read_run(tmp_path)


def test_predictions_that_are_not_finite_are_counted(tmp_path):
    logits = np.array([[0, 1, 2], [np.nan, 5, 1], [np.inf, 0, 0], [1, 0, 0]], np.float32)
    save(tmp_path, logits=logits)
    predictions = read_run(tmp_path).predictions
    assert predictions is not None
    assert predictions.not_finite == 2
    assert np.isfinite(predictions.logits).all()
