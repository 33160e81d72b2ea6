"""What one call of an operator adds to the cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nasprune.cost.calls import Call
from nasprune.cost.sizes import Product


@dataclass(frozen=True)
class Count:
    """Sums of products of axis sizes. operator: the name it is counted under, fvcore's where fvcore has one.

    flops: multiply-adds. activations: output elements of convolutions and dot products.
    """

    operator: str
    flops: tuple[Product, ...]
    activations: tuple[Product, ...] = ()


Formula = Callable[[Call], Count]
