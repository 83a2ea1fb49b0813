"""Configurations of the Point-BERT family's released code and its forks, as recipes. Pure functions but for reading.

reading     the YAML file and the `_base_` files that it names
account     every key of it, and what became of it
training    optimiser, schedule, length of the run
datasets    which clouds, and what happens to them first
networks    which network or objective
translate   all of it together
"""

from pointlift.weights.forks.account import Line, Translation
from pointlift.weights.forks.reading import ReleasedYaml, read_released_yaml
from pointlift.weights.forks.translate import translate

__all__ = ["Line", "ReleasedYaml", "Translation", "read_released_yaml", "translate"]
