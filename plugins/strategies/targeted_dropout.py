"""Dropout of what would be cut: the network learns to do without the weakest weights, or units, before they go.

Gomez, Zhang, Kamalakara, Madaan, Swersky, Gal, Hinton 2019, "Learning sparse networks using targeted dropout",
arXiv:1905.13678. In every pass of training, the weakest share gamma is dropped with a chance of `alpha`; with a budget
of numbers that are not zero these are weights, with one of FLOPs or parameters units. Departures: gamma is the share
that the budget asks for, over all layers, which LAMP scores weigh against each other (Lee et al. 2021,
arXiv:2010.07611), and grows to it over `ramp`; the chance does not grow; at `until` the weakest are gone for good, and
the rest is trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from nasprune import CoupledGroup, InputError, LiveWeight, PrunePlan, Strategy, StrategyTask, lamp_scores


class TargetedDropout(Strategy):
    """alpha: the chance. ramp, until: shares of the steps. times: how often the weakest are looked for on the way."""

    takes = ("structure", "zeros")
    hooks = True

    def __init__(
        self, task: StrategyTask, alpha: float = 0.5, ramp: float = 0.5, until: float = 0.8, times: int = 100
    ) -> None:
        if not 0 < alpha <= 1 or not 0 < ramp <= until < 1 or times < 1:
            raise InputError(
                f"`alpha` must be in (0, 1], `ramp` and `until` in (0, 1) with `ramp` first, `times` at least 1, got "
                f"{alpha}, {ramp}, {until} and {times}"
            )
        self._task, self._alpha, self._ramp, self._until, self._times = task, alpha, ramp, until, times
        self._generator = torch.Generator().manual_seed(task.seed)
        self._looked, self._fixed = 0, False
        self._look(0.0)
        if task.sparse:
            for weight in task.weights:
                weight.through(self._thinned(weight))
        else:
            for group in task.groups:
                task.gate(group, self._opened(group))

    def step(self, progress: float, rate: float) -> None:
        if progress >= self._until and not self._fixed:
            self._look(1.0)
            self._fixed = True
            self._task.release()
        elif not self._fixed and int(progress * self._times) > self._looked:
            self._looked = int(progress * self._times)
            self._look(min(1.0, progress / self._ramp))
        if self._fixed:
            self._empty()

    def finish(self) -> PrunePlan:
        if not self._fixed:
            self._look(1.0)
        return self._empty(("out", "scale", "in"))

    def _look(self, share: float) -> None:
        if self._task.sparse:
            scores = {weight.name: lamp_scores(weight.tensor.detach()) for weight in self._task.weights}
            self._masks: Mapping[str, Tensor] = self._task.masks(scores, share=share)
        else:
            self._plan = self._task.plan(self._task.magnitudes(), share=share)

    def _empty(self, roles: tuple[str, ...] = ("out", "scale")) -> PrunePlan:
        if self._task.sparse:
            return self._task.mask(self._masks)
        self._task.zero(self._plan, roles)
        return self._plan

    def _thinned(self, weight: LiveWeight) -> Callable[[Tensor, bool], Tensor]:
        def change(value: Tensor, training: bool) -> Tensor:
            if not training:
                return value
            stays = torch.rand(value.shape, generator=self._generator) >= self._alpha
            return value * (self._masks[weight.name] | stays.to(value.device))

        return change

    def _opened(self, group: CoupledGroup) -> Callable[[int, bool], Tensor]:
        def draw(items: int, training: bool) -> Tensor:
            kept = self._plan.keep.get(group.name)
            if not training or kept is None:
                return torch.ones(1, group.width)
            stays = torch.rand(items, group.width, generator=self._generator) >= self._alpha
            stays[:, list(kept)] = True
            return stays.float()

        return draw
