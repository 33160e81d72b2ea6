"""Sparse variational dropout: every weight learns its own noise, and those that are nothing but noise go.

Molchanov, Ashukha, Vetrov 2017, "Variational dropout sparsifies deep neural networks", arXiv:1701.05369: weights are
N(w, sigma^2) with a log-uniform prior; w and log sigma^2 are trained on the loss plus the divergence from the prior
over the number of training items, with the noise drawn for outputs (local reparametrisation) and the divergence warmed
up. A weight whose log alpha = log sigma^2 - log w^2 is above 3 goes. Departures: log sigma^2 is learned by an Adam of
its own; where more weights are left than the budget allows, those of the greatest log alpha go, too; at `until` the
noise ends and what is left trains on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nasprune import InputError, LiveWeight, PrunePlan, Strategy, StrategyTask, log_uniform_slope

NOISE = 3.0
LOWEST = 1e-8  # of a weight's square


class VD(Strategy):
    """items: of the training data. lr: of the noise. start: log sigma^2 at first. warm, until: shares of the steps."""

    takes = ("zeros",)
    hooks = True

    def __init__(
        self,
        task: StrategyTask,
        items: int = 5000,
        lr: float = 0.02,
        start: float = -10.0,
        warm: float = 0.3,
        until: float = 0.8,
    ) -> None:
        if items < 1 or lr <= 0 or not 0 < warm <= until < 1:
            raise InputError(
                f"`items` must be at least 1, `lr` above 0, `warm` and `until` in (0, 1) with `warm` first, got "
                f"{items}, {lr}, {warm} and {until}"
            )
        self._task, self._items, self._warm, self._until = task, items, warm, until
        self._scale, self._fixed = 0.0, False
        self._generator = torch.Generator().manual_seed(task.seed)
        self._noise = {
            weight.name: torch.full_like(weight.tensor.detach(), start).requires_grad_() for weight in task.weights
        }
        self._adam = torch.optim.Adam(self._noise.values(), lr=lr)
        for weight in task.weights:
            weight.noisy(self._variance(weight.name), self._normal)
            weight.pull(self._pull(weight))

    def step(self, progress: float, rate: float) -> None:
        if not self._fixed:
            for weight in self._task.weights:
                noise = self._noise[weight.name]
                if noise.grad is not None:
                    noise.grad.add_(log_uniform_slope(self._log_alpha(weight)), alpha=self._scale / self._items)
            self._adam.step()
            self._adam.zero_grad()
            self._scale = min(1.0, progress / self._warm)
            if progress >= self._until:
                self._fix()
        if self._fixed:
            self._task.mask(self._masks)

    def finish(self) -> PrunePlan:
        if not self._fixed:
            self._fix()
        return self._task.mask(self._masks)

    def _fix(self) -> None:
        self._fixed = True
        self._task.release()
        noise = {weight.name: self._log_alpha(weight) for weight in self._task.weights}
        kept = self._task.masks({name: -value for name, value in noise.items()})
        self._masks = {name: mask & (noise[name] <= NOISE) for name, mask in kept.items()}

    def _log_alpha(self, weight: LiveWeight) -> Tensor:
        return self._noise[weight.name].detach() - (weight.tensor.detach().square() + LOWEST).log()

    def _normal(self, shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=self._generator)

    def _variance(self, name: str) -> Callable[[], Tensor]:
        return lambda: self._noise[name].exp()

    def _pull(self, weight: LiveWeight) -> Callable[[], Tensor]:
        """The gradient of the divergence by the weight: by log alpha, times -2 w / w^2."""

        def gradient() -> Tensor:
            mean = weight.tensor.detach()
            slope = log_uniform_slope(self._log_alpha(weight))
            return slope * (-2 * mean / (mean.square() + LOWEST)) * self._scale / self._items

        return gradient
