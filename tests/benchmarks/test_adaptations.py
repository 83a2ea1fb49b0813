"""The grid of adaptations on a handful of clouds: what is finished stays, what is missing is made, all of it counts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import adaptations
from pointlift.core.config import to_dict
from pointlift.core.errors import PointLiftError
from pointlift.models.registry import create_model
from pointlift.weights.modelfile import describe, write_model_file

SMALL = {
    "num_groups": 6,
    "group_size": 4,
    "embed_dim": 12,
    "depth": 1,
    "patch_widths": [6, 8, 10],
    "pos_hidden": 5,
    "head_hidden": [7, 9],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of boxes, told apart by their proportions."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for part, count in (("train", 60), ("test", 12)):
        label = np.arange(count) % 3
        sides = np.array([[1, 1, 1], [1, 1, 0.1], [1, 0.1, 0.1]])[label]
        points = (rng.uniform(-1, 1, (count, 32, 3)) * sides[:, None]).astype(np.float32)
        np.savez(root / f"{part}.npz", points=points, label=label, classes=np.array(["cube", "plate", "rod"]))
    return root


def grid(data: Path, out: Path, *words: str, methods: str = "full,linear", seeds: str = "0,1") -> int:
    return adaptations.main(
        [
            *("--data", str(data), "--out", str(out / "runs"), "--record", str(out / "record"), "--jobs", "0"),
            *("--methods", methods, "--seeds", seeds, "--epochs", "2", "--limit", "24", "--val-limit", "6"),
            *("--rates", "1e-4,1e-2", "--lr", "linear=0.02"),
            *("--points", "32", "--batch-size", "8", "--pretrained", "point_mae_tiny=false"),
            *("--model-options", json.dumps(SMALL)),
            *words,
        ]
    )


@pytest.fixture(scope="module")
def out(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished grid of two methods and two seeds; read only."""
    out = tmp_path_factory.mktemp("grid")
    assert grid(data, out) == 0
    return out


def test_the_record_counts_every_run(out: Path) -> None:
    record = json.loads((out / "record.json").read_text())
    assert record["claim"].startswith("none: 2 seeds")
    assert record["dataset"]["splits"] == {"train": 24, "val": 6, "test": 12}
    assert record["left"] == []
    rows = {row["method"]: row for row in record["rows"]}
    assert rows["full"]["trainable_without_head"] > 1000
    assert rows["linear"]["trainable_without_head"] == 0
    assert rows["linear"]["rates_tried"].keys() == {"0.02"}
    assert rows["linear"]["rate"] == 0.02
    for method, row in rows.items():
        runs = [r for r in record["runs"] if r["method"] == method]
        assert [r["seed"] for r in runs] == row["seeds"] == [0, 1]
        for rule in ("last", "chosen"):
            scores = [r[rule]["overall_accuracy"] for r in runs]
            assert row[f"{rule}_overall_accuracy"]["mean"] == pytest.approx(np.mean(scores))
            assert row[f"{rule}_overall_accuracy"]["std"] == pytest.approx(np.std(scores, ddof=1))
    gains = rows["linear"]["chosen_minus_full"]["values"]
    pairs = zip(*(rows[m]["chosen_overall_accuracy"]["values"] for m in ("linear", "full")), strict=True)
    assert gains == pytest.approx([a - b for a, b in pairs])
    assert "chosen_minus_full" not in rows["full"]


def test_validation_chooses_the_rate_with_the_first_seed(out: Path) -> None:
    (row,) = [r for r in json.loads((out / "record.json").read_text())["rows"] if r["method"] == "full"]
    folder = out / "runs" / "point_mae_tiny" / "full"
    scores = {}
    for name in ("lr0.0001", "lr0.01"):
        said = json.loads((folder / name / "s0" / adaptations.CELL).read_text())["validation"]
        scores[name] = (said["overall_accuracy"], -said["loss"])
        assert row["rates_tried"][name[2:]] == said["overall_accuracy"]
    best = max(scores, key=scores.__getitem__)
    assert f"lr{row['rate']:g}" == best
    assert sorted(p.parent.name for p in folder.glob("*/s1")) == [best]


