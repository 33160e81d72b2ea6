"""A network under training, whose whole state can be put aside and taken back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.common.states import own_tensors
from nasprune.common.untouched import twin
from nasprune.models.weights import copy_into
from nasprune.train.averaging import Average
from nasprune.train.objective import Objective
from nasprune.train.recipe import Recipe
from nasprune.train.team import Team


class Diverged(Exception):
    """The learning rate is too high."""


class Tuner:
    """student: what takes the steps. average: of its weights. steps: taken since the start. after: what follows each.

    Takes one step after another; `state` and `restore` hold weights, statistics, average and the optimizer's memory.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, objective: Objective, fabric: Any) -> None:
        self.team = Team(fabric)
        self.student = twin(model)
        self.recipe, self.objective, self.fabric = recipe, objective, fabric
        self.wrapped, self.optimizer = fabric.setup(self.student, recipe.new_optimizer(self.student))
        self.average = Average(self.student, recipe.average)
        self.steps = 0
        self.after: Callable[[], None] = lambda: None

    def step(self, parts: Sequence[tuple[Any, Any]], rate: float) -> tuple[float, float]:
        """One step at a rate; the loss before it, and the share of images that were right. Raises Diverged.

        parts: inputs and targets of the batches whose gradients make one step; every image counts the same. Where the
        loss is not finite, nothing has been changed but statistics of batch norms.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        count = sum(len(targets) for _, targets in parts)
        loss, right = 0.0, 0.0
        for number, (images, targets) in enumerate(parts, 1):
            with self._waiting(number < len(parts)):
                value, good = self.objective(self.wrapped, images, targets)
                self.fabric.backward(value * (len(targets) / count))
            loss, right = loss + float(value.detach()) * len(targets) / count, right + good / count
        loss, right = self.team.mean((loss, right))
        if not math.isfinite(loss):
            raise Diverged
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self._weights(), self.recipe.clip)
        self.optimizer.step()
        self.after()
        self.average.add(self.student)
        self.steps += 1
        return loss, right

    def _waiting(self, more: bool) -> AbstractContextManager[Any]:
        """Several processes give each other their gradients after the last part of a step only."""
        if more and self.team.size > 1:
            held: AbstractContextManager[Any] = self.fabric.no_backward_sync(self.wrapped)
            return held
        return nullcontext()

    def state(self) -> dict[str, Tensor]:
        """A copy of everything that decides how it goes on, on the CPU."""
        found = {f"student.{name}": value for name, value in own_tensors(self.student).items()}
        found |= {f"average.{name}": value for name, value in own_tensors(self.average.net).items()}
        for number, memory in self.optimizer.state_dict()["state"].items():
            found |= {
                f"optimizer.{number}.{name}": torch.as_tensor(value)
                for name, value in memory.items()
                if value is not None
            }
        return {name: value.detach().cpu().clone() for name, value in found.items()}

    def restore(self, state: Mapping[str, Tensor], steps: int) -> None:
        """As it was when `state` was taken after `steps` steps."""
        for part, net in (("student", self.student), ("average", self.average.net)):
            copy_into(net, _below(state, part))
        memory: dict[int, dict[str, Tensor]] = {}
        for name, value in _below(state, "optimizer").items():
            number, _, what = name.partition(".")
            memory.setdefault(int(number), {})[what] = value.clone()
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": memory, "param_groups": groups})
        self.steps = self.average.steps = steps

    def _weights(self) -> list[nn.Parameter]:
        return [weight for weight in self.student.parameters() if weight.requires_grad]


def _below(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}
