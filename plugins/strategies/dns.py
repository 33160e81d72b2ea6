"""Dynamic network surgery: weights are cut on the way, go on to learn unseen, and are spliced in again.

Guo, Yao, Chen 2016, "Dynamic network surgery for efficient DNNs", arXiv:1608.04493. The network computes with W * T;
the gradient by W * T moves all of W (equation 5), so that a cut weight which becomes important returns. T is 0 below a
threshold a, 1 above a threshold b > a, and stays as it was between them (equation 3). Masks are looked at with a
probability of (1 + gamma * step)^-power. Departures: thresholds are `band` below and above the one that the budget asks
for, the same for all layers relative to their deviation at the start; the budget is reached over `ramp`; at `until` the
largest are kept and trained on.
"""

from __future__ import annotations

from random import Random

import torch

from nasprune import InputError, PrunePlan, Strategy, StrategyTask


class DNS(Strategy):
    """band: between the thresholds. ramp, until: shares of the steps. gamma, power: of the chance to look at masks."""

    takes = ("zeros",)

    def __init__(
        self,
        task: StrategyTask,
        band: float = 0.1,
        ramp: float = 0.4,
        until: float = 0.8,
        gamma: float = 1e-3,
        power: float = 1.0,
    ) -> None:
        if not 0 <= band < 1 or not 0 < ramp <= until < 1 or gamma < 0 or power < 0:
            raise InputError(
                f"`band` must be in [0, 1), `ramp` and `until` in (0, 1) with `ramp` first, `gamma` and `power` at "
                f"least 0, got {band}, {ramp}, {until}, {gamma} and {power}"
            )
        self._task, self._band, self._ramp, self._until, self._gamma, self._power = (
            task,
            band,
            ramp,
            until,
            gamma,
            power,
        )
        self._chance = Random(task.seed)
        self._deviations = {weight.name: weight.tensor.detach().std() for weight in task.weights}
        self._whole = {weight.name: weight.tensor.detach().clone() for weight in task.weights}
        self._masks = {weight.name: torch.ones_like(weight.tensor, dtype=torch.bool) for weight in task.weights}
        self._steps, self._fixed = 0, False

    def step(self, progress: float, rate: float) -> None:
        self._steps += 1
        if self._fixed:
            self._task.mask(self._masks)
            return
        for weight in self._task.weights:
            before = self._whole[weight.name] * self._masks[weight.name]
            self._whole[weight.name] += weight.tensor.detach() - before
        if progress >= self._until:
            self._fix()
            return
        if self._chance.random() < (1 + self._gamma * self._steps) ** -self._power:
            self._look(1 - (1 - min(1.0, progress / self._ramp)) ** 3)
        self._put()

    def finish(self) -> PrunePlan:
        if not self._fixed:
            self._fix()
        return self._task.mask(self._masks)

    def _look(self, share: float) -> None:
        scores = self._scores()
        within = self._task.masks(scores, share=share)
        least = min(float(scores[name][kept].min()) for name, kept in within.items() if bool(kept.any()))
        for name, score in scores.items():
            stays = score >= (1 - self._band) * least
            self._masks[name] = stays & (self._masks[name] | (score >= (1 + self._band) * least))

    def _fix(self) -> None:
        self._fixed = True
        self._masks = dict(self._task.masks(self._scores()))
        self._put()

    def _put(self) -> None:
        for weight in self._task.weights:
            weight.tensor.copy_(self._whole[weight.name] * self._masks[weight.name])

    def _scores(self) -> dict[str, torch.Tensor]:
        return {name: whole.abs() / self._deviations[name] for name, whole in self._whole.items()}
