"""Plans one after the other as one plan: what was cut twice is cut at once, from the original, untouched network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import torch
from torch import nn

from nasprune.common.accepted import accepted
from nasprune.common.states import state_tensors
from nasprune.cut.plan import PrunePlan
from nasprune.cut.surgery import build
from nasprune.cut.weight_masks import WeightMasks
from nasprune.errors import PlanError
from nasprune.graph.model import ModelGraph


class Cut(Protocol):
    """What `nasprune.search` returns, as far as its plan goes: graph is of the network that the plan cuts."""

    @property
    def plan(self) -> PrunePlan: ...

    @property
    def graph(self) -> ModelGraph: ...


def compose(model: nn.Module, first: Cut, second: Cut) -> PrunePlan:
    """The plan that cuts `model` at once to what `second` made of what `first` made of it.

    Save it with the second result, `nasprune.save(dataclasses.replace(second, plan=composed), folder)`; it then loads
    on the original network. Masks of weights are those of the second plan, which are of the final network.

    Args:
        model: the network that `first` cut.
        first, second: results of searches, the second one over the network that the first one found.

    Raises:
        PlanError: they do not follow each other, or groups are joined otherwise after the first cut.
    """
    model = accepted(model)
    drop = tuple(sorted({*first.plan.drop, *second.plan.drop}))
    keep = _kept(first, second)
    gone = {name for block in first.graph.blocks if block.name in drop for name in block.groups}
    plan = PrunePlan(
        signature=first.plan.signature,
        keep={name: units for name, units in keep.items() if name not in gone},
        drop=drop,
        scope=first.plan.scope,
        inputs=first.plan.inputs,
        masks=second.plan.masks,
    )
    once = state_tensors(build(model, first.graph, plan))
    whole = replace(first.plan, masks=WeightMasks())  # what it had at zero, the second one decided anew
    twice = state_tensors(build(build(model, first.graph, whole), second.graph, second.plan))
    for name in dict.fromkeys((*twice, *once)):
        if name not in once or name not in twice or not torch.equal(once[name], twice[name]):
            raise PlanError(
                f"the two plans are not one: cut at once, the network has another {name!r} than cut twice; load "
                "the first result and the second one after it"
            )
    return plan


def _kept(first: Cut, second: Cut) -> Mapping[str, tuple[int, ...]]:
    """Kept units of the original, by group."""
    widths = {group.name: group.width for group in first.graph.groups}
    keep = dict(first.plan.keep)
    for name, units in second.plan.keep.items():
        if name not in widths:
            raise PlanError(f"the second plan cuts group {name!r}, which the original network does not have as a group")
        before = first.plan.keep.get(name, tuple(range(widths[name])))
        if units[-1] >= len(before):
            raise PlanError(
                f"the second plan keeps unit {units[-1]} of group {name!r}, of which the first one left {len(before)}; "
                "the second search must be over the network that the first one found"
            )
        keep[name] = tuple(before[unit] for unit in units)
    return keep
