"""Aging evolution that starts at the uniform decision, or at given ones; see `nasprune.controllers.aging`."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from nasprune.base import BudgetedSpace, Controller
from nasprune.controllers.aging import Aging
from nasprune.controllers.scaling import uniform
from nasprune.report import Trial
from nasprune.space import Decision


class Evolution(Controller):
    """population: living decisions. sample: how many compete to be a parent. seeds: where it starts, else uniform."""

    def __init__(
        self,
        problem: BudgetedSpace,
        *,
        seed: int,
        population: int = 32,
        sample: int = 16,
        seeds: Sequence[Decision] = (),
    ) -> None:
        for decision in seeds:
            problem.space.check(decision)
        starts = list(seeds) or [uniform(problem)]
        self._aging = Aging(problem.space, starts, Random(seed), population=population, sample=sample, spread=1.0)

    def ask(self) -> Decision | None:
        return self._aging.ask()

    def tell(self, trial: Trial) -> None:
        self._aging.tell(trial)
