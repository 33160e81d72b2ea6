"""Amounts of memory in words: "2GiB", "800MB"."""

from __future__ import annotations

import re

from nasprune.errors import InputError

UNITS = {"K": 1, "M": 2, "G": 3, "T": 4}
LEAST = 2**28
_AMOUNT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT])(i?)B\s*", re.IGNORECASE)


def bytes_of(memory: str | int) -> int:
    """The bytes that `memory` stands for: "2GiB" is 2**31, "2GB" 2 * 10**9, a number is itself.

    Raises:
        InputError: it is no amount, or less than 256 MiB.
    """
    amount = _AMOUNT.fullmatch(memory) if isinstance(memory, str) else None
    if isinstance(memory, bool) or not (isinstance(memory, int) or amount):
        raise InputError(f"expected `memory` (--memory) to be an amount such as 2GiB or 800MB, got {memory!r}")
    if amount:
        number, prefix, binary = amount.groups()
        found = float(number) * (1024 if binary else 1000) ** UNITS[prefix.upper()]
    else:
        found = float(memory)
    if not LEAST <= found < 2**60:
        raise InputError(
            f"expected `memory` (--memory) to be at least 256MiB, and what a machine can hold, got {memory}"
        )
    return int(found)


def written(count: int) -> str:
    """Bytes as text: 1610612736 is "1.5 GiB"."""
    return f"{count / 2**30:.2f} GiB"
