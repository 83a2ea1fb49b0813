"""`reconstructions.npz`: what each objective saw and rebuilt, the same clouds the same way every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import write_data

from pointlift.core.errors import DataError, UsageError
from pointlift.data.loading import load_dataset
from pointlift.pretrain.metrics import reconstruction_metrics
from pointlift.pretrain.objective import Objective
from pointlift.pretrain.registry import create_objective
from pointlift.report.reconstructions import read_reconstructions
from pointlift.tasks.config import PretrainConfig, pretrain_config
from pointlift.tasks.pretraining import pretrain
from pointlift.tasks.reconstructions import FILE, PARTS, reconstruct, with_default_rule, write_reconstructions

SIZES = {"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_widths": [8, 16, 16], "num_groups": 8, "group_size": 8}
TOKENS = {"patch_dim": 16, "patch_widths": [8, 16, 16], "num_groups": 8, "group_size": 8, "num_codes": 8}
DVAE = {"code_dim": 8, "decoder_dim": 8, "decoder_hidden": 16, "fold_hidden": 16}


def small(kind: str) -> Objective:
    """A tiny objective of each kind."""
    torch.manual_seed(0)
    if kind == "masked":
        return create_objective(
            kind, "point_transformer", backbone_options=SIZES | {"pos_hidden": 8}, decoder_depth=1, decoder_heads=2
        )
    if kind == "dvae":
        return create_objective(
            kind, "point_tokenizer_base", backbone_options=TOKENS | {"graph_base": 8, "neighbors": 2}, **DVAE
        )
    levels = {"embed_dim": [12, 18], "depth": [1, 1], "num_heads": 3, "num_groups": [16, 8], "group_size": [8, 4]}
    levels["radius"] = [0.5, 1.0]
    options = {"decoder_heads": 3, "decoder_depth": [1], "up_blocks": []}
    return create_objective("hierarchical", "point_m2ae_base", backbone_options=levels, **options)


def config_for(root: Path, **changes: object) -> PretrainConfig:
    values = {
        "epochs": 1,
        "model": {"name": "point_transformer", "options": SIZES | {"pos_hidden": 8}},
        "objective": {"name": "masked", "options": {"decoder_depth": 1, "decoder_heads": 2}},
        "data": {"root": str(root), "points": 64, "batch_size": 8, "val_fraction": 0.25, "resample": {"pool": "all"}},
        "schedule": {"warmup_epochs": 0},
        "keep_clouds": 3,
    }
    return pretrain_config(None, values | changes)


def written(out: Path, objective: Objective, root: Path, count: int = 3) -> Path | None:
    dataset = load_dataset(root)
    data = with_default_rule(config_for(root).data)
    parts = dataset.hold_out(0.25, 0)
    return write_reconstructions(out, objective, parts, data, dataset.meta, keep_clouds=count, seed=0)


@pytest.mark.parametrize("kind", ["masked", "dvae", "hierarchical"])
def test_points_are_where_the_objective_has_them(kind: str, data: Path, tmp_path: Path) -> None:
    objective = small(kind).train()
    path = written(tmp_path, objective, data)
    assert objective.training, "the objective is left as it was"
    found = read_reconstructions(path)
    assert (found.split, len(found.items), found.masked) == ("val", 3, kind != "dvae")
    for item in found.items:
        step = 2 * np.abs(item.whole).max() / 32767
        for part in (item.given, item.target):
            near = np.abs(part[:, None] - item.whole[None]).max(2).min(1, initial=9) if len(part) else np.zeros(0)
            assert (near < 2 * step).all(), "what was seen and asked for are points of the cloud"
        assert len(item.rebuilt) == len(item.target) > 0
        score = reconstruction_metrics(*(torch.from_numpy(x)[None] for x in (item.rebuilt, item.target)))
        assert item.cd_l1 == pytest.approx(score["cd_l1"].item(), rel=1e-2)
        assert (len(item.coarse) > 0) == (item.codes is not None) == (kind == "dvae")


def test_the_same_clouds_in_the_same_way_each_time(data: Path, tmp_path: Path) -> None:
    objective = small("masked")
    torch.manual_seed(1)
    first = written(tmp_path / "a", objective, data)
    torch.manual_seed(2)
    second = written(tmp_path / "b", objective, data)
    assert first.read_bytes() == second.read_bytes()
    found = read_reconstructions(written(tmp_path / "c", objective, data, 2))
    np.testing.assert_array_equal(found.items[0].rebuilt, read_reconstructions(first).items[0].rebuilt)


def test_none_are_kept_and_no_more_than_there_are(data: Path, tmp_path: Path) -> None:
    objective = small("masked")
    assert len(read_reconstructions(written(tmp_path, objective, data, 99)).items) == 8
    assert written(tmp_path, objective, data, 0) is None
    assert not (tmp_path / FILE).exists()


def test_what_flies_far_off_is_drawn_in(data: Path, tmp_path: Path) -> None:
    objective = small("masked")
    with torch.no_grad():
        objective.predict.bias.fill_(1e6)
    item = read_reconstructions(written(tmp_path, objective, data)).items[0]
    widest = np.abs(item.whole).max()
    assert np.abs(item.rebuilt).max() == pytest.approx(2 * widest, rel=1e-3)
    assert np.ptp(item.whole) > 0.5, "and the cloud keeps its shape"


def test_a_run_keeps_clouds_and_makes_them_again(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    run = pretrain(config_for(root), out=tmp_path / "run").out
    with np.load(run / FILE) as saved:
        first = dict(saved)
    assert {f"{part}_i16" for part in PARTS} < first.keys()
    (run / FILE).unlink()
    with np.load(reconstruct(run, 3)) as saved:
        again = dict(saved)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    moved = root.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="no folder"):
        reconstruct(run, 3)
    assert len(read_reconstructions(reconstruct(run, 2, root=moved)).items) == 2
    other = write_data(tmp_path / "other", train=32)
    with pytest.raises(DataError, match="own data"):
        reconstruct(run, 2, root=other)
    assert reconstruct(run, 0, root=moved) is None


def test_only_pre_training_runs_rebuild(finished: Path) -> None:
    with pytest.raises(UsageError, match="pre-training run"):
        reconstruct(finished, 3)


def test_a_negative_number_of_clouds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="keep_clouds -1"):
        config_for(tmp_path, keep_clouds=-1)
