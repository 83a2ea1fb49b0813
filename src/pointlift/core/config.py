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
    """`["--data.root", "clouds", "--epochs=3"]` as a nested dict; the last of two values for one key counts.

    Values are read as YAML: numbers, `true`, `null`, `[1, 2]`, `{head: 10}`; all else is text.

    Raises:
        UsageError: An argument that is not `--a.b value`.
    """
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
        _set_dotted(tree, key.replace("-", "_"), _parse_value(value))
    return tree


def _parse_value(text: str) -> Any:
    """A value of the command line. "note: x" and "2026-01-01" are text there: neither mapping nor date."""
    try:
        value = _load_yaml(text)
    except ValueError:
        return text
    plain = value is None or isinstance(value, bool | int | float | str | list)
    return value if plain or (isinstance(value, dict) and text.lstrip().startswith("{")) else text


def _set_dotted(tree: dict[str, Any], key: str, value: Any) -> None:
    *path, leaf = key.split(".")
    node: Any = tree
    for part in path:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise UsageError(f"--{part} and --{key} are both given", "one of the two")
    if isinstance(node.get(leaf), dict) and not isinstance(value, dict):
        raise UsageError(f"--{key} and an option below it are both given", "one of the two")
    node[leaf] = value


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
    """The mapping of a packaged recipe or of a YAML file, laid on its one parent (`extends:`).

    A parent is a packaged name, or the path of a YAML file as seen from the file that names it.

    Raises:
        UsageError: No such recipe.
        ConfigError: Not readable as a mapping, or recipes that extend each other in a circle.
    """
    chain: list[str] = []
    recipe: dict[str, Any] = {}
    parent: Any = source
    while parent is not None:
        text, where = recipe_text(parent)
        identity = str(Path(where).resolve()) if _is_file_name(where) else where
        if identity in chain:
            raise ConfigError(f"{where} extends itself: {' > '.join([*chain, identity])}", "parents without a circle")
        chain.append(identity)
        values = parse_yaml(text, where)
        parent = values.pop("extends", None)
        if not isinstance(parent, str | None):
            raise ConfigError(f"{where}: extends is {parent!r}", "the name or path of one recipe")
        if parent is not None and _is_file_name(parent):
            parent = Path(where).parent / parent
        recipe = merge(values, recipe)
    return recipe


def _is_file_name(source: str | Path) -> bool:
    return Path(source).suffix in {".yaml", ".yml"}


def recipe_text(source: str | Path) -> tuple[str, str]:
    """The YAML text of a packaged recipe or a file, and what to call it in messages."""
    path = Path(source)
    if _is_file_name(path):
        if not path.is_file():
            raise UsageError(
                f"no recipe file {str(path)!r}",
                "a YAML file",
                "`pointlift list recipes` shows the packaged ones",
            )
        size = path.stat().st_size
        if size > MAX_RECIPE_BYTES:
            raise ConfigError(f"{path} has {size} bytes", f"a recipe of at most {MAX_RECIPE_BYTES} bytes")
        try:
            return path.read_text(encoding="utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}", "a text file in UTF-8") from error
    if str(source) not in recipe_names():
        raise unknown_name("recipe", str(source), recipe_names(), "`pointlift list recipes`")
    return (resources.files("pointlift") / "recipes" / f"{source}.yaml").read_text(encoding="utf-8"), str(source)


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """The mapping in a YAML text; tags that would build objects are refused."""
    try:
        value = _load_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{where} is not a YAML file: {error}", "plain YAML (no tags)") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{where} holds a {type(value).__name__}", "a mapping of keys to values")
    return value


def _load_yaml(text: str) -> Any:
    """The value of a YAML text; tags that would build objects are refused.

    Raises:
        ValueError: Whatever is wrong with it. PyYAML lets more out than its own errors: a date of month 13, a number
            of thousands of digits or a `!!bool` of nonsense raise whatever its helpers raise.
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from error


def build(cls: type[T], values: Mapping[str, Any], where: str = "configuration") -> T:
    """`values` as an instance of the frozen dataclass `cls`.

    Raises:
        ConfigError: Unknown keys (with the nearest name), missing ones and wrong values, all at once. Only a check
            over several fields (`__post_init__`) waits until each of them is right.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    mistakes = _unknown_keys(cls, values, "")
    # A dataclass alone takes no pydantic config; inside a tuple it takes the tuple's.
    adapter = TypeAdapter(tuple[cls], config=ConfigDict(extra="forbid", coerce_numbers_to_str=True))  # type: ignore[valid-type]
    try:
        (built,) = adapter.validate_python((_without_unknown(cls, values),))
    except ValidationError as error:
        mistakes += _say(cls, error.errors(include_url=False))
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


def _inner(annotation: Any) -> Any:
    """`Foo` of `Foo | None`, else the annotation itself."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [a for a in typing.get_args(annotation) if a is not types.NoneType]
        return members[0] if len(members) == 1 else annotation
    return annotation


def _fields(annotation: Any) -> dict[str, Any]:
    """Names and types of the fields of a dataclass (or None); empty for everything else."""
    return typing.get_type_hints(inner) if dataclasses.is_dataclass(inner := _inner(annotation)) else {}


def _unknown_keys(cls: Any, values: Mapping[str, Any], prefix: str) -> list[str]:
    known = _fields(cls)
    mistakes = []
    for key, value in values.items():
        if key not in known:
            near = did_you_mean(str(key), known)
            mistakes.append(f"unknown key {prefix + str(key)!r}{'.' if near else ''}{near}")
        elif isinstance(value, Mapping) and _fields(known[key]):
            mistakes += _unknown_keys(known[key], value, f"{prefix}{key}.")
    return mistakes


def _without_unknown(cls: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    known = _fields(cls)
    return {
        key: _without_unknown(known[key], value) if isinstance(value, Mapping) and _fields(known[key]) else value
        for key, value in values.items()
        if key in known
    }


def _say(cls: Any, errors: Sequence[Any]) -> list[str]:
    """pydantic's errors, one per key: the members of a union each complain on their own."""
    said: dict[str, tuple[list[str], str]] = {}
    for item in errors:
        where = _dotted(cls, item["loc"][1:])
        message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
        given = "" if item["type"] in ("missing", "value_error") else f" (given {repr(item['input'])[:80]})"
        said.setdefault(where, ([], given))[0].append("missing" if item["type"] == "missing" else message)
    return [f"{where}: {' or '.join(messages)}{given}".removeprefix(": ") for where, (messages, given) in said.items()]


def _dotted(annotation: Any, loc: Sequence[int | str]) -> str:
    """`data.resample.pool`: a place in the configuration, without the union members that were tried."""
    parts = []
    for part in loc:
        annotation = _inner(annotation)
        if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
            parts.append(str(part))
        annotation = _fields(annotation).get(str(part), Any)
    return ".".join(parts)
