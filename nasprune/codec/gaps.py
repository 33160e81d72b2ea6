"""Positions of the values that are not zero, as gaps of few bits, with fillers where a gap is too wide.

Han, Mao, Dally 2016, "Deep compression", arXiv:1510.00149, section 2 and figure 2. Departure: one sequence for a whole
weight, flattened, without pointers to its rows.
"""

from __future__ import annotations

import numpy as np

from nasprune.codec.huffman import Ints


def gaps_of(positions: Ints, bits: int) -> tuple[Ints, Ints]:
    """Zeros skipped before each entry, below 2^bits, and the number of the position it stands for, -1 for a filler.

    positions: ascending. A filler is an entry of value zero behind 2^bits - 1 zeros.
    """
    skipped = np.diff(positions, prepend=-1) - 1
    fillers = skipped >> bits
    entries = len(positions) + int(fillers.sum())
    gaps = np.full(entries, (1 << bits) - 1, dtype=np.int64)
    owners = np.full(entries, -1, dtype=np.int64)
    at = np.arange(len(positions)) + np.cumsum(fillers)
    gaps[at] = skipped & ((1 << bits) - 1)
    owners[at] = np.arange(len(positions))
    return gaps, owners


def positions_of(gaps: Ints) -> Ints:
    """Where each entry lies, fillers included."""
    return np.cumsum(gaps + 1) - 1
