"""One file per released system: its config to our architecture, its keys to ours. Pure functions."""

from pointlift.weights.upstream.base import Upstream
from pointlift.weights.upstream.registry import UPSTREAMS, detect, upstream_for

__all__ = ["UPSTREAMS", "Upstream", "detect", "upstream_for"]
