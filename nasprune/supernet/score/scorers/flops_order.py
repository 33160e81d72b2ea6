"""Operations in the order of their FLOPs: the second baseline, which proxies without a budget often amount to.

Ning et al. 2021 (arXiv:2008.03064) find that many zero-cost scores rank networks no better than their size does.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nasprune.base import OpScorer, OpTask
from nasprune.space.choices import OpChoice


class FlopsOrder(OpScorer):
    """FLOPs of a candidate over all tied places, as a share of those of all candidates of all choices.

    What computes nothing comes below the cheapest of the others: skip connections, then everything else without
    parameters, then `none`. Pools count as such whatever norms follow them; a skip connection that has convolutions,
    because it halves the image, counts with these.
    """

    def score(self, task: OpTask) -> Mapping[str, Tensor]:
        costs = {choice.name: _products(choice, task.cost(choice).double().cpu()) for choice in task.choices}
        total = sum((float(cost.sum()) for cost in costs.values()), start=0.0) or 1.0
        positive = [float(cost[cost > 0].min()) for cost in costs.values() if (cost > 0).any()]
        unit = min(positive, default=total) / 4
        return {
            choice.name: torch.where(
                costs[choice.name] > 0, costs[choice.name], unit * torch.tensor([_rank(name) for name in choice.ops])
            ).where(_connects(choice), 0.0)
            / total
            for choice in task.choices
        }


def _products(choice: OpChoice, cost: Tensor) -> Tensor:
    return cost * torch.tensor([0.0 if "pool" in name.lower() else 1.0 for name in choice.ops], dtype=torch.float64)


def _connects(choice: OpChoice) -> Tensor:
    return torch.tensor([number in choice.connecting for number in range(len(choice.ops))])


def _rank(name: str) -> float:
    return 2.0 if any(word in name.lower() for word in ("skip", "identity")) else 1.0
