"""Soft pruning by the geometric median: at intervals the filters that others can stand in for are set to zero.

He, Liu, Wang, Hu, Yang 2019, "Filter pruning via geometric median for deep convolutional neural networks acceleration",
arXiv:1811.00250. A filter near the geometric median of its layer, which by equation 8 has the least sum of distances to
all others, says least that they do not say; it is set to zero and trains on, so that it may come back. Departures:
filters are rows over all tensors that make a channel; norms of a channel are set to zero with it; no filter goes by its
norm, as in the paper's variant FPGM-only; intervals are shares of the training, not epochs.
"""

from __future__ import annotations

import torch

from nasprune import CoupledGroup, InputError, PrunePlan, Strategy, StrategyTask


class FPGMSoft(Strategy):
    """times: how often filters are set to zero."""

    def __init__(self, task: StrategyTask, times: int = 20) -> None:
        if times < 1:
            raise InputError(f"`times` must be at least 1, got {times}")
        self._task, self._times = task, times
        self._done = 0

    def step(self, progress: float, rate: float) -> None:
        if int(progress * self._times) > self._done:
            self._done = int(progress * self._times)
            self._plan = self._chosen()
            self._task.zero(self._plan)

    def finish(self) -> PrunePlan:
        plan = self._plan if self._done == self._times else self._chosen()
        self._task.zero(plan, ("out", "scale", "in"))
        return plan

    def _chosen(self) -> PrunePlan:
        return self._task.plan({group.name: self._distances(group) for group in self._task.groups})

    def _distances(self, group: CoupledGroup) -> torch.Tensor:
        """Of each filter (width,) the sum of its distances to all others."""
        made = [slots.read().float().cpu() for slots in self._task.slots(group) if slots.role == "out"]
        rows = torch.cat(made, 1) if made else torch.zeros(group.width, 1, device="cpu")
        return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").sum(1)
