"""How many steps fit into a time, by what one of them and one check take."""

from __future__ import annotations

import time
from collections.abc import Callable

SLACK = 0.9
"""Of the time that is planned for; machines get slower, too."""


def steps_within(seconds: float, step: Callable[[], object], check: Callable[[], object], checks: int) -> int:
    """How many steps and as many as `checks` checks take so many seconds, the trying out of them included; may be 0.

    step, check: are run, the step twice, since the first one takes longer than others.
    """
    began = time.perf_counter()
    step()
    of_step, of_check = _seconds(step), _seconds(check)
    left = SLACK * (seconds - (time.perf_counter() - began)) - checks * of_check
    return max(0, int(left / max(of_step, 1e-9)))


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
