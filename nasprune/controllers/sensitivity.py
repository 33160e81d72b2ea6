"""The decision with the least estimated harm within the budget: measured damages and an exact knapsack.

Damages of single options are added up and the sum is minimised under the exact cost, blocks and widths together. See
`nasprune.damage` for how they are measured and `nasprune.knapsack` for what is exact.
"""

from __future__ import annotations

from nasprune.base import BudgetedSpace
from nasprune.controllers.single import SingleDecision
from nasprune.knapsack import solve
from nasprune.repair import priced
from nasprune.space import Decision


class Sensitivity(SingleDecision):
    """Needs data."""

    def __init__(self, problem: BudgetedSpace, *, seed: int) -> None:
        super().__init__(problem, seed=seed)
        self._priced = priced(problem)

    def decide(self) -> Decision:
        return solve(self._priced, self._priced.damages())
