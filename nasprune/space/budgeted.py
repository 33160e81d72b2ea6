"""What a controller sees of the problem: choices with the price of their decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Protocol

from nasprune.cost.budget import Budget, Cost
from nasprune.space.choices import Decision, SearchSpace


class BudgetedSpace(Protocol):
    """A search space together with the price of its decisions. Never shows a model."""

    @property
    def space(self) -> SearchSpace: ...

    @property
    def budget(self) -> Budget:
        """The resolved budget: counts, no shares."""

    def costs(self, decisions: Sequence[Decision]) -> list[Cost]:
        """Exact predicted costs; a thousand decisions cost about as much as one."""

    def fit(self, decision: Decision, rng: Random, *, grow: bool = True) -> Decision:
        """The decision moved into the budget: shrunk until it is allowed, then, to `grow`, grown while it still is."""

    def damages(self) -> Mapping[str, Mapping[int, float]]:
        """For every choice: option -> estimated harm of taking it alone, 0 for keeping everything. Needs data.

        Raises:
            InputError: there is no data to measure them on.
        """

    def importances(self) -> Mapping[str, Sequence[float]]:
        """For every width choice the criterion's scores of its units, (width,), in the order in which they stay.

        An option keeps the first units. Where parts of a group must keep equal shares, the order takes from all parts
        in turn, so that scores may rise in between.

        Raises:
            InputError: nothing was scored.
        """
