"""Bayesian compression: units and weights learn their noise together; what is noise is cut, the rest needs few bits.

Louizos, Ullrich, Welling 2017, "Bayesian compression for deep learning", arXiv:1705.08665, with group normal-Jeffreys
priors (BC-GNJ): what layers read of a unit is multiplied by z ~ N(mu, sigma^2), and weights have a noise of their own
with a normal prior around zero. Units whose log sigma^2 - log mu^2 is above a threshold go. The variance of what is
left says how many bits a layer's weights need: as many as bring the rounding below the mean deviation. Departures: the
inputs of the network have no noise, since they are not cut; noise is learned by an Adam of its own; where more units
are left than the budget allows, the noisiest go, too; at `until` z becomes its mean, is multiplied into the weights,
and what is left trains on. The horseshoe prior (BC-GHS) is not here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nasprune import CoupledGroup, InputError, LiveWeight, PrunePlan, Strategy, StrategyTask, log_uniform_kl

LOWEST = 1e-8


def bits(weights: Tensor, variances: Tensor) -> int:
    """Of a fixed-point number, sign included, that holds these weights with rounding below their mean deviation."""
    step = float(variances.mean().sqrt())
    return max(1, 1 + math.ceil(math.log2(max(1.0, float(weights.abs().max()) / max(step, 1e-12)))))


class Bayes(Strategy):
    """items: of the training data. lr: of the noise. threshold: of log alpha. warm, until: shares of the steps."""

    def __init__(
        self,
        task: StrategyTask,
        items: int = 5000,
        lr: float = 0.02,
        threshold: float = 0.0,
        warm: float = 0.3,
        until: float = 0.8,
    ) -> None:
        if items < 1 or lr <= 0 or not 0 < warm <= until < 1:
            raise InputError(
                f"`items` must be at least 1, `lr` above 0, `warm` and `until` in (0, 1) with `warm` first, got "
                f"{items}, {lr}, {warm} and {until}"
            )
        self._task, self._items, self._threshold, self._warm, self._until = task, items, threshold, warm, until
        self._scale = 0.0
        self._plan: PrunePlan | None = None
        self._generator = torch.Generator().manual_seed(task.seed)
        self._mu = {group.name: torch.ones(group.width).requires_grad_() for group in task.groups}
        self._sigma = {group.name: torch.full((group.width,), -8.0).requires_grad_() for group in task.groups}
        self._noise = {
            weight.name: torch.full_like(weight.tensor.detach(), -8.0).requires_grad_() for weight in task.weights
        }
        self._adam = torch.optim.Adam([*self._mu.values(), *self._sigma.values(), *self._noise.values()], lr=lr)
        for group in task.groups:
            task.gate(group, self._opened(group))
        for weight in task.weights:
            weight.noisy(self._variance(weight.name), self._normal)
            weight.pull(self._pull(weight))

    def step(self, progress: float, rate: float) -> None:
        if self._plan is None:
            with torch.enable_grad():
                units = torch.cat([log_uniform_kl(self._log_alpha(name)) for name in self._mu]).sum()
                (units * self._scale / self._items).backward()
            for noise in self._noise.values():
                if noise.grad is not None:
                    noise.grad.add_((noise.exp() - 1) / 2, alpha=self._scale / self._items)
            self._adam.step()
            self._adam.zero_grad()
            self._scale = min(1.0, progress / self._warm)
            if progress >= self._until:
                self._plan = self._settle()
        else:
            self._task.zero(self._plan)

    def finish(self) -> PrunePlan:
        plan = self._plan or self._settle()
        self._task.zero(plan, ("out", "scale", "in"))
        return plan

    def _settle(self) -> PrunePlan:
        self._task.release()
        counts = {
            weight.name: bits(weight.tensor.detach(), self._noise[weight.name].detach().exp())
            for weight in self._task.weights
        }
        needed = ", ".join(f"{name} {count}" for name, count in counts.items())
        self.notes = (f"Bits that the noise of weights leaves to each of them: {needed}.",)
        scores = {group.name: -self._log_alpha(group.name).detach() for group in self._task.groups}
        for group in self._task.groups:
            self._task.fold(group, self._mu[group.name].detach())
        return self._task.plan(scores, spread="global", least=-self._threshold)

    def _log_alpha(self, name: str) -> Tensor:
        return self._sigma[name] - (self._mu[name].square() + LOWEST).log()

    def _normal(self, shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=self._generator)

    def _variance(self, name: str) -> Callable[[], Tensor]:
        return lambda: self._noise[name].exp()

    def _pull(self, weight: LiveWeight) -> Callable[[], Tensor]:
        """The gradient of the divergence from a normal prior by the weight."""
        return lambda: weight.tensor.detach() * self._scale / self._items

    def _opened(self, group: CoupledGroup) -> Callable[[int, bool], Tensor]:
        def draw(items: int, training: bool) -> Tensor:
            mu, sigma = self._mu[group.name], self._sigma[group.name]
            if not training:
                return mu.detach()[None]
            return mu + (sigma / 2).exp() * self._normal(torch.Size([items, group.width]))

        return draw
