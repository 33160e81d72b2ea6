"""A strategy as a partner of our own training loop: made on the network in training, and put aside with its weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from nasprune.strategies import memory
from nasprune.strategies.contract import Strategy
from nasprune.strategies.pruner import Pruner
from nasprune.strategies.task import Task
from nasprune.train.partners import Memory

Make = Callable[[nn.Module, torch.optim.Optimizer, int], Pruner]


class StrategyPartner:
    """A `Partner`. make: the pruner for a network, an optimizer, and a number of steps."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self._pruner: Pruner | None = None
        self._kept: tuple[dict[str, Any], int] | None = None

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
        strategy = self.pruner.strategy
        self._kept = (_copied(vars(strategy), strategy, self.pruner.task), self.pruner.steps)

    def back(self) -> None:
        if self._kept is not None:
            state, steps = self._kept
            strategy = self.pruner.strategy
            vars(strategy).update(_copied(state, strategy, self.pruner.task))
            self.pruner.go_back(steps)

    def written(self) -> Memory:
        return memory.written(self.pruner.strategy, self.pruner.task, self.pruner.name)

    def read(self, memory_of: Memory, steps: int) -> None:
        memory.read(memory_of, self.pruner.strategy, self.pruner.task)
        self.pruner.go_back(steps)


def _copied(state: dict[str, Any], strategy: Strategy, task: Task) -> dict[str, Any]:
    """What a strategy remembers; the live network and the strategy itself are not copied."""
    shared = [strategy, task, task.model, task.graph, task.problem, *task.model.modules()]
    shared += [*task.model.parameters(), *task.model.buffers()]
    return copy.deepcopy(state, {id(one): one for one in shared})
