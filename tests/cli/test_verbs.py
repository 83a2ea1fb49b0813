"""Every verb: what it prints where, and with which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from adapter_files import write_adapter, write_base
from released_forks import released_state
from tiny_runs import CLASSES, MODEL, Ended, cli, cloud, refused, write_data

import pointlift as pl
from pointlift.adapt.memory_bank import BankFacts, MemoryBank

KINDS = ("models", "weights", "adaptations", "objectives", "sources", "datasets", "recipes")


def document(ended: Ended) -> dict:
    """The one JSON document that stdout is."""
    assert ended.code == 0, ended.err

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(ended.out, parse_constant=refuse)


def test_help_and_version_need_neither_torch_nor_numpy() -> None:
    code = """
import sys, io, contextlib
from pointlift.cli import main
for words in (["--help"], ["--version"], ["finetune", "--help"], ["nosuch"], ["finetune", "demo/shap"],
              ["finetune", "demo/shapes", "--print-config"], ["recipe", "show", "demo/shapes"], ["list", "recipes"]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try: main(words)
        except SystemExit: pass
    slow = {"torch", "numba", "scipy", "sklearn"} & sys.modules.keys()
    assert not slow, (words, slow)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_names_every_verb() -> None:
    out = cli("--help").out
    first = ("demo", "list", "info", "recipe", "finetune", "evaluate", "predict", "features", "convert")
    for verb in (*first, "push", "report"):
        assert verb in out
        assert cli(verb, "--help").code == 0
    assert cli("--version").out.startswith("pointlift ")


def test_no_words_shows_help_as_wrong_use() -> None:
    ended = cli()
    assert ended.code == 2
    assert "Usage: pointlift" in ended.err
    assert "error" not in ended.err


@pytest.mark.parametrize("kind", KINDS)
def test_list(kind: str) -> None:
    rows = document(cli("list", kind, "--json"))
    table = cli("list", kind)
    assert table.code == 0
    assert isinstance(rows, list)
    for row in rows:
        assert row["name"] in table.out
        assert all(value for key, value in row.items() if key not in ("url", "reported", "quirks", "note", "paper"))
    assert document(cli("list", kind, "no-such-*", "--json")) == []
    assert f"no {kind} match" in cli("list", kind, "no-such-*").out


def test_list_pattern() -> None:
    names = [row["name"] for row in document(cli("list", "models", "*mae*", "--json"))]
    assert names == pl.list_models("*mae*")
    assert "point_transformer" not in names


def test_info_of_name_run_and_file(run: Path) -> None:
    named = document(cli("info", "point_mae_base", "--json"))
    assert named["parameters"] == sum(named["parameters_by_part"].values())
    assert named["gflops"] > 1
    assert "point_mae_base.scan_hardest" in named["weights"]
    tagged = document(cli("info", "point_mae_base.modelnet_1k", "--json"))
    assert list(tagged["weights"]) == ["point_mae_base.modelnet_1k"]
    later = document(cli("info", "any2point.clip_scan", "--json"))
    assert later["arch"] is None
    assert later["weights"]["any2point.clip_scan"]["load"].startswith("not built yet")
    assert "attention runs across the batch" in cli("info", "any2point.clip_scan").out

    about = document(cli("info", run, "--json"))
    assert about["classes"] == list(CLASSES)
    assert about["input"]["xyz"] == [1, 64, 3]
    assert about["file"]["measured"]["epoch_rule"] == "best on validation"
    assert about["file"]["measured"]["metrics"] == json.loads((run / "record.json").read_text())["metrics"]
    file = document(cli("info", run / "model" / "weights.safetensors", "--json"))
    assert file["parameters"] == about["parameters"]
    assert "measured" not in file["file"]
    text = cli("info", run)
    assert text.code == 0
    assert "point_transformer" in text.out
    assert "ball, box, disc, rod" in text.out
    assert "weights best on validation" in text.out


def test_info_of_an_adapter_needs_no_base(tmp_path: Path) -> None:
    model = pl.create_model(MODEL["name"], num_classes=4, **MODEL["options"])
    pl.adapt_model(model, "linear").save(tmp_path / "adapter.safetensors")
    about = document(cli("info", tmp_path / "adapter.safetensors", "--json"))
    assert about["file"]["holds"] == "adapter"
    assert about["file"]["adaptation"]["name"] == "linear"
    assert about["file"]["base"]["found"] is False


def test_info_of_an_adapter_says_what_it_needs(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base.safetensors")
    path = write_adapter(tmp_path / "a.safetensors", base, "mlp3")
    file = document(cli("info", path, "--json"))["file"]
    assert file["counts"] == {"adaptation": "mlp3", "parameters": 5428, "trainable": 932, "trainable_without_head": 0}
    assert (file["base"]["from"], file["base"]["found"]) == (str(base), True)
    assert len(file["base"]["hash"]) == 64
    text = cli("info", path).out
    assert "learned: 932 parameters (0 without the head) of 5,428" in text
    base.unlink()
    assert document(cli("info", path, "--json"))["file"]["base"]["found"] is False


def test_info_of_a_model_with_a_memory_bank(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base.safetensors")
    model = pl.create_model("point_transformer", pretrained=base, num_classes=4)
    rows = torch.nn.functional.normalize(torch.randn(30, 16), dim=1).half()
    bank = MemoryBank(rows, BankFacts(dataset="shapes", size=40))
    handle = pl.adapt_model(model, "point_peft", bank=bank)
    path = handle.save(tmp_path / "a.safetensors")
    said = document(cli("info", path, "--json"))["file"]["bank"]
    beside = tmp_path / "a.bank.safetensors"
    assert (said["rows"], said["dataset"], said["size"], said["found"]) == (30, "shapes", 40, True)
    assert said["bytes"] == beside.stat().st_size
    beside.unlink()
    ended = cli("info", path)
    assert ended.code == 0
    assert "found False" in ended.out


def test_a_line_about_each_adaptation_with_its_paper() -> None:
    rows = {row["name"]: row for row in document(cli("list", "adaptations", "--json"))}
    assert {"full", "linear", "mlp3", "lora", "point_peft"} <= rows.keys()
    assert "2310.03059" in rows["point_peft"]["paper"]
    assert all(row["about"].endswith((".", "…", ")")) and len(row["about"]) > 10 for row in rows.values())
    assert all(row["paper"] for name, row in rows.items() if name != "full")


def test_recipe_show_and_copy(tmp_path: Path) -> None:
    shown = cli("recipe", "show", "demo/shapes")
    copied = cli("recipe", "copy", "demo/shapes", tmp_path / "mine.yaml")
    assert copied.code == 0
    assert (tmp_path / "mine.yaml").read_text() == shown.out
    assert cli("finetune", tmp_path / "mine.yaml", "--print-config").code == 0
    refused(cli("recipe", "copy", "demo/shapes", tmp_path / "mine.yaml"), "exists already", code=2)
    refused(cli("recipe", "copy", "demo/shapes", tmp_path / "mine.txt"), ".yaml", code=2)
    refused(cli("recipe", "show", "demo/shape"), "Did you mean 'demo/shapes'", code=2)


def test_print_config_is_a_recipe(tmp_path: Path, recipe: Path) -> None:
    ended = cli("finetune", recipe, "--seed", "7", "--optim.lr=0.5", "--print-config")
    assert ended.code == 0
    assert ended.err == ""
    config = yaml.safe_load(ended.out)
    assert (config["seed"], config["optim"]["lr"], config["model"]["name"]) == (7, 0.5, "point_transformer")
    (tmp_path / "whole.yaml").write_text(ended.out)
    assert cli("finetune", tmp_path / "whole.yaml", "--print-config").out == ended.out


def test_finetune_prints_one_json_document(recipe: Path, tmp_path: Path) -> None:
    ended = cli("finetune", recipe, "--epochs", "1", "--out", tmp_path / "run", "--json")
    said = document(ended)
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert said == {"protocol": "plain", "metrics": record["metrics"], "record": record}
    assert record["command"] == f"pointlift finetune {recipe} --epochs 1"
    assert (tmp_path / "run" / "report.html").is_file()


def test_finetune_prints_score_and_progress(recipe: Path, tmp_path: Path) -> None:
    ended = cli("finetune", recipe, "--epochs", "2", "--out", tmp_path / "run")
    assert ended.code == 0
    assert len(ended.out.splitlines()) == 1
    assert "% overall accuracy" in ended.out
    assert "best on validation" in ended.out
    assert "epoch 2/2" in ended.err
    assert "report.html" in ended.err


def test_default_out(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("finetune", recipe, "--epochs", "1", "--seed", "5").code == 0
    (out,) = (tmp_path / "runs" / "tiny").iterdir()
    assert out.name.endswith("-s5")
    assert (out / "record.json").is_file()


def test_out_that_holds_something(recipe: Path, run: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("precious")
    (tmp_path / "origin.json").write_text("also precious")
    refused(cli("finetune", recipe, "--out", tmp_path), "is not empty", "--resume", code=2)
    refused(cli("finetune", recipe, "--out", tmp_path, "--resume"), "is not empty", code=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "origin.json", "thesis.doc"]
    refused(cli("finetune", recipe, "--out", run), "is not empty", code=2)


def test_resume(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert cli("finetune", recipe, "--epochs", "1", "--out", out).code == 0
    weights = (out / "model" / "weights.safetensors").read_bytes()
    refused(cli("finetune", recipe, "--resume"), "--out DIR", code=2)
    changed = cli("finetune", recipe, "--epochs", "2", "--out", out, "--resume")
    refused(changed, "epochs was 1 and is 2", code=2)
    refused(cli("finetune", "demo/shapes", "--out", out, "--resume"), "the recipe was", code=2)
    # The same command, with or without its options, goes on (here: there is nothing left to do).
    assert cli("finetune", recipe, "--out", out, "--resume").code == 0
    assert cli("finetune", recipe, "--epochs", "1", "--out", out, "--resume").code == 0
    assert (out / "model" / "weights.safetensors").read_bytes() == weights
    assert json.loads((out / "record.json").read_text())["command"].endswith("--epochs 1")


def test_demo(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pointlift.cli import demo

    monkeypatch.setattr(demo, "RECIPE", str(recipe))
    monkeypatch.chdir(tmp_path)
    ended = cli("demo")
    assert ended.code == 0, ended.err
    assert {"record.json", "report.html"} <= {p.name for p in Path("runs/demo").iterdir()}
    # Two runs, each with a command that makes it again, and a page that compares them.
    assert json.loads(Path("runs/demo/record.json").read_text())["command"] == f"pointlift finetune {recipe}"
    beside = json.loads(Path("runs/demo/from_scratch/record.json").read_text())
    assert beside["command"] == f"pointlift finetune {recipe} --model.pretrained false"
    assert beside["model"]["pretrained"] is None
    assert "2 runs compared" in Path("runs/demo/comparison.html").read_text()
    refused(cli("demo"), "runs/demo is not empty", code=2)
    assert cli("demo", "--resume").code == 0


def test_demo_recipe_is_the_one_that_the_issue_asks_for() -> None:
    config = yaml.safe_load(cli("finetune", "demo/shapes", "--print-config").out)
    assert config["data"]["name"] == "shapes"
    assert config["select"] == "validation"
    assert config["keep_clouds"] > 0


def test_evaluate_run_folder(run: Path, data: Path, tmp_path: Path) -> None:
    metrics = json.loads((run / "record.json").read_text())["metrics"]
    said = document(cli("evaluate", run, "--json"))
    assert said.keys() == {"protocol", "metrics", "record"}
    assert said["metrics"] == pytest.approx(metrics)
    assert said["record"]["training"]["epoch_rule"] == "best on validation"
    assert document(cli("evaluate", run, "--data", data, "--json"))["metrics"] == said["metrics"]
    other = write_data(tmp_path / "other", seed=4, test=8)
    elsewhere = document(cli("evaluate", run, "--data.root", other, "--json"))["record"]
    assert elsewhere["dataset"]["root"] == str(other)
    assert elsewhere["dataset"]["splits"] == {"test": 8}
    held = document(cli("evaluate", run, "--split", "val", "--json"))["record"]
    assert held["dataset"]["splits"] == {"val": 8}
    line = cli("evaluate", run)
    assert line.code == 0
    assert "on 12 test clouds" in line.out


def test_evaluate_file_by_file(run: Path, data: Path) -> None:
    said = document(cli("evaluate", run / "model" / "weights.safetensors", "--data.root", data, "--json"))
    assert said["metrics"] == pytest.approx(json.loads((run / "record.json").read_text())["metrics"])
    assert said["record"]["training"] is None


def test_evaluate_votes(run: Path) -> None:
    words = ("evaluate", run, "--protocol", "vote", "--vote.rounds", "2", "--vote.votes", "2")
    said = document(cli(*words, "--json"))
    assert said["protocol"] == "vote"
    assert said["record"]["voting"] == {"rounds": 2, "votes": 2, "pool": "mean of 2"}
    assert said["metrics"]["overall_accuracy_max"] >= said["metrics"]["overall_accuracy"]
    assert "best round" in cli(*words).out


def test_evaluate_generator_run_on_a_folder_reads_the_folder(data: Path, tmp_path: Path) -> None:
    """The name of the run's own data must not win over `--data.root`."""
    recipe = tmp_path / "shapes.yaml"
    text = yaml.safe_dump({"epochs": 1, "model": MODEL, "data": {"name": "shapes", "points": 64, "batch_size": 4,
                           "options": {"train": 8, "test": 4, "points": 64, "classes": ["mug", "lamp"]}}})  # fmt: skip
    recipe.write_text(text)
    assert cli("finetune", recipe, "--out", tmp_path / "run").code == 0
    assert document(cli("evaluate", tmp_path / "run", "--json"))["record"]["dataset"]["name"] == "shapes"
    refused(cli("evaluate", tmp_path / "run", "--data.root", data), "does not know: ball", code=1)


def test_evaluate_wrong_use(run: Path) -> None:
    refused(cli("evaluate", "point_mae_tiny", "--data.root", "x"), "svm", "fine-tune", code=2)
    refused(cli("evaluate", run, "--protocol", "linear"), "plain", "vote", "svm", code=2)
    refused(cli("evaluate", run, "--protocol", "vote", "--vote.rounds", "0"), "--protocol plain", code=2)
    refused(cli("evaluate", run, "--protocol", "svm", "--seed", "3"), "--seed 3", "no", code=2)
    both = ("--few_shot.settings", "all", "--few_shot.shot", "5")
    refused(cli("evaluate", run, "--protocol", "few-shot", *both), "few_shot.shot", "one of the two", code=2)
    refused(cli("evaluate", run, "--epochs", "3"), "--epochs", "--data.KEY", code=2)
    refused(cli("evaluate", run, "--vote.round", "3"), "Did you mean 'rounds'", code=2)
    refused(cli("evaluate", run, "--data.rot", "3"), "Did you mean 'root'", code=2)
    refused(cli("evaluate", "--data.root", "x", run), "MODEL first", code=2)
    refused(cli("finetune", "--epochs", "3", "demo/shapes"), "RECIPE first", code=2)


def test_predict_every_format_alike(run: Path, clouds: dict[str, Path]) -> None:
    said = document(cli("predict", run, *clouds.values(), "--json"))
    assert said["model"] == str(run)
    assert [p["path"] for p in said["predictions"]] == [str(path) for path in clouds.values()]
    first = said["predictions"][0]
    for other in said["predictions"][1:]:
        assert other["label"] == first["label"]
        assert other["probabilities"] == pytest.approx(first["probabilities"], abs=1e-6)
    for name, path in clouds.items():
        alone = document(cli("predict", run, path, "--json"))["predictions"][0]
        assert alone["label"] == first["label"], name
        assert alone["probabilities"] == pytest.approx(first["probabilities"], abs=1e-6)


def test_predict_table_top_and_out(run: Path, clouds: dict[str, Path], tmp_path: Path) -> None:
    path = clouds["one.npy"]
    ended = cli("predict", run, path, "--top", "3", "--out", tmp_path / "out")
    assert ended.code == 0
    assert len(ended.out.splitlines()) == 4
    assert str(path) in ended.out
    saved = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert saved == document(cli("predict", run, path, "--json"))
    assert len(cli("predict", run, path, "--top", "99").out.splitlines()) == 1 + len(CLASSES)


def test_predict_folder_and_pattern(run: Path, clouds: dict[str, Path]) -> None:
    folder = clouds["one.npy"].parent
    assert len(document(cli("predict", run, folder, "--json"))["predictions"]) == len(clouds)
    assert len(document(cli("predict", run, folder / "*.ply", "--json"))["predictions"]) == 2


def test_features(run: Path, clouds: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "features.npz"
    ended = cli("features", run, *clouds.values(), "--out", out)
    assert ended.code == 0
    assert ended.out == ""
    with np.load(out, allow_pickle=False) as saved:
        assert saved["features"].shape == (len(clouds), 32)
        assert saved["features"].dtype == np.float32
        assert saved["paths"].tolist() == [str(p) for p in clouds.values()]
        np.testing.assert_allclose(saved["features"], saved["features"][:1].repeat(len(clouds), 0), atol=1e-5)
    refused(cli("features", run, clouds["one.npy"], "--out", tmp_path / "f.txt"), ".npz", code=2)
    pooling = cli("features", run, clouds["one.npy"], "--out", out, "--pooling", "maxx")
    refused(pooling, "Did you mean 'max'", code=2)


def test_convert_released_checkpoint(clouds: dict[str, Path], tmp_path: Path) -> None:
    source, target = tmp_path / "released.pth", tmp_path / "ours.safetensors"
    state = {f"module.{key}": value for key, value in released_state().items()}
    torch.save({"base_model": state, "epoch": 3, "metrics": {"acc": 0.5}}, source)
    ended = cli("convert", source, target, "--num_groups", "16", "--group_size", "8", "--num_heads", "4")
    assert ended.code == 0, ended.err
    assert "0 unexplained" in ended.out
    assert "Point-MAE" in ended.err
    said = document(cli("convert", source, tmp_path / "b.safetensors", "--preprocess.points", "99", "--json"))
    assert said["report"]["unexplained"] == []
    assert document(cli("info", tmp_path / "b.safetensors", "--json"))["input"]["xyz"] == [1, 99, 3]

    about = document(cli("info", target, "--json"))
    assert about["config"]["num_groups"] == 16
    assert about["config"]["quirks"]["skip_near_origin"] is True
    from_ours = document(cli("predict", target, clouds["one.npy"], "--json"))["predictions"][0]
    assert list(from_ours["probabilities"]) == ["0", "1", "2", "3", "4"]
    again = tmp_path / "again.safetensors"
    assert cli("convert", target, again).code == 0
    assert document(cli("predict", again, clouds["one.npy"], "--json"))["predictions"][0] == from_ours


def test_convert_wrong_use(tmp_path: Path) -> None:
    source = tmp_path / "released.pth"
    torch.save(released_state(), source)
    refused(cli("convert", source, tmp_path / "out.pth"), ".safetensors", code=2)
    refused(cli("convert", source, source.with_suffix(".safetensors"), "--num_group", "3"), "'num_groups'", code=2)
    refused(cli("convert", source, tmp_path / "a.safetensors", "--num_classes", "9"), "head", code=2)
    refused(cli("convert", source, tmp_path / "a.safetensors", "--preprocess.point", "9"), "'points'", code=2)
    assert not (tmp_path / "a.safetensors").exists()
    assert cli("convert", source, tmp_path / "a.safetensors").code == 0
    refused(cli("convert", source, tmp_path / "a.safetensors"), "exists already", code=2)


def test_report_is_written_again(run: Path) -> None:
    page = run / "report.html"
    before = page.read_text()
    page.unlink()
    ended = cli("report", run)
    assert ended.out.strip() == str(page)
    assert page.read_text() == before
    refused(cli("report", run / "model"), "record.json", code=1)


def test_doctor() -> None:
    found = document(cli("doctor", "--json"))
    assert found["ops_agree_with_reference"] is True
    assert {"versions", "device", "ops", "cpu_cores"} <= found.keys()
    text = cli("doctor")
    assert text.code == 0
    assert "torch" in text.out


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(pl.PointLiftError):
        cli("predict", "nosuch", "x.ply", "--debug")


def test_cut_off_pipe_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m pointlift list recipes --json | head -c 1", shell=True, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stderr == ""


def test_predict_reads_a_cloud_as_the_run_did(run: Path, data: Path, tmp_path: Path) -> None:
    """A test cloud of the data set, saved as a file, gets the probabilities that the run recorded."""
    with np.load(data / "test.npz") as saved:
        np.save(tmp_path / "c.npy", saved["points"][5])
    with np.load(run / "predictions.npz") as saved:
        expected = torch.from_numpy(saved["logits"][5]).softmax(0).tolist()
    said = document(cli("predict", run, tmp_path / "c.npy", "--json"))["predictions"][0]
    assert list(said["probabilities"].values()) == pytest.approx(expected, abs=1e-5)


def test_many_files_in_one_go(run: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(40):  # more than one batch
        np.save(tmp_path / f"{i:02}.npy", cloud(i % 4, rng, 20 + i))
    said = document(cli("predict", run, tmp_path, "--json"))["predictions"]
    assert [Path(p["path"]).name for p in said] == [f"{i:02}.npy" for i in range(40)]
