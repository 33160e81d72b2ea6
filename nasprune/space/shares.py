"""What each choice of a search space has to do with the cost of the dense network."""

from __future__ import annotations

import math

from nasprune.cost.budget import Cost
from nasprune.space.budgeted import BudgetedSpace

SMALLEST = 1e-12
"""Stands for a share of zero, so that logarithms and quotients stay finite."""


def cost_shares(problem: BudgetedSpace) -> dict[str, float]:
    """For each choice the share of the dense cost that would go with all of it, at least 0.

    Cost is FLOPs, parameters where only they are limited, and both in units of their limits where both are. Costs are
    products of widths, so what a group costs is found from its smallest option by the rule of three.
    """
    budget = problem.budget

    def price(cost: Cost) -> float:
        if budget.flops is None and budget.params is None:
            return float(cost.flops)
        return cost.flops / (budget.flops or math.inf) + cost.params / (budget.params or math.inf)

    dense = problem.space.largest()
    cut = [choice for choice in problem.space.choices if len(choice.options) > 1]
    without = [dense.replaced(choice.name, choice.options[0]) for choice in cut]
    whole, *prices = (price(cost) for cost in problem.costs([dense, *without]))
    shares = {choice.name: 0.0 for choice in problem.space.choices}
    for choice, left in zip(cut, prices, strict=True):
        first, last = choice.options[0], choice.options[-1]
        shares[choice.name] = (whole - left) / max(whole, SMALLEST) * last / (last - first)
    return shares
