"""The command line: one short file per verb; parse, call, print. `main` is the entry point."""

from pointlift.cli.app import main

__all__ = ["main"]
