"""Structured Bayesian pruning: units get log-normal noise, and those whose noise drowns their signal are cut.

Neklyudov, Molchanov, Ashukha, Vetrov 2017, "Structured Bayesian pruning via log-normal multiplicative noise",
arXiv:1705.07283: what layers read of a unit is multiplied by theta, log theta truncated normal on [-20, 0], with a
log-uniform prior on the same stretch; mu and sigma of each unit are trained on the loss plus the divergence over the
number of training items. Units whose signal-to-noise ratio is below 1 go. Departures: the inputs of the network have no
noise, since they are not cut; mu and log sigma are learned by an Adam of its own; where more units are left than the
budget allows, those of the lowest ratio go, too; at `until` theta becomes its mean, is multiplied into the weights, and
what is left trains on.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nasprune import CoupledGroup, InputError, PrunePlan, Strategy, StrategyTask

LOW, HIGH = -20.0, 0.0
TINY = 1e-12


def drawn(mu: Tensor, log_sigma: Tensor, uniform: Tensor) -> Tensor:
    """theta for numbers in (0, 1), by the inverse of its distribution function."""
    sigma = log_sigma.exp()
    low, high = _phi((LOW - mu) / sigma), _phi((HIGH - mu) / sigma)
    inside = (low + uniform * (high - low)).clamp(1e-7, 1 - 1e-7)
    return (mu + sigma * torch.special.ndtri(inside)).clamp(LOW, HIGH).exp()


def divergence(mu: Tensor, log_sigma: Tensor) -> Tensor:
    """Of each theta from the prior."""
    sigma = log_sigma.exp()
    low, high = (LOW - mu) / sigma, (HIGH - mu) / sigma
    mass = (_phi(high) - _phi(low)).clamp(min=TINY)
    edges = low * _density(low) - high * _density(high)
    whole = math.log(HIGH - LOW) - 0.5 * math.log(2 * math.pi * math.e)
    return whole - log_sigma - mass.log() - edges / (2 * mass)


def moments(mu: Tensor, log_sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and signal-to-noise ratio, mean over deviation, of each theta."""
    mu, sigma = mu.double(), log_sigma.double().exp()
    low, high = (LOW - mu) / sigma, (HIGH - mu) / sigma
    mass = (_phi(high) - _phi(low)).clamp(min=TINY)
    mean = (mu + sigma.square() / 2).exp() * (_phi(sigma - low) - _phi(sigma - high)) / mass
    square = (2 * mu + 2 * sigma.square()).exp() * (_phi(2 * sigma - low) - _phi(2 * sigma - high)) / mass
    return mean.float(), (mean / (square - mean.square()).clamp(min=TINY).sqrt()).float()


class SBP(Strategy):
    """items: of the training data. lr: of the noise. warm, until: shares of the steps."""

    hooks = True

    def __init__(
        self, task: StrategyTask, items: int = 5000, lr: float = 0.02, warm: float = 0.3, until: float = 0.8
    ) -> None:
        if items < 1 or lr <= 0 or not 0 < warm <= until < 1:
            raise InputError(
                f"`items` must be at least 1, `lr` above 0, `warm` and `until` in (0, 1) with `warm` first, got "
                f"{items}, {lr}, {warm} and {until}"
            )
        self._task, self._items, self._warm, self._until = task, items, warm, until
        self._plan: PrunePlan | None = None
        self._generator = torch.Generator().manual_seed(task.seed)
        self._mu = {group.name: torch.zeros(group.width).requires_grad_() for group in task.groups}
        self._sigma = {group.name: torch.full((group.width,), -3.0).requires_grad_() for group in task.groups}
        self._adam = torch.optim.Adam([*self._mu.values(), *self._sigma.values()], lr=lr)
        for group in task.groups:
            task.gate(group, self._opened(group))

    def step(self, progress: float, rate: float) -> None:
        if self._plan is None:
            scale = min(1.0, progress / self._warm) / self._items
            with torch.enable_grad():
                for name, mu in self._mu.items():
                    (divergence(mu, self._sigma[name]).sum() * scale).backward()
            self._adam.step()
            self._adam.zero_grad()
            for name, mu in self._mu.items():
                mu.clamp_(LOW, HIGH)
                self._sigma[name].clamp_(-10.0, 3.0)
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
        ratios = {}
        for group in self._task.groups:
            mean, ratios[group.name] = moments(self._mu[group.name].detach(), self._sigma[group.name].detach())
            self._task.fold(group, mean)
        return self._task.plan(ratios, spread="global", least=1.0)

    def _opened(self, group: CoupledGroup) -> Callable[[int, bool], Tensor]:
        def draw(items: int, training: bool) -> Tensor:
            mu, sigma = self._mu[group.name], self._sigma[group.name]
            if not training:
                return moments(mu.detach(), sigma.detach())[0][None]
            return drawn(mu, sigma, torch.rand(items, group.width, generator=self._generator))

        return draw


def _phi(x: Tensor) -> Tensor:
    return torch.special.ndtr(x)


def _density(x: Tensor) -> Tensor:
    return (-x.square() / 2).exp() / math.sqrt(2 * math.pi)
