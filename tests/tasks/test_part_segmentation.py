"""Part scores as published: by hand, against a plain twin, and whatever the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pointlift.core.errors import CheckpointError, DataError
from pointlift.data.config import AugmentConfig, DataConfig, ResampleConfig
from pointlift.data.dataset import CloudSplit, DatasetMeta
from pointlift.data.loader import make_loader
from pointlift.data.pipeline import build_transform
from pointlift.data.sets.known import SHAPENETPART_PARTS, SHAPENETPART_PARTS_OF
from pointlift.data.stores import ArrayStore
from pointlift.models.registry import create_model
from pointlift.tasks.config import finetune_config
from pointlift.tasks.metrics import part_ious
from pointlift.tasks.part_predictions import kept
from pointlift.tasks.part_segmentation import PartScores, PartSegmentation, with_category
from pointlift.tasks.tasks import task_of

CATEGORIES = {"chair": (0, 1, 2), "cap": (3, 4)}
NAMES = ("chair/leg", "chair/seat", "chair/arm", "cap/brim", "cap/top")
TASK = PartSegmentation(NAMES, CATEGORIES)


def scores(pred: list, part: list, category: list) -> PartScores:
    count = len(category)
    return PartScores(
        np.array(pred),
        np.array(part),
        np.array(category),
        np.zeros(count, np.float32),
        np.arange(count),
        CATEGORIES,
        NAMES,
    )


def test_by_hand() -> None:
    """Two chairs and a cap of four points; the second chair has no arm, and no one says so."""
    found = scores(
        [[0, 0, 1, 2], [0, 1, 1, 1], [3, 3, 3, 3]],
        [[0, 1, 1, 2], [0, 0, 1, 1], [3, 3, 4, 4]],
        [0, 0, 1],
    )
    first = (1 / 2 + 1 / 2 + 1) / 3
    second = (1 / 2 + 2 / 3 + 1) / 3  # the arm that is nowhere counts as right
    cap = (2 / 4 + 0) / 2
    assert found.shape_ious() == pytest.approx([first, second, cap])
    metrics = found.metrics()
    assert metrics["instance_miou"] == pytest.approx((first + second + cap) / 3)
    assert metrics["class_miou"] == pytest.approx(((first + second) / 2 + cap) / 2)
    assert metrics["overall_accuracy"] == pytest.approx(8 / 12)
    said = found.by_category()
    assert said["chair"]["clouds"] == 2
    assert said["chair"]["iou"] == pytest.approx((first + second) / 2)
    assert said["chair"]["parts"]["chair/arm"] == 1.0
    assert said["cap"]["parts"] == {"cap/brim": 0.5, "cap/top": 0.0}


def test_a_category_without_clouds_counts_for_nothing() -> None:
    found = scores([[3, 4]], [[3, 4]], [1])
    assert found.metrics()["class_miou"] == 1.0
    assert found.by_category().keys() == {"cap"}


def plain_ious(pred: np.ndarray, part: np.ndarray, parts: tuple[int, ...]) -> list[float]:
    """The definition, with sets of point numbers."""
    ious = []
    for number in parts:
        said = {i for i, p in enumerate(pred) if p == number}
        true = {i for i, p in enumerate(part) if p == number}
        ious.append(len(said & true) / len(said | true) if said | true else 1.0)
    return ious


def test_against_a_plain_twin() -> None:
    rng = np.random.default_rng(0)
    for parts in CATEGORIES.values():
        pred, part = rng.choice(parts, (2, 40, 7))
        expected = [plain_ious(*pair, parts) for pair in zip(pred, part, strict=True)]
        np.testing.assert_allclose(part_ious(pred, part, parts), expected)


class Lookup(nn.Module):
    """Logits that the height of a point and its category decide, more for parts of other categories than of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        height = batch["xyz"][..., 2:] * self.scale
        own = torch.tensor([[1.0, 0, 0, 9, 8], [9, 8, 9, 0, 0]])[batch["category"]].unsqueeze(1)
        return own + height * torch.tensor([0.0, 1, 2, 0, 3])


