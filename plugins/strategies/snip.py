"""Weights are chosen once, before training, by how much the first gradients depend on them.

Lee, Ajanthan, Torr 2019, "SNIP: single-shot network pruning based on connection sensitivity", arXiv:1810.02340: the
score of a weight is the absolute product of weight and gradient at the start. Departure: gradients are those of the
first steps' batches, after which the weights of the start are put back.
"""

from __future__ import annotations

import torch

from nasprune import InputError, PrunePlan, Strategy, StrategyTask


class Snip(Strategy):
    """batches: whose gradients are summed."""

    takes = ("zeros",)

    def __init__(self, task: StrategyTask, batches: int = 1) -> None:
        if batches < 1:
            raise InputError(f"`batches` must be at least 1, got {batches}")
        self._task, self._left = task, batches
        self._start = {weight.name: weight.tensor.detach().clone() for weight in task.weights}
        self._sums = {name: torch.zeros_like(value) for name, value in self._start.items()}
        self._masks = task.masks({name: value.abs() for name, value in self._start.items()}, share=0.0)

    def step(self, progress: float, rate: float) -> None:
        if self._left:
            self._left -= 1
            for weight in self._task.weights:
                if weight.tensor.grad is None:
                    raise InputError(
                        "`snip` reads the gradients of a step, and there are none; call pruner.step() right after the "
                        "optimizer's step, and clear gradients afterwards"
                    )
                self._sums[weight.name] += weight.tensor.grad
                weight.tensor.copy_(self._start[weight.name])
            if not self._left:
                self._choose()
        self._task.mask(self._masks)

    def finish(self) -> PrunePlan:
        if self._left:
            self._choose()
        return self._task.mask(self._masks)

    def _choose(self) -> None:
        self._masks = self._task.masks({name: (self._start[name] * found).abs() for name, found in self._sums.items()})
