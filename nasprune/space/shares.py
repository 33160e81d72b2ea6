"""What each choice of a search space has to do with the cost of the dense network."""

from __future__ import annotations

from nasprune.cost.budget import Cost
from nasprune.space.budgeted import BudgetedSpace

SMALLEST = 1e-12
"""Stands for a share of zero, so that logarithms and quotients stay finite."""


def cost_shares(problem: BudgetedSpace) -> dict[str, float]:
    """For each choice the share of the dense cost that would go with all of it, at least 0.

    Cost is FLOPs where nothing is limited, else what is limited, each in units of its limit. Costs are
    products of widths, so what a group costs is found from its smallest option by the rule of three.
    """
    budget = problem.budget

    def price(cost: Cost) -> float:
        if not budget.limited:
            return float(cost.flops)
        return float(sum(getattr(cost, quantity) / limit for quantity, limit in budget.limited.items()))

    dense = problem.space.largest()
    cut = [choice for choice in problem.space.choices if len(choice.options) > 1]
    without = [dense.replaced(choice.name, choice.options[0]) for choice in cut]
    whole, *prices = (price(cost) for cost in problem.costs([dense, *without]))
    shares = {choice.name: 0.0 for choice in problem.space.choices}
    for choice, left in zip(cut, prices, strict=True):
        first, last = choice.options[0], choice.options[-1]
        shares[choice.name] = (whole - left) / max(whole, SMALLEST) * last / (last - first)
    return shares
