"""What is wrong with the values of a tensor: kinds of numbers that cannot be meant, NaN, negative variances."""

from __future__ import annotations

import torch
from torch import Tensor

VARIANCE = "running_var"
STATISTICS = ("running_mean", VARIANCE)
"""Buffers of norms, which no network can compute with where they are not finite."""
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Floating-point types that hold values by themselves; the 8-bit ones need scales beside them."""


def unfit(name: str, given: Tensor, wanted: Tensor, *, parameter: bool) -> str | None:
    """Why `given` cannot be the values of `wanted`, of the same shape, as the end of a sentence; `None` where it can.

    Args:
        name: of the tensor in its model. parameter: whether it is trained; buffers may hold infinities, such as masks.
    """
    return _wrong_kind(given, wanted) or wrong_values(name, given, parameter=parameter)


def wrong_values(name: str, value: Tensor, *, parameter: bool) -> str | None:
    """What no network computes with, as the end of a sentence: NaN, infinite weights, negative variances."""
    if not (value.is_floating_point() or value.is_complex()) or value.is_meta or not value.numel():
        return None
    whole = value.detach()
    if bool(whole.isnan().any()):
        return "holds NaN; give weights that are finite"
    leaf = name.rpartition(".")[2]
    if (parameter or leaf in STATISTICS) and not bool(whole.isfinite().all()):
        return "holds infinite values; give weights that are finite"
    if leaf == VARIANCE and bool((whole < 0).any()):
        return f"holds negative variances (the least is {float(whole.min()):g}); give the statistics of a trained net"
    return None


def _wrong_kind(given: Tensor, wanted: Tensor) -> str | None:
    """A whole number may be written as a float, and a float with more or fewer digits; nothing else is meant."""
    if given.dtype == wanted.dtype or (given.dtype in FLOATS and wanted.dtype in FLOATS):
        return None
    if wanted.dtype == torch.bool or given.dtype == torch.bool:
        fits = False
    elif given.is_complex() and wanted.is_complex():
        fits = True
    elif _whole(wanted):
        fits = _whole(given) or (given.dtype in FLOATS and bool((given == given.round()).all()))
    else:
        fits = False
    if fits:
        return None
    return f"is {_short(given)} in the file, {_short(wanted)} in the model; convert it, then save again"


def _whole(value: Tensor) -> bool:
    return not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)


def _short(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
