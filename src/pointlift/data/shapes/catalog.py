"""Which classes exist. A new one is a generator function and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pointlift.core.registry import Registry
from pointlift.data.shapes import furniture, instruments, seating, vehicles, vessels
from pointlift.data.shapes.builder import Builder
from pointlift.data.shapes.draw import Draw


@dataclass(frozen=True)
class ShapeClass:
    """One parametric class.

    Attributes:
        name: What the class is called.
        parts: Names of its parts; not every shape has all of them.
        generate: Adds the primitives of one random member to a builder.
    """

    name: str
    parts: tuple[str, ...]
    generate: Callable[[Builder, Draw], None]


SHAPE_CLASSES: Registry[ShapeClass] = Registry("shape class")
for _entry in (
    ShapeClass("chair", ("seat", "back", "leg", "arm"), seating.chair),
    ShapeClass("stool", ("seat", "leg", "rung"), seating.stool),
    ShapeClass("bench", ("seat", "back", "side", "arm"), seating.bench),
    ShapeClass("sofa", ("base", "back", "cushion", "arm", "foot"), seating.sofa),
    ShapeClass("table", ("top", "leg", "apron", "extra"), furniture.table),
    ShapeClass("desk", ("top", "drawer", "leg", "panel", "extra"), furniture.desk),
    ShapeClass("bed", ("frame", "mattress", "board", "pillow", "leg"), furniture.bed),
    ShapeClass("shelf", ("board", "side", "back", "door", "book"), furniture.shelf),
    ShapeClass("lamp", ("base", "pole", "shade"), vessels.lamp),
    ShapeClass("mug", ("body", "handle", "saucer"), vessels.mug),
    ShapeClass("bottle", ("body", "neck", "cap", "handle"), vessels.bottle),
    ShapeClass("vase", ("foot", "body", "handle"), vessels.vase),
    ShapeClass("bowl", ("foot", "body", "fruit"), vessels.bowl),
    ShapeClass("plane", ("fuselage", "wing", "tail", "engine", "gear"), vehicles.plane),
    ShapeClass("car", ("body", "cabin", "wheel"), vehicles.car),
    ShapeClass("guitar", ("body", "neck", "head", "stand"), instruments.guitar),
):
    SHAPE_CLASSES.register(_entry.name, _entry)

CLASSES: tuple[str, ...] = tuple(SHAPE_CLASSES)
"""Class names; a label is a position in this tuple."""

PARTS: dict[str, tuple[str, ...]] = {name: SHAPE_CLASSES.get(name).parts for name in CLASSES}
"""Part names of each class."""

PART_NAMES: tuple[str, ...] = tuple(f"{name}/{part}" for name in CLASSES for part in PARTS[name])
"""All parts of all classes; a part label is a position in this tuple."""

PART_IDS: dict[str, tuple[int, ...]] = {
    name: tuple(k for k, full in enumerate(PART_NAMES) if full.startswith(f"{name}/")) for name in CLASSES
}
"""Part labels of each class."""
