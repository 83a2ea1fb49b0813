"""One family of errors: what was given, what was expected, what to do next.

The command line prints the message and exits with `exit_code`; a traceback is shown only with `--debug`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PointLiftError(Exception):
    """Something failed that the user can understand and act on.

    Args:
        given: What was found, with the name of the file, key or option.
        expected: What would have been right.
        fix: The next thing to do.
    """

    exit_code = 1

    def __init__(self, given: str, expected: str = "", fix: str = "") -> None:
        self.given, self.expected, self.fix = given, expected, fix
        parts = [given, f"Expected: {expected}" if expected else "", fix]
        super().__init__(_printable(" ".join(_sentence(part) for part in parts if part)))

    def __reduce__(self):  # errors cross process borders (data-loader workers) with their three parts
        return type(self), (self.given, self.expected, self.fix)


class UsageError(PointLiftError):
    """The call itself is wrong: an option, a name, a combination. Exit code 2."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that no registry entry, recipe key or option has."""


class ConfigError(UsageError):
    """A recipe or an override that does not fit the configuration; lists every mistake at once."""


class DataError(PointLiftError):
    """A file or a data set that cannot be used. What it quotes of a file stays short."""

    def __init__(self, given: str, expected: str = "", fix: str = "") -> None:
        super().__init__(_shortened(given), expected, fix)


class FileFormatError(DataError):
    """A file that is empty, cut short, or not what its ending says."""


class DatasetNotFoundError(DataError):
    """No data set where one was expected."""


class CheckpointError(PointLiftError):
    """A checkpoint that cannot be read."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint whose reading would execute code from the file."""


class CheckpointMismatchError(CheckpointError):
    """A checkpoint that does not fit the model it is loaded into."""


LONGEST_PART = 1_000  # characters: a file may have 60,000 columns, and a message one screen


def _shortened(text: str) -> str:
    half = LONGEST_PART // 2
    return text if len(text) <= LONGEST_PART else f"{text[:half]} … {text[-half:]}"


def _printable(text: str) -> str:
    """Control characters as `\\x1b`: a file (or its name) must not steer the terminal that shows the message."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def _sentence(text: str) -> str:
    return text if text.endswith(("?", "!", "…")) else text.rstrip(".") + "."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the nearest known name, or an empty string."""
    by_lower = {k.lower(): k for k in known}
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.5)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""


def first_few(names: Iterable[str], count: int = 8) -> str:
    """`a, b, c, …`: at most `count` names, and a sign that there are more."""
    every = list(names)
    return ", ".join(every[:count]) + (", …" if len(every) > count else "")


def unknown_name(kind: str, name: str, known: Iterable[str], listing: str = "") -> UnknownNameError:
    """The error for a name that is not registered: nearest name first, then where all names are listed."""
    names = sorted(known)
    fix = did_you_mean(name, names).strip()
    if listing:
        fix = f"{fix} {listing} shows all {len(names)}".strip()
    return UnknownNameError(f"no {kind} {name!r}", f"one of {first_few(names)}" if names else "", fix)
