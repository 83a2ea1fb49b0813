"""Geometry as pure functions of tensors: sampling, neighbours, patches, interpolation, distances.

Clouds are (B,N,3); indices are per cloud, int64. `backends()` shows which implementation runs; `use_backend`
and the environment variable POINTLIFT_OPS choose one. docs/ops.md has the conventions and the measured times.
"""

from pointlift.ops.attention import neighborhood_attention
from pointlift.ops.dispatch import backends, use_backend
from pointlift.ops.distances import ChamferResult, chamfer, chamfer_l1, chamfer_l2
from pointlift.ops.grouping import Grouping, gather, group
from pointlift.ops.interpolation import interpolate, interpolation_weights, three_interpolate
from pointlift.ops.neighbors import Neighbors, ball_query, knn, three_nn
from pointlift.ops.normalization import normalize_unit_sphere
from pointlift.ops.pooling import linear_max, neighborhood_max
from pointlift.ops.sampling import farthest_point_sample
from pointlift.ops.transport import ApproximateEMD, ExactEMD, emd_approx, emd_exact

__all__ = [
    "ApproximateEMD",
    "ChamferResult",
    "ExactEMD",
    "Grouping",
    "Neighbors",
    "backends",
    "ball_query",
    "chamfer",
    "chamfer_l1",
    "chamfer_l2",
    "emd_approx",
    "emd_exact",
    "farthest_point_sample",
    "gather",
    "group",
    "interpolate",
    "interpolation_weights",
    "knn",
    "linear_max",
    "neighborhood_attention",
    "neighborhood_max",
    "normalize_unit_sphere",
    "three_interpolate",
    "three_nn",
    "use_backend",
]
