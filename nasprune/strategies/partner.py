"""A strategy as a partner of our own training loop: made on the network in training, and put aside with its weights."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from nasprune.base import Strategy
from nasprune.strategies.pruner import Pruner
from nasprune.strategies.task import Task

Make = Callable[[nn.Module, torch.optim.Optimizer, int], Pruner]


class StrategyPartner:
    """A `Partner`. make: the pruner for a network, an optimizer, and a number of steps."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self._pruner: Pruner | None = None
        self._kept: tuple[Strategy, int] | None = None

    @property
    def pruner(self) -> Pruner:
        """Once it has begun."""
        if self._pruner is None:
            raise RuntimeError("the training has not begun")
        return self._pruner

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        self._pruner = self._make(model, optimizer, steps)

    def step(self) -> None:
        self.pruner.step()

    def keep(self) -> None:
        self._kept = (_copied(self.pruner.strategy, self.pruner.task), self.pruner.steps)

    def back(self) -> None:
        if self._kept is not None:
            strategy, steps = self._kept
            self.pruner.go_back(_copied(strategy, self.pruner.task), steps)


def _copied(strategy: Strategy, task: Task) -> Strategy:
    """A strategy with what it remembers, on the same live network."""
    shared = [task, task.model, task.graph, task.problem, *task.model.modules()]
    shared += [*task.model.parameters(), *task.model.buffers()]
    return copy.deepcopy(strategy, {id(one): one for one in shared})
