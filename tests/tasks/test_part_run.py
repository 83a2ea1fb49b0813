"""Part segmentation from data to answers: one run, resumed, scored, read back, and asked about clouds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from part_runs import CATEGORIES, MODEL, PARTS, parts_config, shape, write_parts
from tiny_runs import write_data

import pointlift as pl
from pointlift.core.errors import ConfigError, DataError, UsageError
from pointlift.data.loading import load_dataset
from pointlift.models.registry import create_model
from pointlift.tasks.config import VoteConfig, finetune_config
from pointlift.tasks.evaluate import evaluate
from pointlift.tasks.finetune import finetune
from pointlift.tasks.predict_parts import carried, segment, segment_many
from pointlift.tasks.run import Run

PARITY = Path(__file__).parents[1] / "parity" / "files"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finetune(parts_config(data, epochs=4), out=tmp_path_factory.mktemp("runs") / "run")


def test_the_record(run: Run) -> None:
    record = run.record.data
    assert record["task"] == "part_segmentation"
    assert record["epoch_rule"] == "best on validation"
    assert set(run.record.metrics) == {"instance_miou", "class_miou", "overall_accuracy", "loss"}
    assert record["dataset"]["splits"] == {"train": 12, "val": 4, "test": 6}
    assert record["categories"].keys() == set(CATEGORIES)
    lines = [json.loads(line) for line in (run.out / "metrics.jsonl").read_text().splitlines()]
    values = [line["val"]["instance_miou"] for line in lines if line.get("event") == "epoch"]
    assert record["validation"]["instance_miou"] == max(values)
    losses = [line["train"]["loss"] for line in lines if line.get("event") == "epoch"]
    assert losses[-1] < losses[0]


def test_predictions_agree_with_the_record(run: Run, data: Path) -> None:
    with np.load(run.out / "predictions.npz") as saved:
        arrays = dict(saved)
    assert float((arrays["pred"] == arrays["part"]).mean()) == pytest.approx(run.record.metrics["overall_accuracy"])
    assert arrays["iou"].mean() == pytest.approx(run.record.metrics["instance_miou"])
    assert tuple(arrays["parts"]) == PARTS
    test = load_dataset(data).test.with_fields("part")
    row = int(np.flatnonzero(arrays["index"] == arrays["xyz_index"][0])[0])
    stored = test[int(arrays["xyz_index"][0])]
    # The kept points are points of the cloud, each with its own part.
    own = (stored["xyz"] - stored["xyz"].mean(0)).astype(np.float32)
    own /= np.linalg.norm(own, axis=1).max()
    apart = np.linalg.norm(own[None] - arrays["xyz_i16"][0][:, None] / 32767, axis=-1)
    assert apart.min(1).max() < 1e-4
    np.testing.assert_array_equal(stored["part"][apart.argmin(1)], arrays["part"][row])


def test_evaluation_is_the_score_of_the_run(run: Run, data: Path) -> None:
    found = evaluate(run.model, load_dataset(data))
    assert found.metrics == pytest.approx(run.record.metrics)
    assert found.record.data["task"] == "part_segmentation"
    random = evaluate(run.model, load_dataset(data), data={"resample": {"test": "random"}})
    assert random.record.data["preprocessing"]["resample"]["test"] == "random"
    assert random.metrics != found.metrics


def test_resuming_ends_alike(data: Path, tmp_path: Path) -> None:
    whole = finetune(parts_config(data), out=tmp_path / "whole")

    def stop(line: dict) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(parts_config(data), out=tmp_path / "cut", on_epoch=stop)
    resumed = finetune(parts_config(data), out=tmp_path / "cut", resume=True)
    assert resumed.record.metrics == whole.record.metrics
    weights = [(r.out / "model" / "weights.safetensors").read_bytes() for r in (whole, resumed)]
    assert weights[0] == weights[1]


def test_every_point_gets_a_part_in_its_order(run: Run) -> None:
    xyz, _ = shape(0, np.random.default_rng(7), 500)
    said = run.predict(xyz, category="lollipop")
    assert said.part.shape == said.certainty.shape == (500,)
    assert set(np.unique(said.part)) <= {0, 1}
    assert said.certainty.min() >= 0.5 - 1e-6  # of two parts the more probable one
    assert sum(said.counts.values()) == 500
    assert json.loads(json.dumps(said.to_dict()))["points"] == 500
    # Sampling begins at the first point: with the others in any order the model reads the same points.
    order = np.concatenate([[0], 1 + np.random.default_rng(8).permutation(499)])
    np.testing.assert_array_equal(segment(run.model, xyz[order], "lollipop").part, said.part[order])


def test_small_and_large_clouds_and_bad_files(run: Run, tmp_path: Path) -> None:
    np.savetxt(tmp_path / "small.xyz", np.random.default_rng(0).standard_normal((5, 3)))
    (tmp_path / "bad.ply").write_text("nothing")
    said = {p.path.name: (p, cloud) for p, cloud in segment_many(run.model, [tmp_path], "table")}
    assert len(said["small.xyz"][0].part) == 5
    assert "groups of 8" in said["small.xyz"][0].notes[0]
    assert said["bad.ply"][0].error
    assert said["bad.ply"][1] is None
    assert said["bad.ply"][0].to_dict()["parts"] is None


def test_the_category_must_be_named_and_known(run: Run) -> None:
    xyz, _ = shape(0, np.random.default_rng(7))
    with pytest.raises(UsageError, match="lollipop, table"):
        run.predict(xyz)
    with pytest.raises(UsageError, match="Did you mean 'table'"):
        pl.predict(run.model, xyz, category="Table")
    classifier = create_model("point_mae_tiny", num_classes=3)
    with pytest.raises(UsageError, match="labels whole clouds"):
        pl.predict(classifier, xyz, category="table")
    with pytest.raises(UsageError, match="no head for parts"):
        segment(classifier, xyz, "table")


def test_a_category_without_parts_is_none_to_ask_about(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class of the data set that no cloud had."""
    monkeypatch.setattr(run.model, "categories", {"lollipop": (), "table": (2, 3)})
    xyz, _ = shape(1, np.random.default_rng(7))
    with pytest.raises(UsageError, match=r"category 'lollipop'.*one of table"):
        segment(run.model, xyz, "lollipop")
    np.testing.assert_array_equal(np.unique(segment(run.model, xyz).part) >= 2, True)  # the only one need not be named


