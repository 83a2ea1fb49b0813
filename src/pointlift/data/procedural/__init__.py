"""Unlabelled procedural shapes for self-supervision, streamed or cached on disk (see `docs/procedural.md`)."""

from pointlift.data.procedural.cache import load_cached, write_procedural
from pointlift.data.procedural.classes import VariedDraw, load_procedural_classes, make_member
from pointlift.data.procedural.config import KINDS, VERSION, ProceduralConfig
from pointlift.data.procedural.make import make_shape, make_with_program
from pointlift.data.procedural.program import Program, draw_program
from pointlift.data.procedural.store import ProceduralStore, load_procedural

__all__ = [
    "KINDS",
    "VERSION",
    "ProceduralConfig",
    "ProceduralStore",
    "Program",
    "VariedDraw",
    "draw_program",
    "load_cached",
    "load_procedural",
    "load_procedural_classes",
    "make_member",
    "make_shape",
    "make_with_program",
    "write_procedural",
]
