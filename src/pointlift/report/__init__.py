"""Pages and pictures made from run folders and predictions: self-contained, readable offline and on a phone.

The writers are loaded on first use, so importing this room imports neither jinja2 nor matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pointlift.report.comparison import write_comparison as write_comparison
    from pointlift.report.features import ShownFeatures as ShownFeatures
    from pointlift.report.features import write_features_page as write_features_page
    from pointlift.report.page import write_report as write_report
    from pointlift.report.picture import write_picture as write_picture
    from pointlift.report.predictions import ShownPrediction as ShownPrediction
    from pointlift.report.predictions import write_predictions_page as write_predictions_page

_HOME = {
    "ShownFeatures": "features",
    "ShownPrediction": "predictions",
    "write_comparison": "comparison",
    "write_features_page": "features",
    "write_picture": "picture",
    "write_predictions_page": "predictions",
    "write_report": "page",
}

__all__ = [
    "ShownFeatures",
    "ShownPrediction",
    "write_comparison",
    "write_features_page",
    "write_picture",
    "write_predictions_page",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"pointlift.report.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
