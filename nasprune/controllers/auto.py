"""The least harm by measured damages and an exact knapsack, then equal widths, then aging evolution around the better.

The first proposal is that of `sensitivity`, the second that of `uniform`: where harms do not add up as they should,
equal widths may win. What the sum of single damages cannot see, how cuts add up, evolution then looks for by scores of
networks cut for real. It stays near: widths move by fewer steps than in `evolution`, since a short search has only some
tens of trials. See `nasprune.damage`, `nasprune.knapsack` and `nasprune.controllers.aging`.
"""

from __future__ import annotations

from random import Random

from nasprune.base import BudgetedSpace, Controller
from nasprune.controllers.aging import Aging
from nasprune.controllers.scaling import uniform
from nasprune.knapsack import solve
from nasprune.repair import priced
from nasprune.report import Trial
from nasprune.space import Decision

POPULATION = 16
SAMPLE = 8
SPREAD = 0.25


class Auto(Controller):
    """The knapsack's decision, the uniform one, then evolution seeded with the better. Needs data."""

    def __init__(self, problem: BudgetedSpace, *, seed: int) -> None:
        self._problem = priced(problem)
        self._rng = Random(seed)
        self._opening: list[Trial] = []
        self._aging: Aging | None = None

    def ask(self) -> Decision | None:
        if not self._opening:
            return solve(self._problem, self._problem.damages())
        if len(self._opening) == 1:
            return uniform(self._problem)
        if self._aging is None:
            self._aging = self._around(max(self._opening, key=lambda trial: trial.score))
        return self._aging.ask()

    def tell(self, trial: Trial) -> None:
        if self._aging is None:
            self._opening.append(trial)
        else:
            self._aging.tell(trial)

    def _around(self, best: Trial) -> Aging:
        sizes = {"population": POPULATION, "sample": SAMPLE}
        aging = Aging(self._problem.space, [best.decision], self._rng, **sizes, spread=SPREAD)
        aging.ask()  # the seed, which is known
        aging.tell(best)
        return aging
