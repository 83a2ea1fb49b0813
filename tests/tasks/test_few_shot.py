"""The few-shot protocol: which clouds make a fold, what learns on it, and what a record says of many."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_runs import MODEL, RECIPE, cli, refused, write_data

import pointlift as pl
from pointlift.core.config import build
from pointlift.core.errors import ConfigError, UsageError
from pointlift.data.config import DataConfig
from pointlift.data.loading import load_dataset
from pointlift.data.sets.few_shot_draw import draw_folds, fold_dataset
from pointlift.data.sets.few_shot_folds import make_few_shot
from pointlift.models.base import PointModel
from pointlift.tasks import few_shot
from pointlift.tasks.config import FewShotConfig, SvmConfig
from pointlift.tasks.few_shot import FoldResult, evaluate_few_shot, summary
from pointlift.tasks.finetune import finetune
from pointlift.weights.reported import POINT_MAE, rows_for

SMALL = FewShotConfig(way=2, shot=3, folds=3, test_shot=3)


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("clouds"), train=40, test=20)


@pytest.fixture
def model() -> PointModel:
    network = pl.create_model(MODEL["name"], **MODEL["options"])
    network.preprocess = {"points": 64}
    return network.eval()


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Fine-tuning of the tiny model, a few steps."""
    values = yaml.safe_load(RECIPE) | {"epochs": 2, "select": "last"}
    values["data"]["val_fraction"] = 0.0
    path = tmp_path_factory.mktemp("recipe") / "few.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def test_settings() -> None:
    assert FewShotConfig().pairs == ((5, 10),)
    assert FewShotConfig(settings="all").pairs == ((5, 10), (5, 20), (10, 10), (10, 20))
    assert FewShotConfig(settings="5x10, 3x1").pairs == ((5, 10), (3, 1))
    for wrong in ("5", "5x", "ax3", "1x5", "5x0", "5x10,"):
        with pytest.raises(ValueError, match="settings"):
            FewShotConfig(settings=wrong)


@pytest.mark.parametrize("options", [{"recipe": "x"}, {"adaptation": "lora"}, {"epochs": 3}, {"select": "test"}])
def test_what_trains_goes_with_training(options: dict[str, Any]) -> None:
    assert FewShotConfig(how="finetune", **options)
    with pytest.raises(ValueError, match="how svm"):
        FewShotConfig(**options)


def test_a_fold_has_few_clouds_of_few_classes(clouds: Path) -> None:
    data = load_dataset(clouds)
    for number, drawn in enumerate(draw_folds(data, 2, 3, 4, test_shot=3)):
        fold = fold_dataset(data, drawn, number)
        assert fold.meta.name == f"{data.meta.name}_few_shot"
        assert fold.meta.variant == f"2-way 3-shot, fold {number}"
        assert np.bincount(fold.train.class_labels()).tolist() == [3, 3]
        assert np.bincount(fold.part("test").class_labels()).tolist() == [3, 3]
        for part, whole in ((fold.train, data.train), (fold.part("test"), data.part("test"))):
            assert len(set(part.rows)) == 6, "no cloud twice"
            for i in range(len(part)):  # labels name the class that the cloud has in the whole set
                original = whole.class_labels()[list(whole.rows).index(part.rows[i])]
                assert fold.meta.classes[part.class_labels()[i]] == data.meta.classes[original]


def test_drawn_folds_are_those_that_prepare_writes(clouds: Path, tmp_path: Path, model: PointModel) -> None:
    data = load_dataset(clouds)
    make_few_shot(data, 2, 3, 3, seed=7, out=tmp_path, test_shot=3)
    drawn, read = (
        evaluate_few_shot(model, few_shot=SMALL, svm=SvmConfig(C=0.1), data={"root": str(root)}, seed=7, device="cpu")
        for root in (clouds, tmp_path)
    )
    assert drawn[0].metrics == read[0].metrics
    folds = [record[0].data["few_shot"]["folds"] for record in (drawn, read)]
    assert folds[0] == folds[1]
    assert [r[0].data["few_shot"]["origin"] for r in (drawn, read)] == [
        "drawn here with seed 7",
        "as published or prepared",
    ]
    other = evaluate_few_shot(model, data, few_shot=SMALL, svm=SvmConfig(C=0.1), seed=8, device="cpu")
    assert [f["classes"] for f in other[0].data["few_shot"]["folds"]] != [f["classes"] for f in folds[0]]


def test_mean_and_spread() -> None:
    results = [
        FoldResult(i, ("a", "b"), {"overall_accuracy": a, "mean_class_accuracy": a / 2}, {})
        for i, a in enumerate((0.5, 0.7, 0.9))
    ]
    found = summary(results)
    assert found == pytest.approx(
        {
            "overall_accuracy": 0.7,
            "mean_class_accuracy": 0.35,
            "overall_accuracy_std": 0.2,
            "overall_accuracy_std_population": 0.2 * np.sqrt(2 / 3),
        }
    )
    assert set(summary(results[:1])) == {"overall_accuracy", "mean_class_accuracy"}


