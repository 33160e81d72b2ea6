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
    """The place of a candidate in its choice by FLOPs over all tied places: 1 for the cheapest, 2 for the next.

    What computes nothing comes below the others: everything else without parameters first, then skip connections. Pools
    count as such whatever norms follow them; a skip connection that has convolutions, because it halves the image,
    counts with these. What connects nothing gets 0. Places, not FLOPs, because under a budget in FLOPs worths in FLOPs
    say nothing: whatever fills the budget would be as good.
    """

    def score(self, task: OpTask) -> Mapping[str, Tensor]:
        return {choice.name: _places(choice, task.cost(choice).tolist()) for choice in task.choices}


def _places(choice: OpChoice, costs: list[float]) -> Tensor:
    sizes = [(0.0 if "pool" in name.lower() else cost) for name, cost in zip(choice.ops, costs, strict=True)]
    keys = {op: (sizes[op], _is_skip(choice.ops[op])) for op in choice.connecting}
    order = sorted(set(keys.values()))
    found = torch.zeros(len(choice.ops), dtype=torch.float64, device="cpu")
    for op, key in keys.items():
        found[op] = 1 + order.index(key)
    return found


def _is_skip(name: str) -> bool:
    return any(word in name.lower() for word in ("skip", "identity"))