def batches(*sizes: int) -> list[dict[str, Tensor]]:
    """Clouds 0, 1, 2, … in batches of these sizes."""
    rng = torch.Generator().manual_seed(0)
    count = sum(sizes)
    xyz, label = torch.randn(count, 12, 3, generator=rng), torch.arange(count) % 2
    part = torch.where(label[:, None] == 0, torch.randint(3, (count, 12), generator=rng), 3)
    whole = {"xyz": xyz, "label": label, "part": part.to(torch.uint8), "index": torch.arange(count)}
    split = {key: torch.split(value, list(sizes)) for key, value in whole.items()}
    return [{key: values[i] for key, values in split.items()} for i in range(len(sizes))]


def test_the_answer_is_a_part_of_the_true_category() -> None:
    with torch.no_grad():
        found = TASK.score(Lookup(), batches(6))
    for i, parts in enumerate(CATEGORIES.values()):
        assert set(np.unique(found.pred[found.category == i])) <= set(parts)
    high = batches(6)[0]["xyz"][0, :, 2] > 0.5  # 2·h > 1: the arm
    assert (found.pred[0][high.numpy()] == 2).all()


def test_scores_do_not_depend_on_the_batches() -> None:
    with torch.no_grad():
        one, other = (TASK.score(Lookup(), batches(*sizes)) for sizes in ((6,), (1, 3, 2)))
        doubled = TASK.score(Lookup(), [*batches(6), *batches(6)])  # as a padded split of two processes
    assert one.metrics() == other.metrics() == doubled.metrics()
    assert doubled.index.tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(one.pred, other.pred)


def test_loss_is_the_cross_entropy_over_all_parts() -> None:
    (batch,) = batches(4)
    losses = TASK.losses(Lookup(), batch, 0.0)
    logits = Lookup()(with_category(batch)).log_softmax(-1)
    expected = -logits.gather(2, batch["part"].long().unsqueeze(-1)).mean()
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    with torch.no_grad():
        assert TASK.score(Lookup(), [batch]).metrics()["loss"] == pytest.approx(expected.item(), rel=1e-6)
    smooth = PartSegmentation(NAMES, CATEGORIES, label_smoothing=0.2)
    assert smooth.losses(Lookup(), batch, 0.0)["loss"] != losses["loss"]


@pytest.mark.parametrize("stage", ["train", "test", "vote"])
@pytest.mark.parametrize("points", [16, 48, 100])
@pytest.mark.parametrize("test", ["fps", "first", "random"])
def test_parts_follow_their_points(stage: str, points: int, test: str) -> None:
    """The part of a point is written into its distance from the centre, which rotation keeps."""
    rng = np.random.default_rng(points)
    part = rng.integers(0, 4, (5, 48))
    xyz = rng.standard_normal((5, 48, 3))
    xyz *= (0.2 + 0.2 * part[..., None]) / np.linalg.norm(xyz, axis=-1, keepdims=True)
    split = CloudSplit(
        ArrayStore(xyz.astype(np.float32), fields={"part": (part, 1.0)}), np.zeros(5, int), fields=["part"]
    )
    config = DataConfig(
        points=points,
        normalize="none",
        augment=AugmentConfig(rotate=180, scale=(1.0, 1.0), shift=0.0, drop=0.3),
        resample=ResampleConfig(pool="all" if stage == "train" else "table", test=test),
    )
    meta = DatasetMeta("made", None, ("a",), up_axis="z")
    loader = make_loader(split, build_transform(config, meta, stage), batch_size=2, seed=3, shuffle=True)
    for batch in loader:
        assert batch["part"].shape == batch["xyz"].shape[:2] == (len(batch["index"]), points)
        distance = batch["xyz"].norm(dim=-1)
        torch.testing.assert_close(distance, 0.2 + 0.2 * batch["part"].float(), atol=1e-5, rtol=0)


