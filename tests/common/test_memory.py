"""Amounts of memory in words."""

from __future__ import annotations

import pytest

from nasprune.common.memory import bytes_of, written
from nasprune.errors import InputError


@pytest.mark.parametrize(
    ("memory", "count"),
    [("2GiB", 2**31), ("1.5 GiB", 3 * 2**29), ("800MB", 800 * 10**6), ("2gb", 2 * 10**9), (2**30, 2**30)],
)
def test_amounts(memory: str | int, count: int) -> None:
    assert bytes_of(memory) == count


@pytest.mark.parametrize("memory", ["2", "two GiB", "-1GiB", "10MiB", "99999999TiB", "", 5, 1.5, True, None])
def test_what_is_no_amount_is_refused(memory: object) -> None:
    with pytest.raises(InputError, match="memory"):
        bytes_of(memory)  # type: ignore[arg-type]


def test_written() -> None:
    assert written(3 * 2**29) == "1.50 GiB"
