"""The same small network from scratch: the honest baseline beside every strategy.

Liu, Sun, Zhou, Huang, Darrell 2019, "Rethinking the value of network pruning", arXiv:1810.05270: a cut network, its
weights drawn anew, trained for as many epochs (Scratch-E), or for as many FLOPs (Scratch-B: give the loop more steps).
Departure: until the end the units that go are held at zero in the whole network, which costs time and changes nothing.
"""

from __future__ import annotations

from nasprune import PrunePlan, Strategy, StrategyTask


class Scratch(Strategy):
    """Equal ratios in all groups. Modules draw their weights by their own `reset_parameters`; others keep them."""

    def __init__(self, task: StrategyTask) -> None:
        self._task = task
        self._plan = task.plan(task.magnitudes())
        for module in task.model.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
        task.zero(self._plan)

    def step(self, progress: float, rate: float) -> None:
        self._task.zero(self._plan)

    def finish(self) -> PrunePlan:
        self._task.zero(self._plan, ("out", "scale", "in"))
        return self._plan
