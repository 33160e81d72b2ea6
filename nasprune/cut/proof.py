"""What a proof of a cut says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Proof:
    """The outcome of `nasprune.verify`.

    max_error: largest difference between the masked dense model and the cut one, relative to the largest output, in
    `dtype`. flops: fvcore's count on the cut model; predicted_flops: the formula's. frozen: what had to be frozen on
    the way, with reasons.
    """

    ok: bool
    max_error: float
    tolerance: float
    dtype: str
    flops: int
    predicted_flops: int
    frozen: Mapping[str, str] = field(default_factory=dict)
