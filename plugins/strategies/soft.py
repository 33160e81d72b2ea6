"""Soft filter pruning: at intervals the weakest filters are set to zero, and train on, so that they may come back.

He, Kang, Dong, Fu, Yang 2018, "Soft filter pruning for accelerating deep convolutional neural networks",
arXiv:1808.06866; with `asymptotic`, He, Dong, Kang, Fu, Yan, Yang 2019, arXiv:1808.07471, in which the share that goes
grows from 0, three quarters of it in the first eighth. Departures: the norm is L2 over all tensors that make a channel,
and norms of a channel are set to zero with it; intervals are shares of the training, not epochs.
"""

from __future__ import annotations

from nasprune import InputError, PrunePlan, Strategy, StrategyTask

EIGHTH = 8 * 1.3862943611198906  # 8 ln 4: at an eighth of the way 1 - 1/4


class Soft(Strategy):
    """times: how often the weakest are set to zero. asymptotic: whether their share grows."""

    def __init__(self, task: StrategyTask, times: int = 20, asymptotic: bool = False) -> None:
        if times < 1:
            raise InputError(f"`times` must be at least 1, got {times}")
        self._task, self._times, self._asymptotic = task, times, asymptotic
        self._done = 0

    def step(self, progress: float, rate: float) -> None:
        if int(progress * self._times) > self._done:
            self._done = int(progress * self._times)
            self._task.zero(self._plan(progress))

    def finish(self) -> PrunePlan:
        plan = self._plan(1.0)
        self._task.zero(plan, ("out", "scale", "in"))
        return plan

    def _plan(self, progress: float) -> PrunePlan:
        share = 1 - 2.718281828459045 ** (-EIGHTH * progress) if self._asymptotic and progress < 1 else 1.0
        return self._task.plan(self._task.magnitudes(), share=share)
