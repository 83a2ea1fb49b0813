"""One file per released system: its config to our architecture, its keys to ours. Pure functions."""

from pointlift.weights.upstream.base import Upstream
from pointlift.weights.upstream.registry import UPSTREAMS, detect, outdated, upstream_for

__all__ = ["UPSTREAMS", "Upstream", "detect", "outdated", "upstream_for"]
