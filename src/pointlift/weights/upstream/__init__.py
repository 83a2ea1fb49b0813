"""One file per released system: its config to our architecture, its keys to ours. Pure functions."""

from pointlift.weights.upstream.base import Upstream, detect, upstream_for

__all__ = ["Upstream", "detect", "upstream_for"]
