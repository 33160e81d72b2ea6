"""One common ratio for all groups: the baseline that every search has to beat."""

from __future__ import annotations

from nasprune.controllers.scaling import uniform
from nasprune.controllers.single import SingleDecision
from nasprune.space.choices import Decision


class Uniform(SingleDecision):
    """Proposes one decision: the largest common share of every width that the budget allows, all blocks kept."""

    def decide(self) -> Decision:
        return uniform(self._problem)
