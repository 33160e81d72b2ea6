"""The least harm by measured damages and an exact knapsack, then aging evolution around it while trials remain.

The first proposal is that of `sensitivity`. What the sum of single damages cannot see, how cuts add up, evolution then
looks for by scores of networks cut for real. It stays near: widths move by fewer steps than in `evolution`, since a
short search has only some tens of trials. See `nasprune.harm.damage`, `nasprune.space.knapsack` and
`nasprune.controllers.aging`.
"""

from __future__ import annotations

from random import Random

from nasprune.base import Controller
from nasprune.controllers.aging import Aging
from nasprune.space.budgeted import BudgetedSpace
from nasprune.space.choices import Decision
from nasprune.space.knapsack import solve
from nasprune.space.priced import priced
from nasprune.space.trials import Trial

POPULATION = 16
SAMPLE = 8
SPREAD = 0.25


class Auto(Controller):
    """The knapsack's decision, then evolution seeded with it. Needs data."""

    def __init__(self, problem: BudgetedSpace, *, seed: int) -> None:
        self._problem = priced(problem)
        self._rng = Random(seed)
        self._aging: Aging | None = None

    def ask(self) -> Decision | None:
        if self._aging is None:
            seeds = [solve(self._problem, self._problem.damages())]
            sizes = {"population": POPULATION, "sample": SAMPLE}
            self._aging = Aging(self._problem.space, seeds, self._rng, **sizes, spread=SPREAD)
        return self._aging.ask()

    def tell(self, trial: Trial) -> None:
        if self._aging is not None:
            self._aging.tell(trial)
