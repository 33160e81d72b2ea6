"""Cut early, train on: the units of the smallest norm are set to zero for good, at once or in rounds.

One-shot magnitude pruning of filters, and its iterative form: Li, Kadav, Durdanovic, Samet, Graf 2017, "Pruning filters
for efficient ConvNets", arXiv:1608.08710. Departures: the norm is L2 over all tensors that make a channel; equal ratios
in all groups; what is cut is a mask until the end, so that any training loop goes on with it; rounds end at `until` of
the training, each taking the same share of the FLOPs.
"""

from __future__ import annotations

import math

from nasprune import InputError, PrunePlan, Strategy, StrategyTask


class Hard(Strategy):
    """rounds: of narrowing, the first before the first step. until: their end, as a share of the steps, in [0, 1)."""

    def __init__(self, task: StrategyTask, rounds: int = 1, until: float = 0.5) -> None:
        if rounds < 1 or not 0 <= until < 1:
            raise InputError(f"`rounds` must be at least 1 and `until` in [0, 1), got {rounds} and {until}")
        self._task, self._rounds, self._until = task, rounds, until
        self._round = 0
        self._next()

    def step(self, progress: float, rate: float) -> None:
        due = self._rounds if self._until == 0 else 1 + math.floor(progress / self._until * (self._rounds - 1))
        while self._round < min(due, self._rounds):
            self._next()
        self._task.zero(self._plan)

    def finish(self) -> PrunePlan:
        while self._round < self._rounds:
            self._next()
        self._task.zero(self._plan, ("out", "scale", "in"))
        return self._plan

    def _next(self) -> None:
        """What is zero already stays lowest."""
        self._round += 1
        self._plan = self._task.plan(self._task.magnitudes(), share=self._round / self._rounds)
        self._task.zero(self._plan)
