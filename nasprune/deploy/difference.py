"""How far two runs are apart."""

from __future__ import annotations

from math import inf
from typing import Any

from torch import Tensor

from nasprune.common.outputs import tensors_of


def difference(expected: Any, got: Any) -> float:
    """The largest difference between two outputs, as a share of the largest value of the tensor that it is in.

    Infinite where their number or shapes differ.
    """
    first, second = tensors_of(expected), tensors_of(got)
    if [tensor.shape for tensor in first] != [tensor.shape for tensor in second]:
        return inf
    return max((_apart(a, b) for a, b in zip(first, second, strict=True)), default=0.0)


def _apart(expected: Tensor, got: Tensor) -> float:
    a, b = expected.detach().cpu().double().nan_to_num(), got.detach().cpu().double().nan_to_num()
    if not a.numel():
        return 0.0
    apart, scale = float((a - b).abs().max()), float(a.abs().max())
    return apart / scale if scale else (0.0 if apart == 0 else inf)
