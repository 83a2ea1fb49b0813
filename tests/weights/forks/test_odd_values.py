"""Whatever stands at a key, a configuration is translated or refused in the user's words."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from released_forks import RELEASED

from pointlift.core.config import dump_yaml, parse_yaml
from pointlift.core.errors import PointLiftError
from pointlift.tasks.fork import check_recipe
from pointlift.weights.forks import ReleasedYaml, translate
from pointlift.weights.forks.datasets import KNOWN_BASES

ODD = (None, [], {}, "x", -1, 0, 1e300, True, 10**30, [1, "a"], {"a": 1}, float("nan"))
BASES = {
    f"cfgs/{folder}/{name}.yaml"
    for name in ("ScanObjectNN_hardest", "ModelNet40", "ShapeNet-55", "Scan_OBJ-BG")
    for folder in ("dataset", "dataset_configs")
}


def paths(tree: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in tree.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from paths(value, (*above, key))


@pytest.mark.parametrize("name", RELEASED)
def test_odd_values(name: str) -> None:
    draw = random.Random(name)
    for path in draw.sample(list(paths(RELEASED[name])), 10):
        tree = copy.deepcopy(RELEASED[name])
        node = tree
        for part in path[:-1]:
            node = node[part]
        odd = draw.choice(ODD)
        node[path[-1]] = odd
        try:
            found = translate(ReleasedYaml(Path("x.yaml"), tree, {}, dict.fromkeys(BASES, "not there")))
            check_recipe(parse_yaml(dump_yaml(found.recipe, found.comments), "recipe"), found)
        except PointLiftError as error:
            said = str(error)
        else:
            said = dump_yaml(found.recipe)
            assert "nan" not in said, path
        assert len(said) < 2500, path


def test_the_bases_are_known() -> None:
    assert {Path(base).stem.lower() for base in BASES} <= set(KNOWN_BASES)
