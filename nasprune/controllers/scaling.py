"""The largest common share of all widths that a budget allows, by bisection."""

from __future__ import annotations

from nasprune.space.budgeted import BudgetedSpace
from nasprune.space.choices import Decision

HALVINGS = 16


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
