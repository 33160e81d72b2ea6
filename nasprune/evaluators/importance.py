"""How much of the network's signal survives, estimated from criterion scores alone: no data, microseconds a candidate.

For a group, s(k) is the share of its total score that its k best units hold. Layers work one after the other, so the
shares of successive groups multiply. A removable block adds its branch to the stream that passes it by; what its inner
groups keep, the product b of their shares, is kept of the branch, and the branch is taken to carry half of the stream:

    kept = product over groups outside blocks of s(k)  x  product over blocks of (1 + b) / 2,    b = 0 once dropped

and the score is the geometric mean of all factors, so that 1 is the dense network whatever its depth. All candidates
cost about the same, because repair fills the budget; so the best is the one that loses least importance for what it
saves. A linear sum in the place of the product would favour starving every other layer: where costs are products of
neighbouring widths, (1, x^2, 1, x^2) costs as much as (x, x, x, x) but has the larger sum. The product is indifferent
between these two, and the shape of the scores decides.

Limits: scores of different groups are compared as shares only; that a branch is half the stream is a convention, and
errors that cancel or add up between layers are not seen. It ranks plans of one model and predicts no accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from nasprune.base import Candidate, EvaluationTask, Evaluator
from nasprune.graph.model import CoupledGroup
from nasprune.selection import best_first
from nasprune.space import Decision

SMALLEST = 1e-12
"""Stands for a share of zero, so that logarithms stay finite."""


class Importance(Evaluator):
    """Geometric mean of the importance kept, in (0, 1]; 1 is the dense network."""

    def __init__(self, task: EvaluationTask) -> None:
        names = {choice.name for choice in task.problem.space.choices}
        groups = {group.name: group for group in task.graph.groups if group.name in names}
        self._shares = {name: kept_shares(group, task.scores[name]) for name, group in groups.items()}
        self._step = {name: group.multiple_of for name, group in groups.items()}
        block_of: dict[str, str] = {}
        for block in sorted(task.graph.blocks, key=lambda block: len(block.groups), reverse=True):
            if block.name in names:
                block_of.update({name: block.name for name in block.groups if name in groups})
        self._outer = tuple(name for name in groups if name not in block_of)
        self._blocks = {
            block.name: tuple(name for name, owner in block_of.items() if owner == block.name)
            for block in task.graph.blocks
            if block.name in names
        }

    def evaluate(self, candidate: Candidate) -> float:
        decision = candidate.decision
        total = sum(math.log(max(self._kept(decision, name), SMALLEST)) for name in self._outer)
        for block, inner in self._blocks.items():
            branch = math.prod(self._kept(decision, name) for name in inner) if decision[block] else 0.0
            total += math.log((1 + branch) / 2)
        return math.exp(total / max(len(self._outer) + len(self._blocks), 1))

    def _kept(self, decision: Decision | Mapping[str, int], name: str) -> float:
        return self._shares[name][decision[name] // self._step[name]]


def kept_shares(group: CoupledGroup, scores: Tensor) -> list[float]:
    """Entry i is the share of the group's score that its best `i * group.multiple_of` units hold.

    Scores below zero are shifted up to it; where all are equal the share is that of the units.
    """
    values = scores.detach().to("cpu").double().numpy()
    values = values - min(values.min(), 0.0)
    if values.sum() <= 0:
        values = np.ones(group.width)
    total = values.sum()
    counts = np.arange(group.width // group.multiple_of + 1) * group.multiple_of
    kept = np.zeros(counts.size)
    for cell in best_first(group, scores):
        cumulative = np.concatenate([[0.0], np.cumsum(values[cell])])
        kept += cumulative[counts * cell.size // group.width]
    return [float(share) for share in kept / total]
