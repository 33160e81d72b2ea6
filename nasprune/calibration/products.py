"""Products of features with each other, summed over rows: they are symmetric, so that only one half is computed."""

from __future__ import annotations

from torch import Tensor

BLOCK = 256
"""Features in a band of rows of the matrix; each band is computed from the diagonal on."""


def add_products(total: Tensor, rows: Tensor) -> None:
    """Adds the products of all pairs of features to bands of `total`; what lies below them is left as it is.

    Args:
        total: (..., F, F), in any floating-point type. rows: (..., n, F).
    """
    for start in range(0, rows.shape[-1], BLOCK):
        band = slice(start, start + BLOCK)
        total[..., band, start:] += rows[..., band].mT @ rows[..., start:]


def mirror(total: Tensor) -> Tensor:
    """Fills what `add_products` has left, in place."""
    for start in range(0, total.shape[-1], BLOCK):
        after = start + BLOCK
        total[..., after:, start:after] = total[..., start:after, after:].mT
    return total
