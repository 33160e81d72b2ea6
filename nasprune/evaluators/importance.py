"""How much of the network's signal survives, estimated from criterion scores alone: no data, microseconds a candidate.

A score is read as an amplitude: for a group, s(k) is the share of its squared scores that its k best units hold. The
loss of a group is -log s(k), weighted by w, the share of the dense cost that the group takes part in; so each
operation loses the product of the shares of its input and output channels, and operations count by their cost. Where
all scores are equal, the first units cut from any group lose as much importance as they save cost; the shape of the
scores decides what is cut. (A plain sum of shares would starve every other layer: where costs are products of
neighbouring widths, (1, x^2, 1, x^2) costs as much as (x, x, x, x) and has the larger sum.)

What is lost inside a removable block is lost only on its branch, and the stream that passes the block by goes on. With
W the sum of the weights of the block's inner groups (or of the whole block, where that is more), and b = exp(sum of
w log s(k) over them / W), which is 0 once the block is dropped, the score is

    exp( sum over groups outside blocks of w log s(k)  +  sum over blocks of W log((1 + b) / 2) )

All candidates cost about the same, because repair fills the budget, so the best is the one that loses least for what it
saves.

Limits: that a branch carries half of the stream is a convention (0.5 to 0.8 do equally well there); errors that cancel
or add up between layers are not seen. It ranks plans of one model and predicts no accuracy.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from torch import Tensor

from nasprune.base import Candidate, EvaluationTask, Evaluator
from nasprune.cut.selection import best_first
from nasprune.graph.model import CoupledGroup
from nasprune.space.choices import Decision
from nasprune.space.shares import SMALLEST, cost_shares


class Importance(Evaluator):
    """Importance kept, in (0, 1]; 1 is the dense network."""

    reads_labels: ClassVar[bool] = False

    def __init__(self, task: EvaluationTask) -> None:
        space = task.problem.space
        searched = {choice.name for choice in space.choices}
        groups = {group.name: group for group in task.graph.groups if group.name in searched}
        self._shares = {name: kept_shares(group, task.scores[name]) for name, group in groups.items()}
        self._step = {name: group.multiple_of for name, group in groups.items()}
        self._weight = cost_shares(task.problem)
        block_of: dict[str, str] = {}
        for block in sorted(task.graph.blocks, key=lambda block: len(block.groups), reverse=True):
            if block.name in searched:
                block_of.update({name: block.name for name in block.groups if name in groups})
        self._outer = tuple(name for name in groups if name not in block_of)
        self._blocks = {
            choice.name: tuple(name for name, owner in block_of.items() if owner == choice.name)
            for choice in space.blocks
        }

    def evaluate(self, candidate: Candidate) -> float:
        decision = candidate.decision
        total = sum(self._weight[name] * self._log_kept(decision, name) for name in self._outer)
        for block, inner in self._blocks.items():
            weight = max(sum(self._weight[name] for name in inner), self._weight[block], SMALLEST)
            kept = sum(self._weight[name] * self._log_kept(decision, name) for name in inner)
            branch = math.exp(kept / weight) if decision[block] else 0.0
            total += weight * math.log((1 + branch) / 2)
        return math.exp(total)

    def _log_kept(self, decision: Decision, name: str) -> float:
        return math.log(max(self._shares[name][decision[name] // self._step[name]], SMALLEST))


def kept_shares(group: CoupledGroup, scores: Tensor) -> list[float]:
    """Entry i is the share of the group's squared scores that its best `i * group.multiple_of` units hold.

    Scores below zero are shifted up to it; where all are zero the share is that of the units.
    """
    values = scores.detach().to("cpu").double().numpy()
    values = np.square(values - min(values.min(), 0.0))
    if values.sum() <= 0:
        values = np.ones(group.width)
    total = values.sum()
    counts = np.arange(group.width // group.multiple_of + 1) * group.multiple_of
    kept = np.zeros(counts.size)
    for cell in best_first(group, scores):
        cumulative = np.concatenate([[0.0], np.cumsum(values[cell])])
        kept += cumulative[counts * cell.size // group.width]
    return [float(share) for share in kept / total]
