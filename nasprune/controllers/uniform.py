"""One common ratio for all groups: the baseline that every search has to beat."""

from __future__ import annotations

from nasprune.base import BudgetedSpace, Controller
from nasprune.controllers.scaling import uniform
from nasprune.report import Trial
from nasprune.space import Decision


class Uniform(Controller):
    """Proposes one decision: the largest common share of every width that the budget allows, all blocks kept."""

    def __init__(self, problem: BudgetedSpace, *, seed: int) -> None:
        self._problem = problem
        self._asked = False

    def ask(self) -> Decision | None:
        if self._asked:
            return None
        self._asked = True
        return uniform(self._problem)

    def tell(self, trial: Trial) -> None:
        """Nothing to learn from one proposal."""
