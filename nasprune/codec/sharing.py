"""Few values that all weights of a layer share: k-means in one dimension.

Han, Mao, Dally 2016, "Deep compression", arXiv:1510.00149, section 3: Lloyd's iterations from centres spread evenly
over the range of the weights ("linear"), which keeps the few large weights. Departure: centres are not trained
afterwards.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nasprune.codec.huffman import Ints

ROUNDS = 200
Floats = npt.NDArray[np.float64]


def shared(values: Floats, bits: int) -> tuple[Floats, Ints]:
    """At most 2^bits centres, ascending, none of them unused, and for each value the number of the nearest centre."""
    distinct = np.unique(values)
    if len(distinct) <= 1 << bits:
        return distinct, np.searchsorted(distinct, values)
    ordered = np.sort(values)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centres = np.linspace(ordered[0], ordered[-1], 1 << bits)
    for _ in range(ROUNDS):
        bounds = np.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2, side="right")
        edges = np.concatenate([[0], bounds, [len(ordered)]])
        counts = np.diff(edges)
        moved = np.where(counts > 0, np.diff(sums[edges]) / np.maximum(counts, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    numbers = np.searchsorted((centres[1:] + centres[:-1]) / 2, values, side="left")
    used = np.unique(numbers)
    return centres[used], np.searchsorted(used, numbers)
