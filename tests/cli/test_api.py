"""The Python calls of design section 6, as a newcomer types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import CLASSES, MODEL, POINTS, cloud

import pointlift as pl

SMALL = {
    "data": {"points": POINTS, "batch_size": 8, "val_fraction": 0.25},
    "optim": {"lr": 3e-3},
    "schedule": {"warmup_epochs": 0},
    "epochs": 2,
}


def small(num_classes: int = 0) -> pl.PointModel:
    return pl.create_model("point_transformer", num_classes=num_classes, **MODEL["options"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "chair.ply"
    pl.write(pl.PointCloud(cloud(1, np.random.default_rng(2), 90)), path)
    return path


def test_names_are_there_and_light() -> None:
    code = "import sys, pointlift; assert not {'torch', 'numpy'} & sys.modules.keys(); print(len(dir(pointlift)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    for name in pl.__all__:
        assert getattr(pl, name) is not None
    assert set(pl.__all__) == set(dir(pl))
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        _ = pl.nosuch


def test_from_file_to_label(data: Path, file: Path, tmp_path: Path) -> None:
    assert pl.read(file).xyz.shape == (90, 3)
    model = small(4)
    handle = pl.adapt_model(model, "full")
    assert "trainable" in str(handle.report())
    out = tmp_path / "run"
    run = pl.finetune(model, pl.load_dataset(data), out=out, **SMALL)
    assert 0 <= run.record.metrics["overall_accuracy"] <= 1
    assert run.predict(file).label in CLASSES
    assert (out / "report.html").is_file()
    loaded = pl.load(out)
    for given in (loaded, out, str(out), run.model):
        assert pl.predict(given, file).probabilities == pytest.approx(run.predict(file).probabilities)
    assert pl.predict(loaded, pl.read(file)).label == pl.predict(loaded, pl.read(file).xyz).label
    assert repr(run) == f"Run({str(out)!r})"


def test_model_and_data_by_name(data: Path, recipe: Path, tmp_path: Path) -> None:
    run = pl.finetune("point_transformer", data, out=tmp_path / "run", recipe=str(recipe), adaptation="linear")
    assert run.record.data["model"]["adaptation"] == "linear"
    assert run.record.data["dataset"]["root"] == str(data)
    assert json.loads((tmp_path / "run" / "record.json").read_text())["command"] is None


def test_adapter_on_its_base(data: Path, file: Path, tmp_path: Path) -> None:
    """A head learned on a frozen base, saved alone, and put back on the base."""
    base = pl.finetune(small(), data, out=tmp_path / "base", **SMALL)
    model = pl.load(base.out)
    handle = pl.adapt_model(model, "linear")
    run = pl.finetune(model, data, out=tmp_path / "run", **SMALL)
    expected = run.predict(file)
    handle.save(tmp_path / "adapter.safetensors")
    assert (tmp_path / "adapter.safetensors").stat().st_size < (
        base.out / "model" / "weights.safetensors"
    ).stat().st_size

    again = pl.load(tmp_path / "adapter.safetensors", base=base.out)
    found = pl.predict(again, file)
    assert found.label == expected.label
    assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
    onto = pl.load(base.out)
    pl.load_adapter(onto, tmp_path / "adapter.safetensors")
    assert pl.predict(onto.eval(), file).probabilities == pytest.approx(expected.probabilities, abs=1e-6)
    assert pl.predict(pl.load(tmp_path / "adapter.safetensors"), file).label == expected.label
    other = pl.finetune(small(), data, out=tmp_path / "other", seed=1, **SMALL)
    with pytest.raises(pl.PointLiftError, match="another base"):
        pl.load(tmp_path / "adapter.safetensors", base=other.out)


def test_resume(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = small(4)
    first = pl.finetune(model, data, out=tmp_path / "run", **SMALL)
    torch.manual_seed(0)
    again = pl.finetune(small(4), data, out=tmp_path / "run", resume=True, **SMALL)
    assert again.record.metrics == first.record.metrics
    with pytest.raises(pl.PointLiftError, match="epochs was 2 and is 3"):
        pl.finetune(small(4), data, out=tmp_path / "run", resume=True, **SMALL | {"epochs": 3})
    with pytest.raises(pl.PointLiftError, match="is not empty"):
        pl.finetune(small(4), data, out=tmp_path / "run", **SMALL)


def test_contradictions_are_refused(data: Path, tmp_path: Path) -> None:
    model = small(4)
    pl.adapt_model(model, "full")
    with pytest.raises(pl.PointLiftError, match="one of the two"):
        pl.finetune(model, data, out=tmp_path / "run", adaptation="linear")
    with pytest.raises(pl.PointLiftError, match="'epochs'"):
        pl.finetune(model, data, out=tmp_path / "run", epoch=3)
    with pytest.raises(pl.PointLiftError, match="int as model"):
        pl.predict(3, np.zeros((9, 3)))
    assert not (tmp_path / "run").exists()


def test_evaluate_a_model_in_memory(data: Path) -> None:
    model = small(4)
    model.classes = CLASSES
    found = pl.evaluate(model, pl.load_dataset(data), data={"points": POINTS})
    assert found.metrics.keys() == {"overall_accuracy", "mean_class_accuracy", "loss"}
    assert found.scores.logits.shape == (12, 4)
