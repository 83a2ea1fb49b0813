"""Labelled procedural shapes: everyday classes with parts, made on the fly (see `docs/shapes.md`)."""

from pointlift.data.shapes.catalog import CLASSES, PART_IDS, PART_NAMES, PARTS, SHAPE_CLASSES, ShapeClass
from pointlift.data.shapes.dataset import ShapeStore, load_shapes, write_shapes
from pointlift.data.shapes.make import Shape, ShapeConfig, make_shape

__all__ = [
    "CLASSES",
    "PARTS",
    "PART_IDS",
    "PART_NAMES",
    "SHAPE_CLASSES",
    "Shape",
    "ShapeClass",
    "ShapeConfig",
    "ShapeStore",
    "load_shapes",
    "make_shape",
    "write_shapes",
]
