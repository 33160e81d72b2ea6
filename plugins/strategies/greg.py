"""Growing regularisation: what is to go is chosen at the start and pushed to zero ever harder.

Wang, Qin, Zhang, Fu 2021, "Neural pruning via growing regularization", arXiv:2012.09243, the variant GReg-1.
Departures: the L2 factor grows in proportion to the steps that are done, up to `until`, and acts as a decoupled decay
after the optimizer's step; the smallest filters are those of the least L2 norm over all tensors that make a channel.
"""

from __future__ import annotations

from nasprune import InputError, PrunePlan, Strategy, StrategyTask


class GReg(Strategy):
    """ceiling: of the factor, relative to the learning rate. until: share of the steps; the rest trains on."""

    def __init__(self, task: StrategyTask, ceiling: float = 10.0, until: float = 0.6) -> None:
        if ceiling <= 0 or not 0 < until < 1:
            raise InputError(f"`ceiling` must be above 0 and `until` in (0, 1), got {ceiling} and {until}")
        self._task, self._ceiling, self._until = task, ceiling, until
        self._plan = task.plan(task.magnitudes())

    def step(self, progress: float, rate: float) -> None:
        if progress > self._until:
            self._task.zero(self._plan)
            return
        left = max(0.0, 1 - rate * self._ceiling * progress / self._until)
        for group in self._task.groups:
            doomed = sorted(set(range(group.width)) - set(self._plan.keep.get(group.name, range(group.width))))
            for slots in self._task.slots(group) if doomed else ():
                if slots.role == "out" and slots.is_trained:
                    rows = slots.read()
                    rows[doomed] *= left
                    slots.write(rows)

    def finish(self) -> PrunePlan:
        self._task.zero(self._plan, ("out", "scale", "in"))
        return self._plan
