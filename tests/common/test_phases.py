"""Phases: what they took, without those inside, and how far they are."""

from __future__ import annotations

from contextlib import suppress

import pytest

from nasprune.common import phases
from nasprune.common.phases import Phases, PhaseStep


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(phases.time, "monotonic", lambda: now[0])
    return now


def test_inner_phases_are_not_counted_twice_and_repeated_ones_are_added(clock: list[float]) -> None:
    made = Phases()
    for _ in range(2):
        with made.phase("outer"):
            clock[0] += 3
            with made.phase("inner"):
                clock[0] += 2
    assert [(cost.phase, cost.seconds) for cost in made.costs] == [("inner", 4), ("outer", 6)]
    assert all(cost.memory > 2**20 for cost in made.costs)


def test_steps_are_told_with_the_time_that_is_left(clock: list[float]) -> None:
    seen: list[PhaseStep] = []
    with Phases(seen.append).phase("refitting") as step:
        clock[0] += 5
        step(1, 4)
    assert [(one.done, one.of, one.left) for one in seen] == [(0, 0, None), (1, 4, 15.0)]


def test_a_phase_that_fails_is_counted(clock: list[float]) -> None:
    made = Phases()
    with suppress(ValueError), made.phase("tracing"):
        clock[0] += 1
        raise ValueError("no")
    assert [cost.seconds for cost in made.costs] == [1]
