"""Cards and folders for others: facts only, no path of this machine, and what was pushed reads back."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))

import tiny_runs
from adapter_files import write_adapter, write_base

import pointlift as pl
from pointlift.adapt.memory_bank import BankFacts, MemoryBank, bank_beside, read_bank
from pointlift.core.errors import CheckpointError, UsageError
from pointlift.report import publish
from pointlift.report.card import card
from pointlift.report.publish import push_to_hub, write_hub_folder
from pointlift.tasks.convert import convert_checkpoint
from pointlift.tasks.finetune import finetune
from pointlift.tasks.inspect import inspect_model
from pointlift.weights.modelfile import describe, read_model_file, write_model_file


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose base is a file; read only."""
    place = tmp_path_factory.mktemp("private")
    data = tiny_runs.write_data(place / "data")
    model = {"name": "point_transformer", "pretrained": str(write_base(place / "base.safetensors"))}
    config = tiny_runs.tiny_config(data, epochs=1, adaptation="linear", model=model)
    command = f"pointlift finetune {place}/r.yaml"
    return finetune(config, out=place / "run", recipe=f"{place}/r.yaml", command=command).out


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "shapes.safetensors", write_base(tmp_path / "base.safetensors"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The Hub as a folder."""
    import huggingface_hub

    place = tmp_path / "hub"

    def sent(self, *, repo_id: str, folder_path: Path, **_: object) -> str:
        shutil.copytree(folder_path, place / repo_id)
        return f"https://hub/{repo_id}"

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", sent)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo_id, **_: str(place / repo_id))
    return place


def front_matter(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def cloud() -> np.ndarray:
    return tiny_runs.cloud(1, np.random.default_rng(3), 90)


def test_there_and_back(run: Path, hub: Path) -> None:
    assert pl.push_to_hub(run, "me/shapes") == "https://hub/me/shapes"
    assert sorted(p.name for p in (hub / "me" / "shapes").iterdir()) == [
        "README.md",
        "model.safetensors",
        "record.json",
    ]
    expected = pl.predict(str(run), cloud())
    for place in ("me/shapes", "hf://me/shapes", hub / "me" / "shapes"):
        model = pl.from_pretrained(place)
        assert pl.predict(model, cloud()) == expected
    assert pl.from_pretrained("me/shapes").origin == "hf://me/shapes"
    assert pl.predict("hf://me/shapes", cloud()) == expected
    with pytest.raises(UsageError, match="revision 'v1' of"):
        pl.from_pretrained(hub / "me" / "shapes", revision="v1")


def test_an_adapter_and_its_base(adapter: Path, hub: Path) -> None:
    expected = pl.predict(str(adapter), cloud())
    push_to_hub(adapter.with_name("base.safetensors"), "me/base")
    push_to_hub(adapter, "me/shapes", base="hf://me/base")
    push_to_hub(adapter, "me/alone")
    base = adapter.with_name("base.safetensors").rename(adapter.with_name("moved.safetensors"))
    assert pl.predict(pl.from_pretrained("me/shapes"), cloud()) == expected
    with pytest.raises(CheckpointError, match="does not say where its base is"):
        pl.from_pretrained("me/alone")
    assert pl.predict(pl.from_pretrained("me/alone", base=base), cloud()) == expected
    shared = pl.SharedTrunk("hf://me/base", ["hf://me/shapes", "hf://me/alone"])
    assert list(shared.models) == ["shapes", "alone"]
    assert pl.predict(shared, cloud())["shapes"].label == expected.label
    model = pl.create_model("point_transformer", pretrained="hf://me/base", num_classes=2)
    assert model.origin == "hf://me/base"


def test_nothing_of_this_machine_is_published(run: Path, adapter: Path, tmp_path: Path) -> None:
    """Neither where the data lay nor where the base did, in any file."""
    for name, path in (("run", run), ("adapter", adapter), ("runs_adapter", run / "adapter.safetensors")):
        folder = write_hub_folder(path, tmp_path / name)
        for file in folder.iterdir():
            data = file.read_bytes()
            assert str(run.parent).encode() not in data, file
            assert str(adapter.parent).encode() not in data, file
    assert json.loads((tmp_path / "run" / "record.json").read_text())["recipe"] == "r.yaml"
    assert read_model_file(tmp_path / "adapter").extra["base"]["from"] is None


def test_a_run_leaves_an_adapter_for_those_with_the_base(run: Path) -> None:
    assert (run / "adapter.safetensors").stat().st_size < 10_000
    assert pl.predict(pl.load(run / "adapter.safetensors"), cloud()) == pl.predict(str(run), cloud())


def test_a_card_says_the_quirks_of_an_adaptation(tmp_path: Path) -> None:
    """Also beside a record that is silent about them, as those of older versions are."""
    model = pl.create_model("point_transformer", pretrained=write_base(tmp_path / "base.safetensors"), num_classes=4)
    bank = MemoryBank(torch.eye(4, 16).half())
    handle = pl.adapt_model(model, "point_peft", bank=bank, prompts=4, quirks={"leak_rows": True})
    file = read_model_file(handle.save(tmp_path / "adapter.safetensors"))
    assert f"of the whole base `{handle.whole_base_hash()}`" in card(file)
    for record in (None, {"quirks": {}, "metrics": {}}):
        assert "It computes as its quirks say: leak" in card(file, record).replace("\\", "")
        assert "as the paper says" not in card(file, record)


def test_the_bank_goes_with_it(adapter: Path, tmp_path: Path) -> None:
    file = read_model_file(adapter)
    bank = MemoryBank(torch.eye(4, 16).half(), BankFacts(dataset="my|clouds", size=40))
    extra = file.extra | {"bank": {"hash": bank.hash, "rows": 4, "dataset": "my|clouds", "size": 40}}
    said = describe(file.arch, file.config, file.state, classes=None, preprocess={}, holds="adapter", **extra)
    path = write_model_file(tmp_path / "with.safetensors", file.state, said)
    with pytest.raises(CheckpointError, match=r"needs its memory bank with\.bank\.safetensors"):
        write_hub_folder(path, tmp_path / "none")
    bank.save(bank_beside(path))
    folder = write_hub_folder(path, tmp_path / "out")
    assert (folder / "model.bank.safetensors").read_bytes() == bank_beside(path).read_bytes()
    assert "| memory bank | 4 rows, made from `my/clouds` (40 clouds) |" in (folder / "README.md").read_text()


def test_neither_a_bank_nor_a_merged_adapter_says_where_it_lay(run: Path, adapter: Path, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    torch.save(torch.randn(16, 40), private / "cache_shape.pt")
    model = pl.create_model("point_transformer", pretrained=adapter.with_name("base.safetensors"), num_classes=4)
    looks_up = pl.adapt_model(model, "point_peft", bank=private / "cache_shape.pt").save(private / "p.safetensors")
    older = MemoryBank(read_bank(bank_beside(looks_up)).rows, BankFacts(source=str(private / "cache_shape.pt")))
    older.save(bank_beside(looks_up))  # as one that was made when banks kept the whole path
    convert_checkpoint(adapter, private / "merged.safetensors")
    for name in ("p", "merged"):
        folder = write_hub_folder(private / f"{name}.safetensors", tmp_path / "out" / name)
        for file in folder.iterdir():
            assert str(tmp_path).encode() not in file.read_bytes(), file
    assert read_bank(tmp_path / "out" / "p" / "model.bank.safetensors").facts.source == "cache_shape.pt"
    shutil.copytree(run, tmp_path / "run")
    said = json.loads((tmp_path / "run" / "record.json").read_text())
    said["model"]["bank"] = {"rows": 40, "source": str(private / "cache_shape.pt")}
    (tmp_path / "run" / "record.json").write_text(json.dumps(said))
    folder = write_hub_folder(tmp_path / "run", tmp_path / "out" / "run")
    assert json.loads((folder / "record.json").read_text())["model"]["bank"]["source"] == "cache_shape.pt"
    assert "made from `cache_shape.pt`" in (tmp_path / "out" / "p" / "README.md").read_text()


@pytest.mark.parametrize("counts", [{}, [], 5, {"parameters": "1", "trainable": "1", "trainable_without_head": "1"}])
@pytest.mark.parametrize("place", [5, ["x"], {}])
def test_odd_values_in_a_description(adapter: Path, tmp_path: Path, counts: object, place: object) -> None:
    file = read_model_file(adapter)
    extra = file.extra | {"counts": counts, "base": file.extra["base"] | {"from": place}}
    said = describe(
        file.arch, file.config, file.state, classes=file.classes, preprocess=file.preprocess, holds="adapter", **extra
    )
    path = write_model_file(tmp_path / "odd.safetensors", file.state, said)
    assert "learned: unknown" in (write_hub_folder(path, tmp_path / "out") / "README.md").read_text()
    about = inspect_model(str(path))["file"]
    assert about["counts"] == file.extra["counts"]  # counted, not believed
    assert about["base"]["found"] is False


def test_card_of_a_run(run: Path, tmp_path: Path) -> None:
    write_hub_folder(run, tmp_path / "a", repo_id="me/shapes", license="mit")
    text = (tmp_path / "a" / "README.md").read_text()
    said = front_matter(text)
    assert said["library_name"] == "pointlift"
    assert said["license"] == "mit"
    assert "base_model" not in said
    assert {"point_transformer", "linear"} <= set(said["tags"])
    record = pl.Run(run).record
    assert f"{100 * record.metrics['overall_accuracy']:.2f} %" in text
    assert record.data["dataset"]["content_hash"] in text
    model = record.data["model"]
    learned = f"{model['trainable']:,} learned ({model['trainable_without_head']:,} without the head)"
    assert f"{learned} of {model['parameters']:,}" in text
    for fact in ("best on validation", "epoch 1 of 1", "ball, box, disc, rod", "seed (0)"):
        assert fact in text
    assert 'pl.load("hf://me/shapes")' in text
    assert "pointlift predict hf://me/shapes CLOUD.ply\n" in text
    splits = record.data["dataset"]["splits"]
    assert ", ".join(f"{name} {size}" for name, size in splits.items()) in text
    write_hub_folder(run, tmp_path / "b", repo_id="me/shapes", license="mit")
    assert (tmp_path / "b" / "README.md").read_text() == text


def test_card_of_an_adapter_says_what_is_not_known(adapter: Path) -> None:
    file = read_model_file(adapter)
    text = card(file, repo_id="me/shapes")
    assert front_matter(text)["license"] == "unknown"
    assert "No record came with it: how well it does is unknown." in text
    assert file.extra["base"]["hash"] in text
    assert "licence: unknown" in text
    counts = file.extra["counts"]
    assert f"{counts['trainable']:,} learned (0 without the head) of {counts['parameters']:,}" in text
    assert "Expected" not in text


def test_card_of_an_adapter_whose_base_is_known(tmp_path: Path) -> None:
    model = pl.create_model("point_mae_tiny", pretrained=True, num_classes=2)
    path = pl.adapt_model(model, "linear").save(tmp_path / "a.safetensors")
    text = (write_hub_folder(path, tmp_path / "out", repo_id="me/x") / "README.md").read_text()
    assert "`point_mae_tiny.procedural`" in text
    assert "licence: Apache-2.0" in text
    assert "--base" not in text
    text = (write_hub_folder(path, tmp_path / "hub", base="hf://me/base@v2/sub.safetensors") / "README.md").read_text()
    assert front_matter(text)["base_model"] == "me/base"
    assert front_matter(text)["base_model_relation"] == "adapter"


def test_names_of_classes_cannot_make_a_card_lie(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base.safetensors")
    names = ("a|b\n## Scores\n100 %", "<script>x</script>", "[l](http://x)", "`code`")
    text = card(read_model_file(write_adapter(tmp_path / "a.safetensors", base, classes=names)))
    assert "\n## Scores" not in text
    assert "<script>" not in text.replace("\\<script\\>", "")
    assert "\\[l\\](http" in text
    row = next(line for line in text.splitlines() if line.startswith("| classes"))
    assert row.replace("\\|", "").count("|") == 3


def test_refused(run: Path, adapter: Path, tmp_path: Path, hub: Path) -> None:
    with pytest.raises(UsageError, match="is not empty"):
        write_hub_folder(run, tmp_path)
    with pytest.raises(UsageError, match="base '/x/y'"):
        write_hub_folder(adapter, tmp_path / "a", base="/x/y")
    with pytest.raises(UsageError, match="a whole model"):
        write_hub_folder(run, tmp_path / "b", base="hf://me/base")
    with pytest.raises(UsageError, match="'shapes' as a repository"):
        push_to_hub(adapter, "shapes")
    with pytest.raises(CheckpointError):
        push_to_hub(tmp_path / "none.safetensors", "me/x")
    assert not hub.exists()


def test_checkpoints_of_others_are_not_published(adapter: Path, tmp_path: Path, monkeypatch) -> None:
    file = replace(read_model_file(adapter), source="Point-MAE")
    monkeypatch.setattr(publish, "read_model_file", lambda path: file)
    with pytest.raises(UsageError, match=r"a released checkpoint \(Point-MAE\)"):
        write_hub_folder(adapter, tmp_path / "out")
