"""Feature vectors on a page: numbers against brute force, maps, neighbours, sizes, and names that want to be code."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from pointlift.core.errors import UsageError
from pointlift.report import ShownFeatures, write_features_page
from pointlift.report.colours import distinct
from pointlift.report.feature_numbers import neighbour_votes, neighbours, principal, tsne, unit

RNG = np.random.default_rng(0)


def clusters(classes=3, each=8, width=6, spread=0.1, seed=0):
    """Vectors about one centre per class, in turn over the classes, and their labels."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(classes, width))
    labels = np.arange(classes * each) % classes
    return (centers[labels] + spread * rng.normal(size=(len(labels), width))).astype(np.float32), labels


def page_of(out, **change):
    features, labels = change.pop("vectors", clusters())
    count = len(features)
    values = {
        "names": [f"cloud-{i:04d}" for i in range(count)],
        "clouds": [RNG.normal(size=(64, 3)) for _ in range(count)],
        "labels": labels,
        "classes": ("mug", "chair", "car"),
    }
    shown = ShownFeatures(features, **values | change)
    page = write_features_page(shown, out / "page.html", "Of my model").read_text("utf-8")
    visible = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.S)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", visible).replace("\u202f", " "))
    data, clouds = (
        json.loads(re.search(rf'id="{name}-data">(.*?)</script>', page, re.S)[1]) for name in ("page", "cloud")
    )
    return page, text, data["map"], clouds["clouds"]


# --- numbers ---


