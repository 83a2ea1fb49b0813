"""What operations demand of their arguments, said in one way."""

import torch
from torch import Tensor

from pointlift.core.errors import DataError, UsageError


def as_clouds(name: str, xyz: Tensor) -> Tensor:
    """`xyz` as a (B,N,3) float tensor with at least one point; half precision becomes float32."""
    if not isinstance(xyz, Tensor):
        raise UsageError(f"{name} is a {type(xyz).__name__}", "a torch.Tensor (B,N,3)", "Use torch.as_tensor first")
    if xyz.dim() != 3 or xyz.shape[-1] != 3:
        raise UsageError(
            f"{name} has shape {tuple(xyz.shape)}",
            "(B,N,3): clouds, points, coordinates",
            "For one cloud, add [None]",
        )
    if not xyz.is_floating_point():
        raise UsageError(f"{name} has dtype {xyz.dtype}", "floating-point coordinates", "Convert it with .float()")
    if xyz.shape[1] == 0:
        raise DataError(f"{name} has clouds without points", "at least one point per cloud")
    return xyz.float() if xyz.dtype in (torch.float16, torch.bfloat16) else xyz


def as_search_pair(
    query: Tensor, points: Tensor, names: tuple[str, str] = ("query", "points")
) -> tuple[Tensor, Tensor]:
    """Both as float32 clouds without a gradient, checked to belong together."""
    query, points = as_pair(query, points, names)
    return query.detach().float(), points.detach().float()


def as_pair(a: Tensor, b: Tensor, names: tuple[str, str]) -> tuple[Tensor, Tensor]:
    """Both as clouds, of one batch size and on one device."""
    a, b = as_clouds(names[0], a), as_clouds(names[1], b)
    if a.shape[0] != b.shape[0]:
        raise UsageError(
            f"{names[0]} holds {a.shape[0]} clouds and {names[1]} {b.shape[0]}",
            "the same number of clouds in both",
        )
    if a.device != b.device:
        raise UsageError(f"{names[0]} is on {a.device} and {names[1]} on {b.device}", "both on one device")
    return a, b


def check_count(what: str, asked: int, available: int) -> None:
    """Refuse counts below one, and more of something than the clouds have points."""
    if asked < 1:
        raise UsageError(f"{what} = {asked}", "at least 1")
    if asked > available:
        raise DataError(
            f"{what} = {asked} asks for more than the {available} points of each cloud",
            f"at most {available}",
            f"Use a smaller {what} or clouds with more points",
        )


def check_range(name: str, idx: Tensor, size: int) -> None:
    """Refuse indices outside 0 .. size-1. Not while compiling: values are unknown then."""
    if torch.compiler.is_compiling() or idx.numel() == 0:
        return
    low, high = (int(v) for v in torch.aminmax(idx))
    if low < 0 or high >= size:
        raise UsageError(
            f"{name} has values from {low} to {high}",
            f"indices per cloud, 0 to {size - 1}",
            "Flat indices (that contain the cloud's number) have to be taken modulo the cloud size",
        )


def check_neighborhoods(name: str, table: Tensor, idx: Tensor) -> None:
    """Refuse what is no table of numbers (B,R,C) with int64 indices of neighbourhoods (B,S,K) in it.

    Values of indices are looked at on a CPU; elsewhere that would wait for the device.
    """
    if table.dim() != 3 or idx.dim() != 3 or idx.shape[0] != table.shape[0] or idx.shape[2] < 1:
        raise UsageError(f"{name} {tuple(table.shape)} with idx {tuple(idx.shape)}", "(B,R,C) with (B,S,K), K >= 1")
    if idx.dtype != torch.int64:
        raise UsageError(f"idx has dtype {idx.dtype}", "int64", "Convert it with .long()")
    if not table.is_floating_point():
        raise UsageError(f"{name} has dtype {table.dtype}", "floating-point numbers", "Convert it with .float()")
    if idx.device.type == "cpu":
        check_range("idx", idx, table.shape[1])
