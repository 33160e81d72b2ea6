"""Ever more of the smallest weights are zero, fast at first and slowly in the end.

Zhu, Gupta 2017, "To prune, or not to prune: exploring the efficacy of pruning for model compression", arXiv:1710.01878:
the share of zeros rises as 1 - (1 - t)^3 from the start to `until`. Departure: the paper has the same share in every
layer; here layers are weighed against each other by LAMP scores (Lee et al. 2021, arXiv:2010.07611).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from nasprune import InputError, PrunePlan, Strategy, StrategyTask, lamp_scores


class Gradual(Strategy):
    """until: share of the steps at which all zeros are there. times: how often weights are chosen on the way."""

    takes = ("zeros",)

    def __init__(self, task: StrategyTask, until: float = 0.7, times: int = 100) -> None:
        if not 0 < until < 1 or times < 1:
            raise InputError(f"`until` must be in (0, 1) and `times` at least 1, got {until} and {times}")
        self._task, self._until, self._times = task, until, times
        self._done = 0
        self._masks = self._chosen(0.0)

    def step(self, progress: float, rate: float) -> None:
        done = min(self._times, int(progress / self._until * self._times))
        if done > self._done:
            self._done = done
            self._masks = self._chosen(done / self._times)
        self._task.mask(self._masks)

    def finish(self) -> PrunePlan:
        if self._done < self._times:
            self._masks = self._chosen(1.0)
        return self._task.mask(self._masks)

    def _chosen(self, way: float) -> Mapping[str, Tensor]:
        scores = {weight.name: lamp_scores(weight.tensor.detach()) for weight in self._task.weights}
        return self._task.masks(scores, share=1 - (1 - way) ** 3)
