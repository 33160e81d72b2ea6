"""Learning and compressing in turn: weights are drawn ever harder to the nearest network with enough zeros.

Carreira-Perpinan, Idelbayev 2018, "Learning-compression algorithms for neural net pruning", CVPR: an augmented
Lagrangian of min L(w) subject to w = theta with few numbers that are not zero. L steps train on L(w) plus mu / 2 |w -
theta - lambda / mu|^2; C steps keep the largest of w - lambda / mu over all layers, and lambda -= mu (w - theta); mu
grows. Departures: the pull of an L step is proximal, after the optimizer's step, so that it is stable for any mu; at
`until` the weights become theta, and the others are trained on.
"""

from __future__ import annotations

import torch

from nasprune import InputError, PrunePlan, Strategy, StrategyTask


class LC(Strategy):
    """times: of C steps until `until`, a share of the steps. mu: at first. growth: of mu with every C step."""

    takes = ("zeros",)

    def __init__(
        self, task: StrategyTask, times: int = 40, until: float = 0.8, mu: float = 0.01, growth: float = 1.2
    ) -> None:
        if times < 1 or not 0 < until < 1 or mu <= 0 or growth < 1:
            raise InputError(
                f"`times` must be at least 1, `until` in (0, 1), `mu` above 0 and `growth` at least 1, got {times}, "
                f"{until}, {mu} and {growth}"
            )
        self._task, self._times, self._until, self._mu, self._growth = task, times, until, mu, growth
        self._done, self._fixed = 0, False
        self._multipliers = {weight.name: torch.zeros_like(weight.tensor.detach()) for weight in task.weights}
        self._compress()

    def step(self, progress: float, rate: float) -> None:
        if not self._fixed:
            for weight in self._task.weights:
                target = self._theta[weight.name] + self._multipliers[weight.name] / self._mu
                weight.tensor.copy_((weight.tensor + rate * self._mu * target) / (1 + rate * self._mu))
            if int(progress / self._until * self._times) > self._done:
                self._done = int(progress / self._until * self._times)
                self._compress()
                for weight in self._task.weights:
                    self._multipliers[weight.name] -= self._mu * (weight.tensor.detach() - self._theta[weight.name])
                self._mu *= self._growth
            if progress >= self._until:
                self._fix()
        if self._fixed:
            self._task.mask(self._masks)

    def finish(self) -> PrunePlan:
        if not self._fixed:
            self._fix()
        return self._task.mask(self._masks)

    def _compress(self) -> None:
        shifted = {
            weight.name: weight.tensor.detach() - self._multipliers[weight.name] / self._mu
            for weight in self._task.weights
        }
        self._masks = self._task.masks({name: value.abs() for name, value in shifted.items()})
        self._theta = {name: value * self._masks[name] for name, value in shifted.items()}

    def _fix(self) -> None:
        self._fixed = True
        for weight in self._task.weights:
            weight.tensor.copy_(self._theta[weight.name])