def test_the_record(clouds: Path, model: PointModel) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    (record,) = evaluate_few_shot(model, load_dataset(clouds), few_shot=SMALL, svm=SvmConfig(C=0.1), device="cpu")
    said = record.data
    assert (said["protocol"], said["split"], said["points"]) == ("few-shot", "test", 64)
    assert said["dataset"]["splits"] == {"train": 6, "test": 6}
    assert said["dataset"]["variant"] == "2-way 3-shot, 3 folds"
    assert (said["few_shot"]["way"], said["few_shot"]["shot"], said["few_shot"]["how"]) == (2, 3, "svm")
    assert said["model"]["pretrained"] is None
    accuracies = [fold["metrics"]["overall_accuracy"] for fold in said["few_shot"]["folds"]]
    assert record.metrics["overall_accuracy"] == pytest.approx(np.mean(accuracies))
    assert record.metrics["overall_accuracy_std"] == pytest.approx(np.std(accuracies, ddof=1))
    assert np.mean(accuracies) > 0.6  # classes that their proportions give away
    assert said["features"]["pooling"] == "mean+max"
    assert all((model.state_dict()[name] == value).all() for name, value in before.items())


def test_a_cloud_is_embedded_once(clouds: Path, model: PointModel) -> None:
    config = replace(SMALL, settings="2x3,2x4,3x3")
    records = evaluate_few_shot(model, load_dataset(clouds), few_shot=config, svm=SvmConfig(C=0.1), device="cpu")
    assert len(records) == 3
    assert [r.data["few_shot"]["shot"] for r in records] == [3, 4, 3]
    computed = [r.data["features"]["computed"] for r in records]
    assert sum(computed) <= 60, "the set has sixty clouds"
    assert sum(computed) + sum(r.data["features"]["cached"] for r in records) == 3 * (6 + 6 + 8 + 6 + 9 + 9)


def test_folds_that_train(clouds: Path, model: PointModel, recipe: str, tmp_path: Path, monkeypatch) -> None:
    config = replace(SMALL, how="finetune", recipe=recipe, folds=2)
    out = tmp_path / "folds"
    trained: list[Path] = []

    def counted(*args, out: Path, **options):
        trained.append(out)
        if len(trained) == 2 and interrupt:
            raise KeyboardInterrupt
        return finetune(*args, out=out, **options)

    monkeypatch.setattr(few_shot, "finetune", counted)
    interrupt = True
    with pytest.raises(KeyboardInterrupt):
        evaluate_few_shot(model, load_dataset(clouds), few_shot=config, device="cpu", out=out)
    interrupt = False
    first = (out / "2w3s" / "fold_0" / "record.json").read_text()
    (record,) = evaluate_few_shot(model, load_dataset(clouds), few_shot=config, device="cpu", out=out, resume=True)
    assert (out / "2w3s" / "fold_0" / "record.json").read_text() == first, "a finished fold is not trained again"
    assert json.loads((out / "2w3s" / "record.json").read_text())["metrics"] == record.metrics
    assert not (out / "2w3s" / "fold_1" / "checkpoints").exists()
    assert (record.data["epoch_rule"], record.data["epochs"]) == ("last", 2)
    assert record.data["model"]["adaptation"] == "full"
    assert record.data["few_shot"]["folds"][1]["chosen"] == {"epoch": 1}
    assert record.data["device"]["precision"] in ("fp32", "bf16")
    again = evaluate_few_shot(model, load_dataset(clouds), few_shot=config, device="cpu")
    assert again[0].metrics == record.metrics, "the same without a folder"
    with pytest.raises(UsageError, match="fits no SVM"):
        evaluate_few_shot(model, load_dataset(clouds), few_shot=config, svm=SvmConfig(C=1.0), device="cpu")
    assert model.config.num_classes == 0
    with pytest.raises(UsageError, match="not empty"):
        evaluate_few_shot(model, load_dataset(clouds), few_shot=config, device="cpu", out=out)
    other = replace(config, epochs=3)
    with pytest.raises(UsageError, match="started otherwise"):
        evaluate_few_shot(model, load_dataset(clouds), few_shot=other, device="cpu", out=out, resume=True)


def test_the_published_rule_and_a_frozen_trunk(clouds: Path, model: PointModel, recipe: str) -> None:
    config = replace(
        *(SMALL,),
        how="finetune",
        recipe=recipe,
        folds=1,
        select="test",
        adaptation="linear",
        epochs=1,
        settings="2x3,3x3",
    )
    record, wider = evaluate_few_shot(model, load_dataset(clouds), few_shot=config, device="cpu")
    head = [r.data["model"]["trainable"] for r in (record, wider)]
    assert head[0] != head[1], "the head has as many outputs as the setting has ways"
    assert record.data["epoch_rule"] == "best on test"
    assert record.data["model"]["adaptation"] == "linear"
    assert record.data["config"]["epochs"] == 1
    assert "overall_accuracy_std" not in record.metrics


