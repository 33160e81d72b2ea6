"""The decision with the least estimated harm within the budget: measured damages and an exact knapsack.

Damages of single options are added up and the sum is minimised under the exact cost, blocks and widths together. See
`nasprune.damage` for how they are measured and `nasprune.knapsack` for what is exact.
"""

from __future__ import annotations

from nasprune.base import BudgetedSpace, Controller
from nasprune.errors import InputError
from nasprune.knapsack import solve
from nasprune.repair import PricedSpace
from nasprune.report import Trial
from nasprune.space import Decision


class Sensitivity(Controller):
    """Proposes one decision, which needs data."""

    def __init__(self, problem: BudgetedSpace, *, seed: int) -> None:
        if not isinstance(problem, PricedSpace):
            raise InputError(f"the knapsack needs the price list of a PricedSpace, got a {type(problem).__name__}")
        self._problem = problem
        self._asked = False

    def ask(self) -> Decision | None:
        if self._asked:
            return None
        self._asked = True
        return solve(self._problem, self._problem.damages())

    def tell(self, trial: Trial) -> None:
        """Nothing to learn from one proposal."""
