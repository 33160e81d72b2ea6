"""Random search (Bergstra and Bengio 2012, JMLR 13): decisions drawn anew each time, moved to the budget by repair."""

from __future__ import annotations

from random import Random

from nasprune.base import Controller
from nasprune.space.budgeted import BudgetedSpace
from nasprune.space.choices import Decision
from nasprune.space.trials import Trial


class RandomSearch(Controller):
    """Every option of every choice is equally likely, before the proposal is fitted to the budget."""

    def __init__(self, problem: BudgetedSpace, *, seed: int) -> None:
        self._space = problem.space
        self._rng = Random(seed)

    def ask(self) -> Decision | None:
        return self._space.sample(self._rng)

    def tell(self, trial: Trial) -> None:
        """Random search does not learn."""
