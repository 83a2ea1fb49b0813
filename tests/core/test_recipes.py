"""Recipe files: one parent, nothing executed, and clear words for whatever is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pointlift.core import config
from pointlift.core.config import parse_yaml, read_recipe, recipe_names, recipe_text
from pointlift.core.errors import ConfigError, UnknownNameError, UsageError


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_child_is_laid_on_its_parents(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "epochs: 1\noptim: {lr: 1, betas: [1, 2]}\n")
    write(tmp_path / "sub" / "b.yml", "extends: ../a.yaml\noptim: {lr: 2}\nname: b\n")
    child = write(tmp_path / "c.yaml", "extends: sub/b.yml\noptim: {betas: [3]}\n")
    assert read_recipe(child) == {"epochs": 1, "optim": {"lr": 2, "betas": [3]}, "name": "b"}
    assert read_recipe(str(child)) == read_recipe(child)


def test_parents_are_found_from_the_child_not_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "sub" / "child.yaml", "extends: parent.yaml\n")
    write(tmp_path / "parent.yaml", "epochs: 1\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"no recipe file .*sub.parent\.yaml"):
        read_recipe("sub/child.yaml")


def test_every_packaged_recipe_is_a_mapping_and_can_be_a_parent(tmp_path: Path) -> None:
    for name in recipe_names():
        child = write(tmp_path / "child.yaml", f"extends: {name}\nnote: mine\n")
        assert read_recipe(child) == {**read_recipe(name), "note": "mine"}


def test_recipes_in_a_circle(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "extends: b.yaml\n")
    write(tmp_path / "b.yaml", "extends: ./sub/../a.yaml\n")
    (tmp_path / "sub").mkdir()
    with pytest.raises(ConfigError, match=r"extends itself: .*a\.yaml > .*b\.yaml > .*a\.yaml"):
        read_recipe(tmp_path / "a.yaml")
    own = write(tmp_path / "own.yaml", "extends: own.yaml\n")
    with pytest.raises(ConfigError, match="extends itself"):
        read_recipe(own)


def test_a_long_line_of_parents_is_no_recursion(tmp_path: Path) -> None:
    write(tmp_path / "r0.yaml", "epochs: 7\n")
    for i in range(1, 300):
        write(tmp_path / f"r{i}.yaml", f"extends: r{i - 1}.yaml\n")
    assert read_recipe(tmp_path / "r299.yaml") == {"epochs": 7}


def test_missing_recipes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no recipe file '.*none\.yaml'"):
        read_recipe(tmp_path / "none.yaml")
    with pytest.raises(UnknownNameError, match="no recipe 'demo/shape'"):
        read_recipe("demo/shape")
    child = write(tmp_path / "child.yaml", "extends: no/such\n")
    with pytest.raises(UnknownNameError, match="no recipe 'no/such'"):
        read_recipe(child)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n- 2\n", "holds a list"),
        ("just text", "holds a str"),
        ("a: [1", "not a YAML file"),
        ("a: \t- b: c: d", "not a YAML file"),
        ("extends: [a, b]", r"extends is \['a', 'b'\]"),
        ("day: 2026-13-45", "not a YAML file"),
        ("n: " + "9" * 5000, "not a YAML file"),
        ("b: !!bool nonsense", "not a YAML file"),
        ("t: !!timestamp nonsense", "not a YAML file"),
        ("[" * 1500, "not a YAML file"),
        (b"name: \xff\xfe\xff", "UTF-8"),
        (b"name: \x00", "not a YAML file"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_recipe(write(tmp_path / "r.yaml", text))
    assert "r.yaml" in str(caught.value)
    assert len(str(caught.value)) < 600


def test_an_empty_recipe_is_empty(tmp_path: Path) -> None:
    assert read_recipe(write(tmp_path / "r.yaml", "# nothing\n")) == {}


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch {0}']",
        "!!python/object/new:os.system ['touch {0}']",
        "!!python/name:os.system",
        "!!python/module:os",
        "!mine {{}}",
    ],
)
def test_tags_build_nothing(tmp_path: Path, tag: str) -> None:
    touched = tmp_path / "touched"
    with pytest.raises(ConfigError, match="plain YAML"):
        read_recipe(write(tmp_path / "r.yaml", f"a: {tag.format(touched)}\n"))
    assert not touched.exists()


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    huge = write(tmp_path / "r.yaml", b"a: 1\n" + b"#" * config.MAX_RECIPE_BYTES)
    with pytest.raises(ConfigError, match="at most 1000000 bytes"):
        read_recipe(huge)


def test_what_a_message_calls_it(tmp_path: Path) -> None:
    path = write(tmp_path / "r.yaml", "a: 1\n")
    assert recipe_text(path) == ("a: 1\n", str(path))
    assert parse_yaml("a: 1", "somewhere") == {"a": 1}
