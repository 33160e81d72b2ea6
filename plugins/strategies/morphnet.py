"""MorphNet: the scales of batch norms are drawn to zero, each in proportion to what its channel costs now.

Gordon, Eban, Nachum, Chen, Wu, Yang, Choi 2018, "MorphNet: fast and simple resource-constrained structure learning of
deep networks", arXiv:1711.06798: its shrinking phase. By equation 6 the penalty of a scale is the cost of a channel as
long as the channels around it that are alive stay, and so falls as these die. Costs are FLOPs, or parameters where the
budget has no FLOPs. Departures: the penalty is a proximal step after the optimizer's, as in `slimming`, and costs are
relative to their mean over channels, so that `strength` means the same in every network; they are counted anew at
`times` points; in groups with several norms scales are averaged, not their maximum; what is left is cut to the budget
by one threshold over all scales, and widths are not multiplied up again; scales of zero go even where the budget would
keep them. A group without a norm is kept as long as the budget allows it.
"""

from __future__ import annotations

from nasprune import InputError, PrunePlan, Strategy, StrategyTask, by_scales, learnable, norm_scales, shrink_scales

DEAD = 0.01  # a scale below it, as in the paper


class MorphNet(Strategy):
    """strength: of the penalty of an average channel. until: share of the steps in which it works; the rest trains on.

    times: how often costs are counted.
    """

    def __init__(self, task: StrategyTask, strength: float = 0.05, until: float = 0.7, times: int = 20) -> None:
        if strength <= 0 or not 0 < until <= 1 or times < 1:
            raise InputError(
                f"`strength` must be above 0, `until` in (0, 1] and `times` at least 1, got {strength}, {until} and "
                f"{times}"
            )
        self._task, self._strength, self._until, self._times = task, strength, until, times
        self.notes = learnable(task.groups, norm_scales(task), "a batch norm's scale")
        self._counted = 0
        self._costs = self._relative()
        self._plan: PrunePlan | None = None

    def step(self, progress: float, rate: float) -> None:
        if progress > self._until:
            self._plan = self._plan or by_scales(self._task)
            self._task.zero(self._plan)
            return
        if int(progress * self._times) > self._counted:
            self._counted = int(progress * self._times)
            self._costs = self._relative()
        for group in self._task.groups:
            least = rate * self._strength * self._costs[group.name]
            shrink_scales(self._task, group, least)

    def finish(self) -> PrunePlan:
        plan = self._plan or by_scales(self._task)
        self._task.zero(plan, ("out", "scale", "in"))
        return plan

    def _relative(self) -> dict[str, float]:
        """Group -> what one of its channels costs now, relative to the mean over channels."""
        alive = {group.name: group.width for group in self._task.groups}
        alive |= {name: int((scales > DEAD).sum()) for name, scales in norm_scales(self._task).items()}
        prices = self._task.prices(alive)
        total = sum(prices[group.name] * group.width for group in self._task.groups)
        mean = total / max(1, sum(group.width for group in self._task.groups))
        return {name: price / mean if mean else 1.0 for name, price in prices.items()}