@pytest.mark.parametrize("count", [1, 2, 5, 2100])
def test_neighbours_are_those_of_brute_force(count):
    features = RNG.normal(size=(count, 7)).astype(np.float32)
    near, cosine = neighbours(features, 4)
    assert near.shape == cosine.shape == (count, min(4, count - 1))
    some = range(0, count, max(1, count // 40))
    rows = features.astype(np.float64) / np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    for i in some:
        alike = rows @ rows[i]
        alike[i] = -np.inf
        expected = np.argsort(-alike)[: near.shape[1]]
        assert near[i].tolist() == expected.tolist()
        np.testing.assert_allclose(cosine[i], alike[expected], atol=1e-5)


def test_equal_vectors_are_neighbours_of_each_other_and_never_of_themselves():
    near, _ = neighbours(np.ones((6, 3), np.float32), 5)
    assert all(sorted(row) == [j for j in range(6) if j != i] for i, row in enumerate(near.tolist()))
    assert np.isfinite(unit(np.zeros((2, 3)))).all()


def test_votes_are_right_in_clusters_and_at_chance_without():
    features, labels = clusters(each=30)
    assert (neighbour_votes(features, labels, 3) == labels).all()
    noise = RNG.normal(size=(600, 6)).astype(np.float32)
    share = (neighbour_votes(noise, np.arange(600) % 3, 3) == np.arange(600) % 3).mean()
    assert 0.2 < share < 0.45


def test_a_nearer_neighbour_outweighs_many_far_ones():
    far = np.array([[np.cos(0.8), np.sin(0.8)]] * 10)
    features = np.concatenate([[[1.0, 0.0], [1.0, 0.01]], far]).astype(np.float32)
    labels = np.array([0, 0] + [1] * 10)
    assert neighbour_votes(features, labels, 2)[0] == 0


def test_principal_components_are_those_of_numpy():
    features = RNG.normal(size=(50, 4)) * (3, 2, 1, 0.5)
    found = principal(features)
    centred = features - features.mean(axis=0)
    singular = np.linalg.svd(centred, compute_uv=False)
    np.testing.assert_allclose(found.explained, singular**2 / (singular**2).sum())
    np.testing.assert_allclose((found.places**2).sum(axis=0), singular[:2] ** 2)
    np.testing.assert_allclose(principal(features[:, :1]).places[:, 1], 0)
    assert not principal(np.ones((3, 4))).explained.any()


def test_tsne_keeps_clusters_apart_and_gives_the_same_map_again():
    features, labels = clusters(each=10)
    places = tsne(features)
    np.testing.assert_allclose(places, tsne(features))
    centers = np.stack([places[labels == k].mean(axis=0) for k in range(3)])
    own = np.linalg.norm(places - centers[labels], axis=1).max()
    apart = min(np.linalg.norm(centers[a] - centers[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert apart > own
    assert tsne(features[:11]) is None
    assert not tsne(np.ones((12, 3))).any()


@pytest.mark.parametrize("count", [0, 1, 12, 13, 55])
def test_colours_are_distinct(count):
    colours = distinct(count)
    assert colours.shape == (count, 3)
    assert len({tuple(c) for c in colours.tolist()}) == count


# --- the page ---


def test_numbers_maps_and_neighbours(tmp_path):
    page, text, data, clouds = page_of(tmp_path, facts=[("model", "tiny"), ("weights", "random")])
    assert "neighbours name the class 100.0 %" in text
    assert "always the largest class 33.3 %" in text
    assert "24 labelled clouds is named by the 20 others" in text
    assert "Model tiny , weights random ." in text
    assert page.count("<circle data-i=") == 2 * 24
    assert page.count('data-map="') == 2
    assert len(clouds) == 24
    assert [len(row) for row in data["near"]] == [8] * 24
    assert all(data["labels"][j] == data["labels"][i] for i, row in enumerate(data["near"]) for j in row[:7])
    assert "Recall is how often a class is named right" in text


def test_without_labels_nothing_is_claimed(tmp_path):
    page, text, data, _ = page_of(tmp_path, labels=np.full(24, -1), classes=())
    assert "No labels are known" in text
    assert "neighbours name the class" not in text
    assert 'id="classes"' not in page
    assert set(data["labels"]) == {-1}


def test_one_cloud_and_few_clouds(tmp_path):
    features, labels = clusters()
    for count in (1, 2, 5):
        page, text, data, _ = page_of(tmp_path, vectors=(features[:count], labels[:count]))
        assert "No t-SNE map: it takes at least 12 clouds" in text
        assert page.count('data-map="') == 1
        assert [len(row) for row in data["near"]] == [count - 1] * count


def test_many_clouds_are_thinned_and_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("pointlift.report.features.tsne", lambda features: None)
    cloud = RNG.normal(size=(2048, 3))
    vectors = clusters(each=500)
    page, text, data, clouds = page_of(tmp_path, vectors=vectors, clouds=[cloud] * 1500)
    assert "1,000 of 1,500 clouds are drawn" in text
    assert "Each of the 1,500 labelled clouds" in text
    assert len(data["names"]) == len(clouds) == 1000
    assert data["names"][-1] == "cloud-1498"
    assert "at most 177 points" in text
    assert len(page) < 3_200_000


def test_coloured_clouds_have_their_own_section(tmp_path):
    rgb = RNG.integers(0, 255, (64, 3)).astype(np.uint8)
    page, text, _, clouds = page_of(tmp_path, coloured=[(3, rgb), (7, rgb)])
    assert "What looks alike to the model" in text
    assert len(clouds) == 26
    assert [c["colours"][0]["title"] for c in clouds[24:]] == ["features"] * 2
    assert re.findall(r'<option value="([^"]+)">', page)[:2] == ["features", "plain"]


def test_evil_names_are_text(tmp_path):
    evil = "</script><script>window.pwned=1</script>"
    page, _, data, _ = page_of(tmp_path, names=[evil] * 24, classes=(evil, '"><img src=x>', "c"), facts=[(evil, evil)])
    assert page.count("<script") == 3, "two blocks of data and our script"
    assert "<img" not in page
    assert data["classes"][0] == evil


@pytest.mark.parametrize(
    "change", [{"names": ["a"]}, {"labels": np.zeros(3, int)}, {"up": "w"}, {"clouds": []}], ids=lambda c: next(iter(c))
)
def test_what_does_not_fit_together_is_refused(tmp_path, change):
    with pytest.raises(UsageError):
        page_of(tmp_path, **change)
    assert not (tmp_path / "page.html").exists()


def test_features_that_are_not_finite_are_refused(tmp_path):
    features, labels = clusters()
    features[3, 1] = np.nan
    with pytest.raises(UsageError, match="not finite"):
        page_of(tmp_path, vectors=(features, labels))
    with pytest.raises(UsageError, match="at least 1"):
        page_of(tmp_path, vectors=(features[:0], labels[:0]))
