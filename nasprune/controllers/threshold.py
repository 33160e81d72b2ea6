"""One threshold over the cost-aware scores of all units of all groups: the baseline `global`.

The value of unit u of group g is its share of the group's score over its share of the dense cost,

    value(u) = (s_u / sum of s over g) / (c_g / width_g) = (s_u / mean of s over g) / c_g

with s the criterion's scores, shifted up to zero where some are below it (all ones where all are zero), and c_g the
share of the dense cost that would go with the whole group (`cost_shares`). A group that lets an option
go in steps of several units is valued by the mean of each step, so that values never rise along a group. Units stay
where their value is at or above the threshold, every group keeping its least option and blocks staying; of equal values
the earlier group's go last. The threshold is the lowest whose decision is within budget, found by bisection over the
sorted values; the search loop then fills what room is left. Dividing global scores by cost is common practice, for
example in Molchanov et al. 2017, arXiv:1611.06440, section 2.2, who subtract a multiple of the FLOPs instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nasprune.controllers.single import SingleDecision
from nasprune.space.choices import Decision, WidthChoice
from nasprune.space.shares import SMALLEST, cost_shares


class GlobalThreshold(SingleDecision):
    """Proposes one decision, the same for every seed."""

    def decide(self) -> Decision:
        problem, shares, scores = self._problem, cost_shares(self._problem), self._problem.importances()
        steps: list[tuple[float, int, int]] = []
        for number, choice in enumerate(problem.space.widths):
            values = step_values(choice, scores[choice.name], shares[choice.name])
            steps.extend((-value, number, option) for option, value in zip(choice.options[1:], values, strict=True))
        steps.sort()
        low, high = 0, len(steps)  # the first `low` steps fit, or none does
        while low < high:
            middle = (low + high + 1) // 2
            if problem.budget.allows(problem.costs([self._after(steps[:middle])])[0]):
                low = middle
            else:
                high = middle - 1
        return self._after(steps[:low])

    def _after(self, steps: Sequence[tuple[float, int, int]]) -> Decision:
        """The smallest widths, grown by `steps`, with all blocks."""
        space = self._problem.space
        options = {choice.name: choice.options[-1] for choice in space.choices}
        options |= {choice.name: choice.options[0] for choice in space.widths}
        for _, number, option in steps:
            options[space.widths[number].name] = option
        return Decision.of(options)


def step_values(choice: WidthChoice, scores: Sequence[float], share: float) -> list[float]:
    """The mean value of the units that each option after the first adds, never rising.

    Args:
        choice: the group's options.
        scores: (width,), in the order in which units stay.
        share: of the dense cost, that goes with the whole group.
    """
    values = np.asarray(scores, dtype=np.float64)
    values = values - min(values.min(), 0.0)
    if values.sum() <= 0:
        values = np.ones_like(values)
    values = values / values.mean() / max(share, SMALLEST)
    ends = zip(choice.options, choice.options[1:], strict=False)
    return [float(value) for value in np.minimum.accumulate([values[first:last].mean() for first, last in ends])]
