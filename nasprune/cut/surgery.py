"""`nasprune.build`: the cut. Copies the model, slices its tensors, updates its modules' sizes, removes its blocks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from nasprune.common.untouched import twin
from nasprune.cut.attributes import update
from nasprune.cut.lengths import refresh, shorten
from nasprune.cut.plan import PrunePlan
from nasprune.cut.sizes import update_sizes
from nasprune.cut.tensors import slice_tensors
from nasprune.errors import PlanError
from nasprune.graph.capture import submodule
from nasprune.graph.model import Bools, ModelGraph
from nasprune.graph.program import signature


def build(model: nn.Module, graph: ModelGraph, plan: PrunePlan) -> nn.Module:
    """A new, smaller model of the same classes; `model` is left as it is.

    Where a block was stands an `nn.Identity`, or an `nn.ReLU` where the block ended in one.

    Raises:
        PlanError: the plan was made for another model, or names groups, units or blocks that `graph` does not have.
    """
    plan.check_signature(signature(submodule(model, graph.scope)))
    check_plan(graph, plan)
    small = twin(model)
    part = submodule(small, graph.scope)
    for block in graph.blocks:
        if block.name in plan.drop:
            _replace(part, block.name, nn.ReLU() if block.relu else nn.Identity())
    cut(part, graph, graph.unit_mask(plan.keep), plan.drop)
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


def cut(model: nn.Module, graph: ModelGraph, keep: Bools, dropped: Sequence[str] = ()) -> None:
    """Slices the parameters and buffers of `model` in place. keep: shape (units + 1,), see `ModelGraph.unit_mask`."""
    shorten(model, graph, keep)
    slice_tensors(model, graph, keep, dropped)
    refresh(model.modules())
    update_sizes(model, graph, keep, dropped)
    update(model, graph, keep, dropped)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    path, _, leaf = name.rpartition(".")
    model.get_submodule(path)._modules[leaf] = module
