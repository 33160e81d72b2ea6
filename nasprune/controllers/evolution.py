"""Aging evolution; see `nasprune.controllers.aging`.

With data it starts at the knapsack's decision and the uniform one, without at the uniform one, or at given decisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from nasprune.base import Controller
from nasprune.controllers.aging import Aging
from nasprune.controllers.scaling import uniform
from nasprune.errors import InputError
from nasprune.space.budgeted import BudgetedSpace
from nasprune.space.choices import Decision
from nasprune.space.knapsack import solve
from nasprune.space.priced import PricedSpace
from nasprune.space.trials import Trial


class Evolution(Controller):
    """population: living decisions, 2 or more. sample: how many compete to be a parent. seeds: where it starts."""

    def __init__(
        self,
        problem: BudgetedSpace,
        *,
        seed: int,
        population: int = 32,
        sample: int = 16,
        seeds: Sequence[Decision] = (),
    ) -> None:
        if population < 2 or sample < 1:
            raise InputError(f"`population` must be at least 2 and `sample` at least 1, got {population} and {sample}")
        for decision in seeds:
            problem.space.check(decision)
        self._problem = problem
        self._seeds = list(seeds)
        self._rng = Random(seed)
        self._sizes = {"population": population, "sample": sample}
        self._aging: Aging | None = None

    def ask(self) -> Decision | None:
        if self._aging is None:
            starts = self._seeds or _starts(self._problem)
            self._aging = Aging(self._problem.space, starts, self._rng, **self._sizes, spread=1.0)
        return self._aging.ask()

    def tell(self, trial: Trial) -> None:
        if self._aging is not None:
            self._aging.tell(trial)


def _starts(problem: BudgetedSpace) -> list[Decision]:
    if isinstance(problem, PricedSpace) and problem.has_damages:
        return [solve(problem, problem.damages()), uniform(problem)]
    return [uniform(problem)]
