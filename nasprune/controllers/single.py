"""Controllers that propose one decision."""

from __future__ import annotations

from abc import abstractmethod

from nasprune.base import Controller
from nasprune.space.budgeted import BudgetedSpace
from nasprune.space.choices import Decision
from nasprune.space.trials import Trial


class SingleDecision(Controller):
    """Proposes what `decide` gives, once."""

    def __init__(self, problem: BudgetedSpace, *, seed: int) -> None:
        self._problem = problem
        self._asked = False

    @abstractmethod
    def decide(self) -> Decision:
        """The decision, the same for every call."""

    def ask(self) -> Decision | None:
        if self._asked:
            return None
        self._asked = True
        return self.decide()

    def tell(self, trial: Trial) -> None:
        """Nothing to learn from one proposal."""
