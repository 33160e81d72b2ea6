"""The scales of batch norms as what a strategy learns: read, drawn to zero, and cut by one threshold."""

from __future__ import annotations

import torch
from torch import Tensor

from nasprune.cut.plan import PrunePlan
from nasprune.graph.model import CoupledGroup
from nasprune.strategies.contract import StrategyTask


def norm_scales(task: StrategyTask) -> dict[str, Tensor]:
    """Group -> absolute scales of its channels (width,), where it has batch norms; of several norms the mean."""
    found = {}
    for group in task.groups:
        own = [slots.read().abs().mean(1) for slots in task.slots(group) if slots.is_norm]
        if own:
            found[group.name] = torch.stack(own).mean(0).cpu()
    return found


def shrink_scales(task: StrategyTask, group: CoupledGroup, by: float) -> None:
    """A soft threshold: each scale of the group's norms comes nearer to zero by `by`, and stays there."""
    for slots in task.slots(group):
        if slots.is_norm:
            scales = slots.read()
            slots.write(scales.sign() * (scales.abs() - by).clamp(min=0))


def by_scales(task: StrategyTask) -> PrunePlan:
    """The plan within budget that keeps the largest scales of all groups; none of zero, wherever it stands."""
    return task.plan(norm_scales(task), spread="global", least=0.0)
