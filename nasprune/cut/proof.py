"""What a proof of a cut says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

AS_CUT = "the cut model as it left the cut"
STRUCTURE = "the structure of the cut model with the dense model's weights: its own have changed since the cut"


@dataclass(frozen=True)
class Proof:
    """The outcome of `nasprune.verify`.

    max_error: largest difference between the masked dense model and the cut one, relative to the largest output, in
    `dtype`. flops: counted on the cut model; predicted_flops: the formulas'. frozen: what had to be frozen on
    the way, with reasons. compares: what was compared, in words. reason: why it is not `ok`, else "". zeros: weights
    that the plan masks, each of which is exactly zero in the cut model.
    """

    ok: bool
    max_error: float
    tolerance: float
    dtype: str
    flops: int
    predicted_flops: int
    frozen: Mapping[str, str] = field(default_factory=dict)
    compares: str = AS_CUT
    reason: str = ""
    zeros: int = 0
