"""Network slimming: the scales of batch norms are drawn to zero, and one threshold over all of them cuts.

Liu, Li, Shen, Huang, Yan, Zhang 2017, "Learning efficient convolutional networks through network slimming",
arXiv:1708.06519. Departures: the penalty of the sum of absolute scales is a proximal step after the optimizer's (a soft
threshold), which reaches zero exactly, and not a subgradient; where several norms belong to a channel their scales are
averaged; scales of zero go even where the budget would keep them; a group that has none is kept as long as the budget
allows it.
"""

from __future__ import annotations

from nasprune import InputError, PrunePlan, Strategy, StrategyTask, by_scales, learnable, norm_scales, shrink_scales


class Slimming(Strategy):
    """strength: of the penalty, as in the paper. until: share of the steps in which it works; the rest trains on."""

    def __init__(self, task: StrategyTask, strength: float = 1e-4, until: float = 0.7) -> None:
        if strength <= 0 or not 0 < until <= 1:
            raise InputError(f"`strength` must be above 0 and `until` in (0, 1], got {strength} and {until}")
        self._task, self._strength, self._until = task, strength, until
        self.notes = learnable(task.groups, norm_scales(task), "a batch norm's scale")
        self._plan: PrunePlan | None = None

    def step(self, progress: float, rate: float) -> None:
        if progress <= self._until:
            for group in self._task.groups:
                shrink_scales(self._task, group, rate * self._strength)
            return
        self._plan = self._plan or by_scales(self._task)
        self._task.zero(self._plan)

    def finish(self) -> PrunePlan:
        plan = self._plan or by_scales(self._task)
        self._task.zero(plan, ("out", "scale", "in"))
        return plan
