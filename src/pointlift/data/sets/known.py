"""Facts about known data sets that their files do not carry."""

from __future__ import annotations

from collections.abc import Sequence

MODELNET40_CLASSES = (
    "airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone",
    "cup", "curtain", "desk", "door", "dresser", "flower_pot", "glass_box", "guitar", "keyboard", "lamp",
    "laptop", "mantel", "monitor", "night_stand", "person", "piano", "plant", "radio", "range_hood", "sink",
    "sofa", "stairs", "stool", "table", "tent", "toilet", "tv_stand", "vase", "wardrobe", "xbox",
)  # fmt: skip

SHAPENETPART_PARTS_OF: dict[str, tuple[int, ...]] = {
    "Airplane": (0, 1, 2, 3), "Bag": (4, 5), "Cap": (6, 7), "Car": (8, 9, 10, 11), "Chair": (12, 13, 14, 15),
    "Earphone": (16, 17, 18), "Guitar": (19, 20, 21), "Knife": (22, 23), "Lamp": (24, 25, 26, 27),
    "Laptop": (28, 29), "Motorbike": (30, 31, 32, 33, 34, 35), "Mug": (36, 37), "Pistol": (38, 39, 40),
    "Rocket": (41, 42, 43), "Skateboard": (44, 45, 46), "Table": (47, 48, 49),
}  # fmt: skip
SHAPENETPART_PARTS = tuple(f"{name}/{i}" for name, parts in SHAPENETPART_PARTS_OF.items() for i in range(len(parts)))

_BY_CLASSES: dict[tuple[str, ...], str] = {MODELNET40_CLASSES: "modelnet40"}


def name_for(classes: Sequence[str], fallback: str) -> str:
    """The data set that has exactly these classes in this order, else `fallback` (the folder's name)."""
    return _BY_CLASSES.get(tuple(classes), fallback)
