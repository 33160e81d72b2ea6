"""Dynamic network surgery: weights are cut on the way, go on to learn unseen, and are spliced in again.

Guo, Yao, Chen 2016, "Dynamic network surgery for efficient DNNs", arXiv:1608.04493. The network computes with W * T;
the gradient by W * T moves all of W (equation 5), so that a cut weight which becomes important returns. T is 0 below a
threshold a, 1 above a threshold b > a, and stays as it was between them (equation 3). Masks are looked at with a
probability of (1 + gamma * step)^-power. Departures: a layer's thresholds, which the paper sets by hand, are `band`
below and above the one that the budget asks for; layers are weighed against each other by LAMP scores (Lee et al.
2021, arXiv:2010.07611), since thresholds relative to their deviations starve small layers; weights that are out grow
to a little above b and no further, so that what is spliced in does not disturb the others; the budget is reached over
`ramp`; at `until` the largest are kept and trained on.
"""

from __future__ import annotations

from random import Random

import torch

from nasprune import InputError, PrunePlan, Strategy, StrategyTask, lamp_scores

WEIGHED = 50
"""How often layers are weighed against each other."""


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
        self._task, self._band, self._ramp, self._until = task, band, ramp, until
        self._gamma, self._power = gamma, power
        self._chance = Random(task.seed)
        self._whole = {weight.name: weight.tensor.detach().clone() for weight in task.weights}
        self._masks = {weight.name: torch.ones_like(weight.tensor, dtype=torch.bool) for weight in task.weights}
        self._least = dict.fromkeys(self._whole, 0.0)
        self._left = {name: whole.numel() for name, whole in self._whole.items()}
        self._steps, self._weighed, self._fixed = 0, 0, False

    def step(self, progress: float, rate: float) -> None:
        self._steps += 1
        if self._fixed:
            self._task.mask(self._masks)
            return
        for weight in self._task.weights:
            whole, mask = self._whole[weight.name], self._masks[weight.name]
            whole += weight.tensor.detach() - whole * mask
            if self._least[weight.name]:
                most = (1 + 2 * self._band) * self._least[weight.name]
                whole.copy_(torch.where(mask, whole, whole.clamp(-most, most)))
        if progress >= self._until:
            self._fix()
            return
        if self._chance.random() < (1 + self._gamma * self._steps) ** -self._power:
            self._look(progress)
        self._put()

    def finish(self) -> PrunePlan:
        if not self._fixed:
            self._fix()
        return self._task.mask(self._masks)

    def _look(self, progress: float) -> None:
        if int(progress * WEIGHED) >= self._weighed:
            self._weighed = int(progress * WEIGHED) + 1
            share = 1 - (1 - min(1.0, progress / self._ramp)) ** 3
            within = self._task.masks({name: lamp_scores(whole) for name, whole in self._whole.items()}, share=share)
            self._left = {name: int(kept.sum()) for name, kept in within.items()}
        for name, whole in self._whole.items():
            size, left = whole.abs(), self._left[name]
            least = float(size.flatten().kthvalue(size.numel() - left + 1).values) if left else float(size.max()) + 1
            stays = size >= (1 - self._band) * least
            self._masks[name] = stays & (self._masks[name] | (size >= (1 + self._band) * least))
            self._least[name] = least

    def _fix(self) -> None:
        """Those that are out have to beat the others as they would at a look."""
        self._fixed = True
        lower = (1 - self._band) / (1 + 2 * self._band)
        scores = {
            name: lamp_scores(torch.where(self._masks[name], whole, lower * whole))
            for name, whole in self._whole.items()
        }
        self._masks = dict(self._task.masks(scores))
        self._put()

    def _put(self) -> None:
        for weight in self._task.weights:
            weight.tensor.copy_(self._whole[weight.name] * self._masks[weight.name])
