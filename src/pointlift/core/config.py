"""From YAML and `--a.b value` to frozen dataclasses, with every mistake reported at once.

Dataclasses are the single source of truth; pydantic checks the types at this border and nowhere else.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pointlift.core.errors import ConfigError, UsageError, did_you_mean, unknown_name

T = TypeVar("T")
MAX_RECIPE_BYTES = 1_000_000


def parse_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """`["--data.root", "clouds", "--epochs=3"]` as a nested dict; values are read as YAML scalars or lists.

    Raises:
        UsageError: An argument that is not `--a.b value`.
    """
    import yaml

    tree: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or len(word) == 2:
            raise UsageError(f"unexpected argument {word!r}", "overrides of the form --a.b value")
        key, equals, value = word[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UsageError(f"option --{key} has no value", f"--{key} VALUE")
            value = rest.pop(0)
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            parsed = value
        _set_dotted(tree, key.replace("-", "_"), parsed)
    return tree


def _set_dotted(tree: dict[str, Any], key: str, value: Any) -> None:
    *path, leaf = key.split(".")
    for part in path:
        node = tree.setdefault(part, {})
        if not isinstance(node, dict):
            raise UsageError(f"--{key}: {part!r} was given a value already", "one of the two")
        tree = node
    tree[leaf] = value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`: nested mappings merge, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def recipe_names() -> list[str]:
    """The packaged recipes, as `method/dataset[_variant]`."""
    root = resources.files("pointlift") / "recipes"
    found = []
    for folder in root.iterdir():
        if folder.is_dir():
            found += [f"{folder.name}/{f.name[:-5]}" for f in folder.iterdir() if f.name.endswith(".yaml")]
    return sorted(found)


def read_recipe(source: str | Path) -> dict[str, Any]:
    """The mapping of a packaged recipe or of a YAML file, with its one parent (`extends:`) laid below it."""
    text, where = recipe_text(source)
    recipe = parse_yaml(text, where)
    parent = recipe.pop("extends", None)
    if parent is None:
        return recipe
    if not isinstance(parent, str):
        raise ConfigError(f"{where}: extends is {parent!r}", "the name or path of one recipe")
    beside = Path(where).parent / parent
    base = read_recipe(beside if beside.suffix in {".yaml", ".yml"} and beside.exists() else parent)
    return merge(base, recipe)


def recipe_text(source: str | Path) -> tuple[str, str]:
    """The YAML text of a packaged recipe or a file, and what to call it in messages."""
    path = Path(source)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise UsageError(
                f"no recipe file {str(path)!r}",
                "a YAML file",
                "`pointlift list recipes` shows the packaged ones",
            )
        if path.stat().st_size > MAX_RECIPE_BYTES:
            raise ConfigError(
                f"{path} has {path.stat().st_size} bytes", f"a recipe of at most {MAX_RECIPE_BYTES} bytes"
            )
        try:
            return path.read_text(encoding="utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}", "a text file in UTF-8") from error
    if str(source) not in recipe_names():
        raise unknown_name("recipe", str(source), recipe_names(), "`pointlift list recipes`")
    return (resources.files("pointlift") / "recipes" / f"{source}.yaml").read_text(encoding="utf-8"), str(source)


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """The mapping in a YAML text; tags that would build objects are refused."""
    import yaml

    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{where} is not a YAML file: {reason}", "plain YAML (no tags)") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{where} holds a {type(value).__name__}", "a mapping of keys to values")
    return value


def build(cls: type[T], values: Mapping[str, Any], where: str = "configuration") -> T:
    """`values` as an instance of the frozen dataclass `cls`; all mistakes in one `ConfigError`."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    mistakes = _unknown_keys(cls, values, "")
    known = _without_unknown(cls, values)
    try:
        built = TypeAdapter(cls, config=None if dataclasses.is_dataclass(cls) else ConfigDict()).validate_python(known)
    except ValidationError as error:
        mistakes += [_say(item) for item in error.errors(include_url=False)]
    if mistakes:
        raise ConfigError(f"{where}: " + "; ".join(mistakes), fix="--print-config shows every key with its value")
    return built


def to_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as plain values that YAML and JSON can hold (tuples become lists)."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, tuple | list) else value

    return plain(dataclasses.asdict(config))


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Plain values as YAML text, keys in their own order."""
    import yaml

    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=110)


def _nested(annotation: Any) -> Any:
    """The dataclass inside `Foo` or `Foo | None`, else None."""
    if dataclasses.is_dataclass(annotation):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        inner = [a for a in typing.get_args(annotation) if dataclasses.is_dataclass(a)]
        return inner[0] if len(inner) == 1 else None
    return None


def _unknown_keys(cls: Any, values: Mapping[str, Any], prefix: str) -> list[str]:
    hints = typing.get_type_hints(cls)
    mistakes = []
    for key, value in values.items():
        if key not in hints:
            mistakes.append(f"unknown key {prefix + str(key)!r}.{did_you_mean(str(key), hints)}".rstrip("."))
        elif (inner := _nested(hints[key])) is not None and isinstance(value, Mapping):
            mistakes += _unknown_keys(inner, value, f"{prefix}{key}.")
    return mistakes


def _without_unknown(cls: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    kept = {}
    for key, value in values.items():
        if key in hints:
            inner = _nested(hints[key])
            kept[key] = _without_unknown(inner, value) if inner is not None and isinstance(value, Mapping) else value
    return kept


def _say(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "value"
    if item["type"] == "missing":
        return f"missing key {where!r}"
    message = item["msg"].removeprefix("Value error, ")
    return (
        f"{where}: {message} (given {item.get('input')!r})" if item["type"] != "value_error" else f"{where}: {message}"
    )
