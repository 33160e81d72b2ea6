"""Aging evolution that starts at one decision and stays near it: for a search whose budget has moved a little.

The first proposal is the decision, which the search loop fits to the budget. See `nasprune.controllers.aging`.
"""

from __future__ import annotations

from random import Random

from nasprune.base import Controller
from nasprune.controllers.aging import Aging
from nasprune.space.budgeted import BudgetedSpace
from nasprune.space.choices import Decision
from nasprune.space.trials import Trial

POPULATION = 16
SAMPLE = 8
SPREAD = 0.1


class Near(Controller):
    """start: what was best within a budget that was a little larger or smaller."""

    def __init__(self, problem: BudgetedSpace, *, seed: int, start: Decision) -> None:
        sizes = {"population": POPULATION, "sample": SAMPLE}
        self._aging = Aging(problem.space, [start], Random(seed), **sizes, spread=SPREAD)

    def ask(self) -> Decision | None:
        return self._aging.ask()

    def tell(self, trial: Trial) -> None:
        self._aging.tell(trial)