def test_one_point(run: Run) -> None:
    said = segment(run.model, np.array([[3.0, 4.0, 5.0]]), "table")
    assert said.part.shape == (1,)
    assert "1 point" in said.notes[0]


def test_values_are_carried_by_distance() -> None:
    known = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [9, 9, 9], [0, 0, 0]], np.float32)
    values = np.array([[1.0], [2.0], [4.0], [100.0], [1.0]])
    np.testing.assert_allclose(carried(known, known, values), values, rtol=1e-9)
    between = carried(np.array([[0.5, 0, 0]], np.float32), known, values)
    weights = np.array([4.0, 4.0, 1 / 1.25])
    assert between[0, 0] == pytest.approx((weights @ [1, 2, 4]) / weights.sum())
    assert carried(known, known[:1], values[:1]).tolist() == [[1.0]] * 5


def test_a_model_in_memory(data: Path, tmp_path: Path) -> None:
    dataset = load_dataset(data)
    options = {k: v for k, v in MODEL["options"].items() if k != "part_head"}
    model = create_model("point_transformer", head="parts", part_head={"fetch": [0, 1]}, **options)
    settings = {"epochs": 1, "data": {"points": 64, "batch_size": 8, "val_fraction": 0.25}}
    made = pl.finetune(model, dataset, out=tmp_path / "run", **settings)
    assert made.record.data["task"] == "part_segmentation"
    back = pl.load(made.out)
    assert back.categories == {"lollipop": (0, 1), "table": (2, 3)}
    assert pl.predict(back, shape(1, np.random.default_rng(0))[0], category="table").part.min() >= 2
    with pytest.raises(ConfigError, match="no paper votes on parts"):  # the model decides the task
        pl.finetune(back, dataset, out=tmp_path / "votes", vote={"rounds": 1}, **settings)
    wrong = create_model("point_mae_tiny", num_classes=4)
    with pytest.raises(UsageError, match="head for 4 classes"):
        pl.finetune(wrong, dataset, out=tmp_path / "other", task="part_segmentation", **settings)


