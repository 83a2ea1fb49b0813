"""What the source says of fields."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass

from pointlift.core.options import Option, field_texts, options_of


@dataclass(frozen=True)
class Group:
    """A group of fields.

    Args:
        first, second: Two at once, in a text
            of two lines.
    """

    first: int = 1
    second: tuple[int, ...] = (2, 3)
    # A comment
    # of two lines.
    third: bool = False


@dataclass(frozen=True)
class Base:
    """A base.

    Attributes:
        inherited: From the base.

    After the section: no field: nothing.
    """

    inherited: float = 0.5


@dataclass(frozen=True)
class Whole(Base):
    """Without a section."""

    own: str | None = None
    """Said below,
    in two lines."""
    silent: int = 0
    group: Group = field(default_factory=Group)


def test_fields_groups_and_what_is_said_of_them() -> None:
    both = "Two at once, in a text of two lines."
    assert options_of(Whole(own="x")) == [
        Option("inherited", 0.5, "From the base."),
        Option("own", "x", "Said below, in two lines."),
        Option("silent", 0, ""),
        Option("group.first", 1, both),
        Option("group.second", [2, 3], both),
        Option("group.third", False, "A comment of two lines."),
    ]


def test_without_the_source_docstrings_are_read() -> None:
    made = make_dataclass("Made", [("x", int, 1), ("y", int, 2)], frozen=True)
    made.__doc__ = "Made.\n\nArgs:\n    x: Said.\n"
    assert field_texts(made) == {"x": "Said.", "y": ""}