def test_a_rate_at_which_training_fails_is_not_chosen(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cell = adaptations.run_cell

    def diverge(plan: adaptations.Plan, cell: adaptations.Cell, out: Path) -> dict:
        if cell.rate == 0.01:
            raise PointLiftError("the loss is nan", "a finite loss")
        return run_cell(plan, cell, out)

    monkeypatch.setattr(adaptations, "run_cell", diverge)
    assert grid(data, tmp_path, "--rates", "1e-4,0.0001,1e-2", methods="full", seeds="0") == 1
    assert "the loss is nan" in capsys.readouterr().err
    (row,) = json.loads((tmp_path / "record.json").read_text())["rows"]
    assert (row["rate"], list(row["rates_tried"])) == (1e-4, ["0.0001"])


def test_the_scores_are_those_of_the_weights(data: Path, out: Path) -> None:
    """`chosen` are the weights of the run folder; `last` were those of its newest checkpoint."""
    from pointlift.data.loading import load_dataset
    from pointlift.tasks.evaluate import evaluate
    from pointlift.tasks.run import Run

    (folder,) = (out / "runs" / "point_mae_tiny" / "full").glob("*/s1")
    cell = json.loads((folder / adaptations.CELL).read_text())
    scored = evaluate(Run(folder).model, load_dataset(data), precision="fp32").metrics
    assert cell["chosen"]["overall_accuracy"] == scored["overall_accuracy"]
    assert cell["last"]["epoch"] == 1
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    best = max(
        (line["val"]["overall_accuracy"], -line["val"]["loss"], line["epoch"]) for line in lines if "val" in line
    )
    assert cell["chosen"]["epoch"] == best[2]
    assert not (folder / "checkpoints").exists()


def test_the_table_and_the_picture(out: Path) -> None:
    lines = (out / "record.md").read_text().splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| point_mae_tiny | `full` | ")
    assert lines[3].startswith("| point_mae_tiny | `linear` | 0 | ")
    assert "±" in lines[2]
    assert (out / "record.png").read_bytes()[:4] == b"\x89PNG"


def test_finished_cells_stay_and_missing_ones_are_made(
    data: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[adaptations.Cell] = []
    run_cell = adaptations.run_cell
    monkeypatch.setattr(
        adaptations, "run_cell", lambda plan, cell, out: (made.append(cell), run_cell(plan, cell, out))[1]
    )
    assert grid(data, out, seeds="0,1", methods="full,linear,mlp3") == 0
    assert [(c.method, c.rate, c.seed) for c in made[:2]] == [("mlp3", 1e-4, 0), ("mlp3", 1e-2, 0)]
    assert [(c.method, c.seed) for c in made[2:]] == [("mlp3", 1)]
    said = capsys.readouterr().out
    assert "5 cells, 3 of them finished" in said
    assert "6 cells, 5 of them finished" in said


def test_another_protocol_needs_another_folder(data: Path, out: Path) -> None:
    with pytest.raises(SystemExit, match=r"full/lr0.0001/s0/cell.json was made under another protocol"):
        grid(data, out, "--epochs", "3")


def test_the_weights_that_runs_begin_with_are_part_of_the_protocol(out: Path, tmp_path: Path) -> None:
    """Other tensors in the file of the same name are another protocol."""
    name = "point_mae_tiny"
    plan = adaptations.Plan("data", None, 32, 24, 6, 2, 8, 0, model_options=SMALL)
    cell = adaptations.Cell(name, "full", 1e-2, 0)
    assert json.loads((cell.folder(out / "runs") / adaptations.CELL).read_text())["starting_weights"] is None
    model = create_model(name, num_classes=3, **SMALL)
    hashes = []
    for value in (0.0, 1.0):
        path, state = tmp_path / "base.safetensors", model.state_dict()
        state["trunk.blocks.0.norm1.bias"].fill_(value)
        write_model_file(path, state, describe(model.arch, to_dict(model.config), state, classes=None, preprocess={}))
        begun = replace(plan, pretrained={name: str(path)})
        adaptations.starting_weights.cache_clear()
        hashes.append(adaptations.protocol(begun, cell)["starting_weights"])
    assert None not in hashes
    assert hashes[0] != hashes[1]
    done = cell.folder(tmp_path) / adaptations.CELL
    done.parent.mkdir(parents=True)
    said = adaptations.protocol(begun, cell)
    done.write_text(json.dumps({"protocol": {**said, "starting_weights": hashes[0]}}))
    with pytest.raises(SystemExit, match="another protocol"):
        adaptations.known(begun, cell, tmp_path)
    done.write_text(json.dumps({"protocol": said}))
    assert adaptations.known(begun, cell, tmp_path)


def test_without_budget_nothing_begins(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert grid(data, tmp_path, "--budget-minutes", "-1") == 1
    assert capsys.readouterr().err.count("the budget is used up") == 3


def test_a_method_that_cannot_run_does_not_stop_the_others(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = json.dumps({"linear": {"no_such_option": 1}})
    assert grid(data, tmp_path, "--options", options, seeds="0", methods="linear,mlp3") == 1
    said = capsys.readouterr()
    assert "no_such_option" in said.err
    assert "`mlp3`" in said.out
