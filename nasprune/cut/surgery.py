"""`nasprune.build`: the cut. Copies the model, slices its tensors, updates its modules' sizes, removes its blocks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nasprune.common.untouched import in_same_memory, twin
from nasprune.cut.attributes import update
from nasprune.cut.lengths import refresh, shortened
from nasprune.cut.plan import PrunePlan
from nasprune.cut.sizes import update_sizes
from nasprune.cut.tensors import smaller
from nasprune.errors import PlanError
from nasprune.graph.capture import submodule
from nasprune.graph.model import Bools, ModelGraph
from nasprune.graph.program import signature


@torch.inference_mode(mode=False)
def build(model: nn.Module, graph: ModelGraph, plan: PrunePlan) -> nn.Module:
    """A new, smaller model of the same classes; `model` is left as it is.

    Where a block was stands an `nn.Identity`, or an `nn.ReLU` where the block ended in one. Weights that the plan
    masks are zero.

    Raises:
        PlanError: the plan was made for another model, or names groups, units or blocks that `graph` does not have.
    """
    return _built(model, graph, plan, {})


def draft(model: nn.Module, graph: ModelGraph, plan: PrunePlan) -> nn.Module:
    """As `build`, to be run and thrown away: parameters that lose nothing share the memory of the model's."""
    return _built(model, graph, plan, in_same_memory(model))


def _built(model: nn.Module, graph: ModelGraph, plan: PrunePlan, instead: Mapping[int, Tensor]) -> nn.Module:
    part = submodule(model, graph.scope)
    plan.check_signature(signature(part))
    check_plan(graph, plan)
    keep = graph.unit_mask(plan.keep)
    small = twin(model, {**instead, **smaller(part, graph, keep, plan.drop, shortened(part, graph, keep))})
    _finish(submodule(small, graph.scope), graph, plan, keep)
    plan.masks.apply(submodule(small, graph.scope))
    return small


def check_plan(graph: ModelGraph, plan: PrunePlan) -> None:
    """Raises PlanError unless every group, unit and block of the plan is in the graph and cells keep equal shares."""
    known = {group.name: group for group in graph.groups}
    blocks = {block.name for block in graph.blocks}
    for name, kept in plan.keep.items():
        if name not in known:
            raise PlanError(f"the plan cuts group {name!r}, which the model does not have; trace the same model")
        group = known[name]
        if kept[-1] >= group.width:
            raise PlanError(f"group {name!r} has units 0 to {group.width - 1}, the plan keeps {kept[-1]}")
        stay = set(kept)
        shares = {
            sum(unit in stay for unit in cell) * group.width == len(kept) * len(cell) for cell in group.partitions
        }
        if shares != {True}:
            raise PlanError(f"group {name!r} must keep the same share of each of its {len(group.partitions)} parts")
    for name in plan.drop:
        if name not in blocks:
            raise PlanError(f"the plan drops block {name!r}, which the model does not have; trace the same model")


def _finish(part: nn.Module, graph: ModelGraph, plan: PrunePlan, keep: Bools) -> None:
    """Takes dropped blocks out and sets what else a model records of the sizes of its tensors."""
    for block in graph.blocks:
        if block.name in plan.drop:
            _replace(part, block.name, nn.ReLU() if block.relu else nn.Identity())
    refresh(part.modules())
    update_sizes(part, graph, keep, plan.drop)
    update(part, graph, keep, plan.drop)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    path, _, leaf = name.rpartition(".")
    model.get_submodule(path)._modules[leaf] = module
