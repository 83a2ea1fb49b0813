"""CPU kernels compiled by numba; same functions and results as `pointlift.ops.reference`.

Inputs are contiguous CPU tensors: coordinates float32, indices int64 (`pointlift.ops.library` sees to that).
"""

from pointlift.ops.numba_cpu.attention import neighborhood_attention, neighborhood_attention_backward
from pointlift.ops.numba_cpu.nearest import (
    chamfer,
    chamfer_backward,
    three_interpolate,
    three_interpolate_backward,
    three_nn,
)
from pointlift.ops.numba_cpu.neighbors import ball_query, knn
from pointlift.ops.numba_cpu.pooling import linear_max, linear_max_backward, neighborhood_max
from pointlift.ops.numba_cpu.sampling import farthest_point_sample

__all__ = [
    "ball_query",
    "chamfer",
    "chamfer_backward",
    "farthest_point_sample",
    "knn",
    "linear_max",
    "linear_max_backward",
    "neighborhood_attention",
    "neighborhood_attention_backward",
    "neighborhood_max",
    "three_interpolate",
    "three_interpolate_backward",
    "three_nn",
]