def test_random_test_points_come_with_replacement_and_are_always_the_same() -> None:
    xyz = np.random.default_rng(0).standard_normal((48, 3)).astype(np.float32)
    config = DataConfig(points=40, resample=ResampleConfig(test="random"))
    transform = build_transform(config, DatasetMeta("made", None, ("a",)), "test")
    one, again = (transform({"xyz": xyz})["xyz"] for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert len(np.unique(one, axis=0)) < 40


def test_kept_clouds_are_the_worst_and_a_fair_sample() -> None:
    ious = np.random.default_rng(1).permutation(100) / 100
    found = scores([[0]] * 100, [[0]] * 100, [0] * 100)
    object.__setattr__(found, "shape_ious", lambda: ious)
    chosen = ious[kept(found, 8)]
    assert chosen[:4].tolist() == [0.0, 0.01, 0.02, 0.03]
    assert chosen[4:].tolist() == [0.04, 0.36, 0.67, 0.99]
    assert len(kept(found, 200)) == 100
    assert len(set(kept(found, 7).tolist())) == 7


def test_other_sets_are_told_apart() -> None:
    split = CloudSplit(ArrayStore(np.zeros((3, 4, 3), np.float32)), np.array([0, 0, 0]))
    cap = DatasetMeta("caps", None, ("cap",), point_classes=NAMES, parts_of={"cap": (3, 4)})
    assert TASK.aligned(split, cap, None).labels.tolist() == [1, 1, 1]  # numbered as the model's
    hat = DatasetMeta("hats", None, ("hat",), point_classes=NAMES, parts_of={"hat": (3, 4)})
    with pytest.raises(DataError, match="hat"):
        TASK.aligned(split, hat, None)
    strange = DatasetMeta("caps", None, ("cap",), point_classes=NAMES, parts_of={"cap": (2, 3)})
    with pytest.raises(DataError, match="cap has parts chair/arm"):  # the model could never say so
        TASK.aligned(split, strange, None)
    other = DatasetMeta("caps", None, ("cap",), point_classes=("a", "b"), parts_of={"cap": (0, 1)})
    with pytest.raises(DataError, match="parts a, b"):
        TASK.aligned(split, other, None)


def test_a_head_for_parts_without_names_is_refused() -> None:
    import pointlift as pl

    model = pl.create_model(
        "point_mae_tiny", num_classes=5, head="parts", part_head={"fetch": [0], "categories": 2, "propagation": [8]}
    )
    with pytest.raises(CheckpointError, match="does not name"):
        task_of(model)
    model.classes, model.categories = NAMES, CATEGORIES
    assert task_of(model).outputs == NAMES
    model.categories = {"chair": (0, 1), "cap": (3, 7)}
    with pytest.raises(CheckpointError, match="5 parts and 2 categories"):
        task_of(model)


@pytest.mark.parametrize(
    ("recipe", "parameters"),
    [
        ("point_mae/shapenetpart", 27_063_730),
        ("point_bert/shapenetpart", 27_085_874),
        ("point_m2ae/shapenetpart", 25_474_354),
    ],
)
def test_published_recipes_build_the_published_networks(recipe: str, parameters: int) -> None:
    config = finetune_config(recipe)
    task = PartSegmentation(SHAPENETPART_PARTS, SHAPENETPART_PARTS_OF)
    options = task.model_options(config.model.name, config.model.options)
    with torch.device("meta"):
        model = create_model(config.model.name, num_classes=len(task.outputs), **options)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert (config.epochs, config.data.points, config.data.batch_size) == (300, 2048, 16)
    # Other sizes: the blocks that are read are spread over the depth that there is.
    small = task.model_options("point_mae_tiny", {"depth": 6})
    assert small["part_head"] == {"categories": 16, "fetch": (1, 3, 5)}
