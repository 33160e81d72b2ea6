"""Bayesian compression: units and weights learn their noise together; what is noise is cut, the rest needs few bits.

Louizos, Ullrich, Welling 2017, "Bayesian compression for deep learning", arXiv:1705.08665: what layers read of a unit
is multiplied by a random z, and weights have a noise of their own with a normal prior around zero. With group
normal-Jeffreys priors (BC-GNJ) z ~ N(mu, sigma^2), and units go whose log sigma^2 - log mu^2 is above a threshold. With
group horseshoe priors (BC-GHS) z is the root of four log-normal factors, two of them shared by a group, under
half-Cauchy priors written as gamma and inverse gamma ones; units go whose mode is small. The variance of what is left
says how many bits a layer's weights need: as many as bring the rounding below the mean deviation. Departures: the
inputs of the network have no noise, since they are not cut; the prior of a layer's weights is as wide as they are at
the start, which z would have to make up for; noise is learned by an Adam of its own; modes are compared
with the largest of their group, as their logarithms; where more units are left than the budget allows, the noisiest go,
too; at `until` z becomes its mean, is multiplied into the weights, and what is left trains on.
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


class Jeffreys:
    """Normal factors of `width` units under a normal-Jeffreys prior."""

    threshold = 0.0  # of log alpha

    def __init__(self, width: int) -> None:
        self.mu = torch.ones(width).requires_grad_()
        self.sigma = torch.full((width,), -8.0).requires_grad_()

    def parameters(self) -> list[Tensor]:
        return [self.mu, self.sigma]

    def drawn(self, normal: Tensor) -> Tensor:
        """Factors (items, width) for numbers from a standard normal distribution (items, width + 1)."""
        return self.mu + (self.sigma / 2).exp() * normal[:, 1:]

    def mean(self) -> Tensor:
        return self.mu.detach()

    def badness(self) -> Tensor:
        """log alpha."""
        return self.sigma - (self.mu.square() + LOWEST).log()

    def divergence(self) -> Tensor:
        return log_uniform_kl(self.badness()).sum()


class Horseshoe:
    """Log-normal factors of `width` units under a horseshoe prior. Rows: gamma and inverse gamma halves of a scale."""

    threshold = 4.0  # of how far the logarithm of a mode lies below the largest
    scale = 1e-5
    """Of the half-Cauchy prior of a whole group, as in the paper."""

    def __init__(self, width: int) -> None:
        whole = 2 * math.log(self.scale)  # where the prior wants the gamma half; the heavy tail of the other makes up
        self.mu, self.shared = (
            torch.zeros(2, width).requires_grad_(),
            torch.tensor([[whole], [-whole]]).requires_grad_(),
        )
        self.sigma = torch.full((2, width), -8.0).requires_grad_()
        self.shared_sigma = torch.full((2, 1), -8.0).requires_grad_()

    def parameters(self) -> list[Tensor]:
        return [self.mu, self.shared, self.sigma, self.shared_sigma]

    def drawn(self, normal: Tensor) -> Tensor:
        own = self._location(self.mu) + self._deviation(self.sigma) * normal[:, 1:]
        return (own + self._location(self.shared) + self._deviation(self.shared_sigma) * normal[:, :1]).exp()

    def mean(self) -> Tensor:
        location, variance = self._whole()
        return (location + variance / 2).exp().detach()

    def badness(self) -> Tensor:
        location, variance = self._whole()
        modes = location - variance
        return modes.max() - modes

    def divergence(self) -> Tensor:
        own = log_normal_kl(self.mu, self.sigma, 1.0).sum()
        return own + log_normal_kl(self.shared, self.shared_sigma, self.scale).sum()

    def _whole(self) -> tuple[Tensor, Tensor]:
        location = self._location(self.mu) + self._location(self.shared)
        return location, self._deviation(self.sigma).square() + self._deviation(self.shared_sigma).square()

    def _location(self, mu: Tensor) -> Tensor:
        return mu.sum(0) / 2

    def _deviation(self, log_variance: Tensor) -> Tensor:
        return log_variance.exp().sum(0).sqrt() / 2


def log_normal_kl(mu: Tensor, log_variance: Tensor, scale: float) -> Tensor:
    """Divergences (2, n) of log-normal factors from Gamma(1/2, scale^2), row 0, and inverse Gamma(1/2, 1), row 1."""
    half = log_variance.exp() / 2
    common = math.log(math.sqrt(math.pi)) - 0.5 * (math.log(2 * math.pi * math.e) + log_variance)
    gamma = (mu[0] + half[0]).exp() / scale**2 - mu[0] / 2 + math.log(scale)
    inverse = (-mu[1] + half[1]).exp() + mu[1] / 2
    return torch.stack([gamma, inverse]) + common


PRIORS: dict[str, type[Jeffreys] | type[Horseshoe]] = {"gnj": Jeffreys, "ghs": Horseshoe}


class Bayes(Strategy):
    """prior: "gnj" or "ghs". items: of the training data. lr: of the noise. warm, until: shares of the steps.

    threshold: of log alpha, or of the distance of modes; by default that of the prior.
    """

    hooks = True

    def __init__(
        self,
        task: StrategyTask,
        prior: str = "gnj",
        items: int = 5000,
        lr: float = 0.02,
        threshold: float | None = None,
        warm: float = 0.3,
        until: float = 0.8,
    ) -> None:
        if items < 1 or lr <= 0 or not 0 < warm <= until < 1:
            raise InputError(
                f"`items` must be at least 1, `lr` above 0, `warm` and `until` in (0, 1) with `warm` first, got "
                f"{items}, {lr}, {warm} and {until}"
            )
        if prior not in PRIORS:
            raise InputError(f"`prior` must be one of {', '.join(PRIORS)}, got {prior!r}")
        self._task, self._items, self._warm, self._until = task, items, warm, until
        self._threshold = PRIORS[prior].threshold if threshold is None else threshold
        self._scale = 0.0
        self._plan: PrunePlan | None = None
        self._generator = torch.Generator().manual_seed(task.seed)
        self._factors = {group.name: PRIORS[prior](group.width) for group in task.groups}
        self._widths = {
            weight.name: weight.tensor.detach().square().mean().clamp(min=LOWEST) for weight in task.weights
        }
        self._noise = {
            weight.name: torch.full_like(weight.tensor.detach(), -8.0).requires_grad_() for weight in task.weights
        }
        own = [value for factors in self._factors.values() for value in factors.parameters()]
        self._adam = torch.optim.Adam([*own, *self._noise.values()], lr=lr)
        for group in task.groups:
            task.gate(group, self._opened(group))
        for weight in task.weights:
            weight.noisy(self._variance(weight.name), self._normal)
            weight.pull(self._pull(weight))

    def step(self, progress: float, rate: float) -> None:
        if self._plan is None:
            with torch.enable_grad():
                units = torch.stack([factors.divergence() for factors in self._factors.values()]).sum()
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
            weight.name: bits(weight.tensor.detach(), self._variance(weight.name)().detach())
            for weight in self._task.weights
        }
        needed = ", ".join(f"{name} {count}" for name, count in counts.items())
        self.notes = (f"Bits that the noise of weights leaves to each of them: {needed}.",)
        scores = {name: -factors.badness().detach() for name, factors in self._factors.items()}
        for group in self._task.groups:
            self._task.fold(group, self._factors[group.name].mean())
        return self._task.plan(scores, spread="global", least=-self._threshold)

    def _normal(self, shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=self._generator)

    def _variance(self, name: str) -> Callable[[], Tensor]:
        """Noise is held relative to the prior."""
        return lambda: self._noise[name].exp() * self._widths[name]

    def _pull(self, weight: LiveWeight) -> Callable[[], Tensor]:
        """The gradient of the divergence from the normal prior by the weight."""
        return lambda: weight.tensor.detach() / self._widths[weight.name] * self._scale / self._items

    def _opened(self, group: CoupledGroup) -> Callable[[int, bool], Tensor]:
        def draw(items: int, training: bool) -> Tensor:
            factors = self._factors[group.name]
            if not training:
                return factors.mean()[None]
            return factors.drawn(self._normal(torch.Size([items, group.width + 1])))

        return draw