def test_a_trunk_begins_from_pre_trained_weights(run: Run, data: Path, tmp_path: Path) -> None:
    """Another data set with other parts: the trunk comes from the run, the head is new."""
    other = write_parts(tmp_path / "other", train=8, test=2, seed=3)
    with np.load(other / "train.npz") as saved:
        arrays = dict(saved)
    np.savez(
        other / "train.npz",
        **arrays | {"parts": np.array([*PARTS, "more"]), "part": arrays["part"] + arrays["label"][:, None] // 1},
    )
    (other / "test.npz").unlink()
    config = parts_config(other, epochs=1, model={"pretrained": str(run.out)}, optim={"lr": 1e-12, "weight_decay": 0.0})
    made = finetune(config, out=tmp_path / "run")
    before, after = run.model.state_dict(), made.model.state_dict()
    trunk = [k for k in before if k.startswith("trunk.") and k.endswith("weight")]
    for key in trunk:
        torch.testing.assert_close(after[key], before[key], atol=1e-5, rtol=0)
    assert after["head.logits.fc.weight"].shape[0] == 5
    assert made.record.data["model"]["pretrained"] == str(run.out)


def test_wrong_use(run: Run, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no paper votes"):
        evaluate(run.model, load_dataset(data), protocol="vote", vote=VoteConfig(rounds=1))
    with pytest.raises(ConfigError, match="no paper votes on parts"):
        parts_config(data, vote={"rounds": 2})
    plain = write_data(tmp_path / "plain")
    with pytest.raises(UsageError, match="which has no parts"):
        finetune(parts_config(plain), out=tmp_path / "a")
    with pytest.raises(UsageError, match="head mlp3 for part segmentation"):
        finetune(parts_config(data, model={"options": {"head": "mlp3"}}), out=tmp_path / "b")
    classifier = finetune_config(
        None, {"data": str(data), "model": {"name": "point_mae_tiny", "options": {"head": "parts"}}}
    )
    with pytest.raises(UsageError, match="--task part_segmentation"):
        finetune(classifier, out=tmp_path / "c")
    with pytest.raises(DataError, match="Fine-tune the model"):
        evaluate(run.model, load_dataset(write_caps(tmp_path / "caps")))


def write_caps(root: Path) -> Path:
    """Two caps in ShapeNetPart's layout."""
    (root / "train_test_split").mkdir(parents=True)
    (root / "02954340").mkdir()
    (root / "synsetoffset2category.txt").write_text("Cap\t02954340\n")
    rng = np.random.default_rng(0)
    for i in range(2):
        rows = np.concatenate([rng.standard_normal((60, 6)), 6 + (rng.random((60, 1)) < 0.5)], 1)
        np.savetxt(root / "02954340" / f"{i}.txt", rows, fmt=["%.5f"] * 6 + ["%d"])
    for name in ("train", "val", "test"):
        listed = ["shape_data/02954340/0", "shape_data/02954340/1"] if name == "test" else []
        (root / "train_test_split" / f"shuffled_{name}_file_list.json").write_text(json.dumps(listed))
    return root


def test_a_released_checkpoint_scores_shapenetpart(tmp_path: Path) -> None:
    """Official names and 16 categories at small sizes: it knows what its numbers mean, and a set of caps alone."""
    small = {384: 48, 1536: 192, 1152: 144, 1024: 32, 3392: 32 + 2 * 144 + 64, 1155: 147, 512: 24, 256: 12, 128: 8}
    generator = torch.Generator().manual_seed(0)
    keys = json.loads((PARITY / "point-mae-partseg.keys.json").read_text())["keys"]
    state = {
        key: torch.rand([small.get(n, n) for n in dims], generator=generator) * 0.1 if dims else torch.tensor(7)
        for key, dims in keys.items()
    }
    torch.save({"model_state_dict": state, "epoch": 1}, tmp_path / "part_seg.pth")
    model = pl.load(tmp_path / "part_seg.pth")
    assert list(model.categories)[:3] == ["Airplane", "Bag", "Cap"]
    assert model.preprocess["points"] == 2048
    found = evaluate(model, load_dataset(write_caps(tmp_path / "caps")), data={"points": 256})
    assert set(np.unique(found.scores.pred)) <= {6, 7}
    assert list(found.record.data["categories"]) == ["Cap"]
    said = pl.predict(model, np.random.default_rng(0).standard_normal((300, 3)), category="Motorbike")
    assert set(said.counts) == {f"Motorbike/{i}" for i in range(6)}
