"""A few of the damaged files that `python -m benchmarks.fuzz` makes by the thousand."""

from __future__ import annotations

import pytest

from benchmarks.fuzz import BAD, fuzz
from benchmarks.fuzzed import TARGETS


@pytest.mark.usefixtures("few_paths", "one_draw")
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damaged_files_are_refused_or_the_same(target):
    counts, bad = fuzz(target, 24, seed=1)
    assert not bad
    assert sum(counts.values()) == 24
    assert not set(counts) & set(BAD)
    assert counts["refused"] > 8