def test_every_family_has_a_recipe_for_folds() -> None:
    for arch, name in (
        *(("point_mae_tiny", "point_mae"), ("point_bert_base", "point_bert"), ("point_m2ae_tiny", "point_m2ae")),
        ("point_transformer", "point_mae"),
    ):
        network = pl.create_model(arch)
        assert few_shot._recipe_of(network) == f"{name}/modelnet40_few_shot"


def test_published_scores_beside_ours(clouds: Path, model: PointModel) -> None:
    (record,) = evaluate_few_shot(model, load_dataset(clouds), few_shot=SMALL, svm=SvmConfig(C=0.1), device="cpu")
    said = record.data
    said["dataset"]["name"] = "modelnet40_few_shot"
    said["few_shot"] |= {"way": 5, "shot": 10}
    beside = next(b for b in rows_for(said) if b.row.system == POINT_MAE[0])
    assert beside.row.value == 0.963
    assert not beside.same_data
    assert "the published folds, here drawn with seed 0" in beside.differs
    assert "everything learned, here linear SVM" in beside.differs
    said["few_shot"]["origin"] = "as published or prepared"
    assert next(b for b in rows_for(said) if b.row.system == POINT_MAE[0]).same_data


def test_what_is_refused(clouds: Path, model: PointModel, tmp_path: Path) -> None:
    data = load_dataset(clouds)
    with pytest.raises(UsageError, match="4 classes"):
        evaluate_few_shot(model, data, few_shot=replace(SMALL, way=5), device="cpu")
    with pytest.raises(UsageError, match=r"few_shot\.how finetune"):
        evaluate_few_shot(model, data, few_shot=SMALL, out=tmp_path, device="cpu")
    with pytest.raises(UsageError, match=r"svm\.C"):
        evaluate_few_shot(model, data, few_shot=replace(SMALL, shot=1), device="cpu")
    with pytest.raises(UsageError, match="official"):
        evaluate_few_shot(model, data, few_shot=SMALL, svm=SvmConfig(C="official"), device="cpu")
    make_few_shot(data, 2, 3, 2, out=tmp_path / "few", test_shot=3)
    with pytest.raises(UsageError, match=r"fold 2.*few_shot\.folds 2"):
        evaluate_few_shot(
            model, few_shot=SMALL, svm=SvmConfig(C=0.1), data={"root": str(tmp_path / "few")}, device="cpu"
        )
    with pytest.raises(ConfigError, match="how"):
        build(FewShotConfig, {"how": "guess"})


def test_the_command_line(clouds: Path, tmp_path: Path) -> None:
    small = ("--few_shot.test_shot", "3", "--few_shot.folds", "2", "--svm.C", "0.1")
    words = ("evaluate", "point_mae_tiny", "--protocol", "few-shot", "--data.root", clouds, "--data.points", "64")
    one = cli(*words, *small, "--few_shot.way", "2", "--few_shot.shot", "3", "--seed", "3", "--json")
    assert one.code == 0, one.err
    document = json.loads(one.out)
    assert document["protocol"] == "few-shot"
    assert 0 <= document["metrics"]["overall_accuracy"] <= 1
    assert "fold 1" in one.err
    several = cli(*words, *small, "--few_shot.settings", "2x3,3x2", "--seed", "3", "--json")
    records = json.loads(several.out)["records"]
    assert records[0]["metrics"] == document["metrics"]
    assert json.loads(several.out)["metrics"]["overall_accuracy_2w3s"] == document["metrics"]["overall_accuracy"]
    assert "settings" not in records[1]["command"]
    assert records[1]["command"].endswith("--few_shot.way 3 --few_shot.shot 2")
    assert "--seed 3" in records[1]["command"]
    again = cli(*shlex.split(records[0]["command"])[1:], "--json", "--no-cache")
    assert json.loads(again.out)["record"]["metrics"] == document["metrics"], "what `pointlift verify` runs"
    table = cli(*words, *small, "--few_shot.settings", "2x3,3x2")
    assert [line.split()[0] for line in table.out.splitlines()] == ["setting", "2w3s", "3w2s"]
    refused(cli(*words, "--split", "val"), "folds have parts of their own", code=2)
    refused(cli(*words, "--resume"), "--out", code=2)
    refused(cli(*words, "--vote.rounds", "2"), "--protocol vote", code=2)
    refused(cli(*words[:2], *words[4:], "--few_shot.way", "5"), "--protocol few-shot", code=2)
    refused(cli(*words[:2], *words[4:], "--out", tmp_path), "--protocol few-shot", code=2)
    refused(cli(*words, "--few_shot.settings", "5"), "way x shot", code=2)


def test_which_configurations_read_folds() -> None:
    assert not few_shot._has_folds(DataConfig(name="class_folders", root="."))
    assert few_shot._has_folds(DataConfig(name="modelnet40_few_shot", root="nowhere"))
