"""Layer by layer thresholds found by a search without derivatives, in turn with training and splicing.

Li, Qian, Jiang, Lu, Tang 2018, "Optimization based layer-wise magnitude-based pruning for DNN compression", IJCAI:
thresholds of layers are searched by negatively correlated search, and pruning alternates with training as in dynamic
network surgery, in which cut weights go on to learn. The search is that of Tang, Yang, Yao 2016, "Negatively correlated
search", arXiv:1504.04914: several Gaussian searches side by side, each of which moves where the new place is good, or
far from the others. Departures: the paper cuts as much as an accuracy allows, here the budget says how much is cut and
the least harm is searched; harm is the divergence of outputs from those before the cut on the inputs of the last steps,
so that no labels and no other data are needed; thresholds are searched around those that LAMP scores (Lee et al. 2021,
arXiv:2010.07611) have in common, a factor on the scores of each layer; rounds take equal shares of what is left, and
between them what grows above its layer's threshold is in, what falls below is out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from nasprune import InputError, PrunePlan, Strategy, StrategyTask, lamp_scores

SEARCHES, SIGMA, EPOCH, FASTER = 4, 0.5, 5, 1.25
KEPT = 4
"""Batches whose inputs are held."""


class OLMP(Strategy):
    """rounds: of pruning until `until`, a share of the steps. trials: thresholds that are tried in a round."""

    takes = ("zeros",)

    def __init__(self, task: StrategyTask, rounds: int = 24, until: float = 0.6, trials: int = 24) -> None:
        if rounds < 1 or not 0 < until < 1 or trials < SEARCHES:
            raise InputError(
                f"`rounds` must be at least 1, `until` in (0, 1) and `trials` at least {SEARCHES}, got {rounds}, "
                f"{until} and {trials}"
            )
        self._task, self._rounds, self._until, self._trials = task, rounds, until, trials
        self._generator = torch.Generator().manual_seed(task.seed)
        self._round = 0
        self._inputs: list[tuple[Tensor, ...]] = []
        self._best = torch.zeros(len(task.weights))
        self._whole = {weight.name: weight.tensor.detach().clone() for weight in task.weights}
        self._sizes = {name: lamp_scores(whole) for name, whole in self._whole.items()}
        self._masks: Mapping[str, Tensor] = task.masks(self._scores(self._best), share=0.0)
        self._least = dict.fromkeys(self._whole, 0.0)
        task.watch(self._seen)

    def step(self, progress: float, rate: float) -> None:
        if self._round < self._rounds:
            for weight in self._task.weights:
                self._whole[weight.name] += weight.tensor.detach() - self._whole[weight.name] * self._masks[weight.name]
            if progress >= self._until * (self._round + 1) / self._rounds:
                self._next()
            else:
                self._masks = {name: whole.abs() >= self._least[name] for name, whole in self._whole.items()}
            self._put()
        else:
            self._task.mask(self._masks)

    def finish(self) -> PrunePlan:
        while self._round < self._rounds:
            self._next()
            self._put()
        return self._task.mask(self._masks)

    def _seen(self, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = [*self._inputs, inputs][-KEPT:]

    def _next(self) -> None:
        self._round += 1
        density = self._task.density
        left = density ** (self._round / self._rounds)
        share = (1 - left) / (1 - density) if density < 1 else 1.0
        self._sizes = {name: lamp_scores(whole) for name, whole in self._whole.items()}
        self._best = self._searched(share)
        self._masks = self._task.masks(self._scores(self._best), share=share)
        for name, mask in self._masks.items():
            stays = self._whole[name][mask].abs()
            self._least[name] = float(stays.min()) if len(stays) else math.inf

    def _searched(self, share: float) -> Tensor:
        """Logarithms of factors on the layers' thresholds (layers,), by negatively correlated search."""
        given, self._inputs = self._inputs, []
        if not given:
            return self._best
        whole = {name: torch.ones_like(value, dtype=torch.bool) for name, value in self._whole.items()}
        wanted = self._outputs(given, whole)

        def harm(place: Tensor) -> float:
            return _apart(wanted, self._outputs(given, self._task.masks(self._scores(place), share=share)))

        places = [self._best + SIGMA * number * self._normal() for number in range(SEARCHES)]
        sigmas, harms, found = [SIGMA] * SEARCHES, [harm(place) for place in places], [0] * SEARCHES
        best = min(zip(harms, range(SEARCHES), strict=True))
        top, least = places[best[1]], best[0]
        rounds = (self._trials - SEARCHES) // SEARCHES
        for number in range(rounds):
            weight = 1 + (0.1 - 0.1 * number / rounds) * float(torch.randn(1, generator=self._generator))
            for one in range(SEARCHES):
                moved = places[one] + sigmas[one] * self._normal()
                reached = harm(moved)
                if reached < least:
                    top, least = moved, reached
                others = [(places[other], sigmas[other]) for other in range(SEARCHES) if other != one]
                near, far = (_distance(place, sigmas[one], others) for place in (places[one], moved))
                goodness = (reached - least) / max(reached + harms[one] - 2 * least, 1e-12)
                farness = far / max(near + far, 1e-12)
                if goodness / max(farness, 1e-12) < weight:
                    places[one], harms[one], found[one] = moved, reached, found[one] + 1
                if (number + 1) % EPOCH == 0:
                    sigmas[one] *= FASTER if found[one] > EPOCH / 5 else 1 / FASTER if found[one] < EPOCH / 5 else 1.0
                    found[one] = 0
        self._put()
        return top

    def _outputs(self, given: list[tuple[Tensor, ...]], masks: Mapping[str, Tensor]) -> list[Tensor]:
        """What the network gives in evaluation with some weights masked."""
        for weight in self._task.weights:
            weight.tensor.copy_(self._whole[weight.name] * masks[weight.name])
        modes = [(module, module.training) for module in self._task.model.modules()]
        self._task.model.eval()
        try:
            outputs = [self._task.model(*inputs) for inputs in given]
        finally:
            for module, mode in modes:
                module.training = mode
        return [found if isinstance(found, Tensor) else next(iter(found)) for found in outputs]

    def _put(self) -> None:
        for weight in self._task.weights:
            weight.tensor.copy_(self._whole[weight.name] * self._masks[weight.name])

    def _scores(self, place: Tensor) -> dict[str, Tensor]:
        factors = zip(self._sizes.items(), place.tolist(), strict=True)
        return {name: size * math.exp(2 * factor) for (name, size), factor in factors}

    def _normal(self) -> Tensor:
        return torch.randn(len(self._best), generator=self._generator)


def _distance(place: Tensor, sigma: float, others: list[tuple[Tensor, float]]) -> float:
    """Bhattacharyya's, from a Gaussian to the nearest of the others."""
    found = []
    for other, wide in others:
        mean = (sigma**2 + wide**2) / 2
        apart = float((place - other).square().sum()) / (8 * mean)
        found.append(apart + len(place) / 2 * math.log(mean / (sigma * wide)))
    return min(found)


def _apart(wanted: list[Tensor], got: list[Tensor]) -> float:
    """Mean divergence of class probabilities (n, classes); of other outputs the squared difference, relative."""
    total = 0.0
    for first, second in zip(wanted, got, strict=True):
        if first.ndim == 2 and first.shape[1] > 1:
            shares = first.log_softmax(1)
            total += float((shares.exp() * (shares - second.log_softmax(1))).sum(1).mean())
        else:
            total += float((first - second).square().sum() / first.square().sum().clamp(min=1e-12))
    return total / len(wanted)
