"""Weights below a threshold go in rounds, each followed by training of those that are left.

Han, Pool, Tran, Dally 2015, "Learning both weights and connections for efficient neural networks", arXiv:1506.02626:
the threshold of a layer is a quality times the standard deviation of its weights. Departures: the quality is the same
for all layers, and the one that the budget asks for; every round takes the same share of what is left; deviations are
those of the start.
"""

from __future__ import annotations

from nasprune import InputError, PrunePlan, Strategy, StrategyTask


class IterativeMagnitude(Strategy):
    """rounds: the first before the first step. until: share of the steps at which the last round takes place."""

    takes = ("zeros",)

    def __init__(self, task: StrategyTask, rounds: int = 6, until: float = 0.6) -> None:
        if rounds < 1 or not 0 <= until < 1:
            raise InputError(f"`rounds` must be at least 1 and `until` in [0, 1), got {rounds} and {until}")
        self._task, self._rounds, self._until = task, rounds, until
        self._deviations = {weight.name: weight.tensor.detach().std() for weight in task.weights}
        self._round = 0
        self._next()

    def step(self, progress: float, rate: float) -> None:
        due = self._rounds if self._until == 0 else 1 + int(progress / self._until * (self._rounds - 1))
        while self._round < min(due, self._rounds):
            self._next()
        self._task.mask(self._masks)

    def finish(self) -> PrunePlan:
        while self._round < self._rounds:
            self._next()
        return self._task.mask(self._masks)

    def _next(self) -> None:
        self._round += 1
        density = self._task.density
        left = density ** (self._round / self._rounds)
        share = (1 - left) / (1 - density) if density < 1 else 1.0
        weights = self._task.weights
        scores = {each.name: each.tensor.detach().abs() / self._deviations[each.name] for each in weights}
        self._masks = self._task.masks(scores, share=share)
        self._task.mask(self._masks)
