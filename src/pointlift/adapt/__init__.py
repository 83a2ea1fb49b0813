"""How a pretrained model is adapted: which parameters learn, what is inserted, which statistics stand still."""

from pointlift.adapt.base import Adaptation, AdaptationHandle, AdaptationReport
from pointlift.adapt.registry import ADAPTATIONS, adapt_model, list_adaptations

__all__ = [
    "ADAPTATIONS",
    "Adaptation",
    "AdaptationHandle",
    "AdaptationReport",
    "adapt_model",
    "list_adaptations",
]
