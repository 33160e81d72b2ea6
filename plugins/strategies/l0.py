"""Gates that are exactly zero with a chance that is learned: the number of weights, or of units, is in the loss.

Louizos, Welling, Kingma 2018, "Learning sparse neural networks through L0 regularization", arXiv:1712.01312: a gate is
a hard concrete variable, s = sigmoid((log u - log(1 - u) + log a) / beta) stretched to (-0.1, 1.1) and clipped to [0,
1]. With a budget of numbers that are not zero every weight has a gate, one draw for a batch; with one of FLOPs or
parameters every unit, a draw for each item, where layers read it. Departures: the strength of the penalty is not given
but found, as in Gallego-Posada, Ramirez, Erraqabi, Bengio, Lacoste-Julien 2022, arXiv:2208.04425: it grows while the
expected share of gates above zero is over what the budget leaves, and is zero again below that; `log a` is learned by
an Adam of its own; at `until` gates get their values in evaluation, are multiplied into the weights, and what is left
trains on.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nasprune import InputError, PrunePlan, Strategy, StrategyTask

LOW, HIGH, BETA = -0.1, 1.1, 2 / 3


def drawn(log_a: Tensor, uniform: Tensor) -> Tensor:
    """Gates for numbers in (0, 1)."""
    s = torch.sigmoid((uniform.log() - (1 - uniform).log() + log_a) / BETA)
    return (s * (HIGH - LOW) + LOW).clamp(0, 1)


def settled(log_a: Tensor) -> Tensor:
    """Gates in evaluation."""
    return (torch.sigmoid(log_a) * (HIGH - LOW) + LOW).clamp(0, 1)


def alive(log_a: Tensor) -> Tensor:
    """The chance that a gate is not zero."""
    return torch.sigmoid(log_a - BETA * math.log(-LOW / HIGH))


class L0(Strategy):
    """start: the chance of a gate to be open, at first. lr: of the gates. dual: how fast the penalty adapts.

    ramp, until: shares of the steps, at which the expected share should be the budget's, and gates become fixed.
    """

    takes = ("structure", "zeros")
    hooks = True

    def __init__(
        self,
        task: StrategyTask,
        start: float = 0.9,
        lr: float = 0.02,
        dual: float = 0.05,
        ramp: float = 0.5,
        until: float = 0.8,
    ) -> None:
        if not 0 < start < 1 or lr <= 0 or dual <= 0 or not 0 < ramp <= until < 1:
            raise InputError(
                f"`start` must be in (0, 1), `lr` and `dual` above 0, `ramp` and `until` in (0, 1) with `ramp` first, "
                f"got {start}, {lr}, {dual}, {ramp} and {until}"
            )
        self._task, self._dual, self._ramp, self._until = task, dual, ramp, until
        self._generator = torch.Generator().manual_seed(task.seed)
        self._strength, self._plan = 0.0, None
        at = math.log(start / (1 - start)) + BETA * math.log(-LOW / HIGH)
        shapes = (
            {weight.name: weight.tensor.shape for weight in task.weights}
            if task.sparse
            else {group.name: torch.Size([group.width]) for group in task.groups}
        )
        self._gates = {name: torch.full(shape, at).requires_grad_() for name, shape in shapes.items()}
        self._adam = torch.optim.Adam(self._gates.values(), lr=lr)
        self._costs = self._relative()
        self._target = task.density if task.sparse else self._left(task.plan(task.magnitudes()))
        if task.sparse:
            for weight in task.weights:
                weight.through(self._thinned(weight.name))
        else:
            for group in task.groups:
                task.gate(group, self._opened(group.name))

    def step(self, progress: float, rate: float) -> None:
        if self._plan is None:
            goal = 1 - (1 - self._target) * min(1.0, progress / self._ramp)
            with torch.enable_grad():
                expected = sum((alive(gate) * self._costs[name]).sum() for name, gate in self._gates.items())
                assert isinstance(expected, Tensor)
                (self._strength * expected).backward()
            self._adam.step()
            self._adam.zero_grad()
            over = float(expected) - goal
            self._strength = self._strength + self._dual * over / self._target if over > 0 else 0.0
            if progress >= self._until:
                self._plan = self._settle()
        else:
            self._empty(self._plan)

    def finish(self) -> PrunePlan:
        plan = self._plan or self._settle()
        self._empty(plan, ("out", "scale", "in"))
        return plan

    def _settle(self) -> PrunePlan:
        """Takes the gates away, with their values in the weights."""
        self._task.release()
        values = {name: settled(gate.detach()) for name, gate in self._gates.items()}
        chances = {name: alive(gate.detach()).masked_fill(values[name] == 0, -1) for name, gate in self._gates.items()}
        if self._task.sparse:
            for weight in self._task.weights:
                weight.tensor.mul_(values[weight.name].to(weight.tensor))
            kept = self._task.masks({name: chance.to(self._device(name)) for name, chance in chances.items()})
            self._masks = {name: mask & (chances[name] >= 0).to(mask.device) for name, mask in kept.items()}
            return self._task.mask(self._masks)
        for group in self._task.groups:
            self._task.fold(group, values[group.name])
        return self._task.plan(chances, spread="global", least=-1.0)

    def _empty(self, plan: PrunePlan, roles: tuple[str, ...] = ("out", "scale")) -> None:
        if self._task.sparse:
            self._task.mask(self._masks)
        else:
            self._task.zero(plan, roles)

    def _thinned(self, name: str) -> Callable[[Tensor, bool], Tensor]:
        def change(value: Tensor, training: bool) -> Tensor:
            gate = self._gates[name]
            found = drawn(gate, self._uniform(gate.shape)) if training else settled(gate)
            return value * found.to(value)

        return change

    def _opened(self, name: str) -> Callable[[int, bool], Tensor]:
        def draw(items: int, training: bool) -> Tensor:
            gate = self._gates[name]
            return drawn(gate, self._uniform((items, len(gate)))) if training else settled(gate)[None]

        return draw

    def _uniform(self, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=self._generator).clamp(1e-6, 1 - 1e-6)

    def _relative(self) -> dict[str, float]:
        """Name -> what one of its gates holds open, as a share of all."""
        if self._task.sparse:
            return dict.fromkeys(self._gates, 1 / sum(gate.numel() for gate in self._gates.values()))
        prices = self._task.prices({group.name: group.width for group in self._task.groups})
        whole = sum(prices[group.name] * group.width for group in self._task.groups) or 1.0
        return {name: price / whole for name, price in prices.items() if name in self._gates}

    def _left(self, plan: PrunePlan) -> float:
        """The share of all costs of units that a plan keeps."""
        return sum(
            self._costs[group.name] * len(plan.keep.get(group.name, range(group.width))) for group in self._task.groups
        )

    def _device(self, name: str) -> torch.device:
        return next(weight.tensor.device for weight in self._task.weights if weight.name == name)
