"""One common ratio for all groups: the baseline that every search has to beat."""

from __future__ import annotations

from nasprune.base import BudgetedSpace, Controller
from nasprune.report import Trial
from nasprune.space import Decision

HALVINGS = 16


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


def uniform(problem: BudgetedSpace) -> Decision:
    """The decision nearest to a common share, to within 2^-16, the largest that the budget allows.

    Where even the narrowest widths are over budget they are returned as they are, for the caller to fit.
    """
    low, high = 0.0, 1.0
    best = problem.space.scaled(high)
    if problem.budget.allows(problem.costs([best])[0]):
        return best
    best = problem.space.scaled(low)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        decision = problem.space.scaled(middle)
        if problem.budget.allows(problem.costs([decision])[0]):
            low, best = middle, decision
        else:
            high = middle
    return best
