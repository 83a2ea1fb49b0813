"""Procedural shapes: the same ones everywhere, as configured, and usable as a data set."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from pointlift.core.errors import ConfigError, DataError, UsageError
from pointlift.core.seeds import generator
from pointlift.data.batches import collate
from pointlift.data.dataset import CloudSplit
from pointlift.data.procedural import (
    KINDS,
    ProceduralConfig,
    ProceduralStore,
    draw_program,
    load_procedural,
    make_shape,
    make_with_program,
)
from pointlift.data.procedural.exact import circle
from pointlift.data.procedural.program import inside_any
from pointlift.data.shapes.draw import Draw

SMALL = ProceduralConfig(points=256)
DIGEST = "c05b16564aa89252"


def programs(count: int, config: ProceduralConfig):
    return [draw_program(config, Draw(generator(0, "programs", i))) for i in range(count)]


def test_a_shape_has_exactly_its_points_is_centred_and_fills_the_unit_sphere():
    for index in range(20):
        xyz, normals = make_shape(index)
        assert xyz.shape == normals.shape == (8192, 3)
        assert xyz.dtype == normals.dtype == np.float32
        assert np.isfinite(xyz).all()
        assert np.isfinite(normals).all()
        assert np.abs(xyz.mean(axis=0)).max() < 1e-5
        assert np.linalg.norm(xyz, axis=1).max() == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
        assert np.ptp(xyz, axis=0).min() > 0.05
        assert len(np.unique(xyz, axis=0)) > 8180


def test_shapes_are_the_same_bits_on_every_machine():
    """Only exactly rounded arithmetic is used: a change of this digest needs a new VERSION."""
    digest = hashlib.sha256()
    for index in range(12):
        for array in make_shape(index, ProceduralConfig(points=1024), seed=3):
            digest.update(array.astype("<f4").tobytes())
    assert digest.hexdigest()[:16] == DIGEST


def test_a_shape_depends_on_seed_and_index_alone():
    forward = [make_shape(i, SMALL)[0] for i in range(6)]
    backward = [make_shape(i, SMALL)[0] for i in reversed(range(6))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))
    code = "import sys; from pointlift.data.procedural import *; c = ProceduralConfig(points=256); " \
           "sys.stdout.buffer.write(make_shape(4, c)[0].tobytes())"  # fmt: skip
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert made == forward[4].tobytes()


def test_shapes_differ_by_index_and_by_seed():
    clouds = [make_shape(i, SMALL, seed)[0] for seed in (0, 1) for i in range(10)]
    assert len({cloud.tobytes() for cloud in clouds}) == 20
    extents = np.array([np.sort(np.ptp(cloud, axis=0)) for cloud in clouds])
    assert extents.std(axis=0).min() > 0.05


def test_counts_and_choices_are_as_configured():
    drawn = programs(400, ProceduralConfig())
    sizes = Counter(len(p.body) for p in drawn)
    assert set(sizes) == set(range(1, 10))
    assert max(sizes.values()) < 2.2 * min(sizes.values())
    solids = [solid for p in drawn for solid in p.body]
    kinds = Counter(solid.kind for solid in solids)
    assert all(abs(kinds[kind] / len(solids) - 0.2) < 0.05 for kind in KINDS)
    movable = [solid for solid in solids if solid.kind != "torus"]
    assert abs(np.mean([solid.displacement is not None for solid in movable]) - 0.4) < 0.05
    assert abs(np.mean([len(p.cutters) > 0 for p in drawn]) - 0.5) < 0.08
    assert abs(np.mean([len(p.wires) > 0 for p in drawn]) - 0.3) < 0.08
    assert {len(p.cutters) for p in drawn} == {len(p.wires) for p in drawn} == {0, 1, 2}


def test_probabilities_of_zero_and_one_are_kept():
    for p in programs(20, ProceduralConfig(cut=0, wire=0, displaced=0, primitives=(1, 1), kinds=("ball",))):
        assert len(p.body) == 1
        assert p.body[0].kind == "ball"
        assert p.body[0].displacement is None
        assert not p.cutters
        assert not p.wires
    for p in programs(20, ProceduralConfig(cut=1, wire=1, cutters=(2, 2), wires=(3, 3))):
        assert len(p.cutters) == 2
        assert len(p.wires) == 3


def test_most_cuts_and_wireframes_show():
    config = ProceduralConfig(cut=1, wire=1, cutters=(1, 1), wires=(1, 1), points=512)
    shown = []
    for index in range(30):
        program, _, _ = make_with_program(index, config, 0)
        rng = np.random.default_rng(index)
        on_cutter, on_wire = (_points_on(pieces[0], rng) for pieces in (program.cutters, program.wires))
        shown.append((inside_any(program.body, on_cutter).mean(), 1 - inside_any(program.body, on_wire).mean()))
    assert np.mean(np.array(shown) > 0.05, axis=0).min() > 0.8


def _points_on(piece, rng) -> np.ndarray:
    counts = [400 if area else 0 for area in piece.areas]
    u, v = rng.random((2, sum(counts)), dtype=np.float32)
    return piece.sample(counts, u, v, circle(v))[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"points": 0},
        {"points": 3.5},
        {"kinds": ()},
        {"kinds": ("cube",)},
        {"primitives": (3, 2)},
        {"primitives": (0, 2)},
        {"primitives": (1.5, 2)},
        {"cut": 1.5},
        {"wire_radius": (0.0, 0.1)},
        {"size": (1.0,)},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ProceduralConfig(**wrong)


def test_a_configuration_that_gives_only_needles_says_so():
    config = ProceduralConfig(points=64, size=(0.05, 10.0), primitives=(1, 1), kinds=("torus",), shear=0, cut=1,
                              cut_size=(2.0, 2.0), cutters=(64, 64), wire=0)  # fmt: skip
    with pytest.raises(DataError, match="degenerate"):
        make_shape(0, config)


def test_the_store_streams_the_series():
    store = ProceduralStore(10_000_000, SMALL, seed=2)
    xyz, normals = make_shape(9_876_543, SMALL, 2)
    np.testing.assert_array_equal(store.points(9_876_543), xyz)
    np.testing.assert_array_equal(store.field("normals", 9_876_543), normals)
    store.points(9_876_543)[:] = 0
    np.testing.assert_array_equal(store.points(9_876_543), xyz)
    with pytest.raises(UsageError):
        store.field("part", 0)
    with pytest.raises(UsageError):
        ProceduralStore(0, SMALL)


def test_as_a_data_set_without_labels():
    data = load_procedural(count=6, test=2, points=128, primitives=[1, 2], seed=5)
    assert data.meta.classes == ()
    assert data.splits == {"train": 6, "test": 2}
    sample = data.train.with_fields("normals")[1]
    assert "label" not in sample
    assert sample["xyz"].shape == sample["normals"].shape == (128, 3)
    config = ProceduralConfig(points=128, primitives=(1, 2))
    assert data.test is not None
    np.testing.assert_array_equal(data.test[0]["xyz"], make_shape(6, config, 5)[0])
    assert collate([data.train[i] for i in range(3)])["xyz"].shape == (3, 128, 3)


def test_the_content_hash_follows_options_seed_and_count():
    options = [{}, {"seed": 1}, {"points": 65}, {"cut": 0.4}, {"count": 5}]
    hashes = {load_procedural(**({"count": 4, "points": 64} | o)).content_hash() for o in options}
    assert len(hashes) == 5
    assert load_procedural(count=4, points=64).content_hash() in hashes


def test_the_same_shapes_for_any_number_of_workers():
    torch = pytest.importorskip("torch")
    split = CloudSplit(ProceduralStore(4, SMALL))

    def clouds(workers: int) -> list:
        loader = torch.utils.data.DataLoader(split, batch_size=None, num_workers=workers)
        return [sample["xyz"] for sample in loader]

    for a, b in zip(clouds(0), clouds(2), strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))


def test_making_shapes_needs_no_torch():
    code = "import sys, pointlift.data.procedural as p; p.make_shape(0); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
