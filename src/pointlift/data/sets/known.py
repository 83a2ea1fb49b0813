"""Facts about known data sets that their files do not carry."""

from __future__ import annotations

from collections.abc import Sequence

MODELNET40_CLASSES = (
    "airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone",
    "cup", "curtain", "desk", "door", "dresser", "flower_pot", "glass_box", "guitar", "keyboard", "lamp",
    "laptop", "mantel", "monitor", "night_stand", "person", "piano", "plant", "radio", "range_hood", "sink",
    "sofa", "stairs", "stool", "table", "tent", "toilet", "tv_stand", "vase", "wardrobe", "xbox",
)  # fmt: skip

_BY_CLASSES: dict[tuple[str, ...], str] = {MODELNET40_CLASSES: "modelnet40"}


def name_for(classes: Sequence[str], fallback: str) -> str:
    """The data set that has exactly these classes in this order, else `fallback` (the folder's name)."""
    return _BY_CLASSES.get(tuple(classes), fallback)
