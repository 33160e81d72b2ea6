"""The decision with the least estimated harm within the budget: measured damages and an exact knapsack.

Damages of single options are added up and the sum is minimised under the exact cost, blocks and widths together. See
`nasprune.harm.damage` for how they are measured and `nasprune.space.knapsack` for what is exact.
"""

from __future__ import annotations

from nasprune.controllers.single import SingleDecision
from nasprune.space.budgeted import BudgetedSpace
from nasprune.space.choices import Decision
from nasprune.space.knapsack import solve
from nasprune.space.priced import priced


class Sensitivity(SingleDecision):
    """Needs data."""

    def __init__(self, problem: BudgetedSpace, *, seed: int) -> None:
        super().__init__(problem, seed=seed)
        self._priced = priced(problem)

    def decide(self) -> Decision:
        return solve(self._priced, self._priced.damages())
