"""`nasprune.build`: the cut. Copies the model, slices its tensors, updates its modules' sizes, removes its blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from nasprune.common.untouched import twin
from nasprune.cut.attributes import update
from nasprune.cut.lengths import refresh, shorten
from nasprune.cut.plan import PrunePlan
from nasprune.errors import PlanError
from nasprune.graph.capture import submodule
from nasprune.graph.model import AxisUnits, Bools, ModelGraph
from nasprune.graph.program import operator, signature


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
    aliases = _aliases(model)
    sliced: dict[int, Tensor] = {}
    for name, axes in graph.params.items():
        if any(name.startswith(f"{block}.") for block in dropped):
            continue
        if all(keep[axis.units].all() for axis in axes):
            continue
        old = _tensor(model, name)
        new = sliced.setdefault(id(old), _sliced(old, axes, keep))
        for alias in aliases.get(id(old), [name]):
            _set_tensor(model, alias, new)
    refresh(model.modules())
    _update_weighted(model)
    _update_norms(model, graph, keep, dropped)
    update(model, graph, keep, dropped)


def _sliced(value: Tensor, axes: Sequence[AxisUnits], keep: Bools) -> Tensor:
    data = value.detach()
    parted = [axis for axis in axes if len(axis.units) > 1]
    rows = np.ones(data.shape[0], dtype=np.bool_)
    for axis in axes:
        if len(axis.units) == 1:
            positions = axis.positions(keep)[0]
            if axis.axis == 0:
                rows = positions
            data = data.index_select(axis.axis, torch.from_numpy(np.flatnonzero(positions)).to(data.device))
    for axis in parted:
        positions = axis.positions(keep).repeat(rows.size // len(axis.units), axis=0)[rows]
        mask = torch.from_numpy(positions).to(data.device)
        data = data[mask].reshape(len(positions), -1, *data.shape[2:])
    data = data.clone(memory_format=torch.preserve_format)
    return nn.Parameter(data, value.requires_grad) if isinstance(value, nn.Parameter) else data


def _tensor(model: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    found = getattr(model.get_submodule(path), leaf)
    assert isinstance(found, Tensor)
    return found


def _set_tensor(model: nn.Module, name: str, value: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    if isinstance(value, nn.Parameter):
        owner._parameters[leaf] = value
    else:
        owner._buffers[leaf] = value


def _aliases(model: nn.Module) -> Mapping[int, list[str]]:
    """Tensor identity -> all names it has in the model."""
    found: dict[int, list[str]] = {}
    for name, value in [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]:
        found.setdefault(id(value), []).append(name)
    return found


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    path, _, leaf = name.rpartition(".")
    model.get_submodule(path)._modules[leaf] = module


def _update_weighted(model: nn.Module) -> None:
    """Sets the sizes that convolution and linear modules record to those of their weights."""
    for module in model.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            _update_convolution(module)
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        elif isinstance(module, nn.PReLU):
            module.num_parameters = module.weight.numel()
        elif isinstance(module, nn.Embedding | nn.EmbeddingBag):
            module.num_embeddings, module.embedding_dim = module.weight.shape
        elif isinstance(module, nn.RNNBase):
            _update_recurrent(module)
        elif isinstance(module, nn.RNNCellBase):
            module.input_size, module.hidden_size = module.weight_ih.shape[1], module.weight_hh.shape[1]


def _update_recurrent(module: nn.RNNBase) -> None:
    """A recurrent module keeps its weights in a list of its own besides."""
    if module.proj_size == 0:
        reads, recurs = cast(Tensor, module.weight_ih_l0), cast(Tensor, module.weight_hh_l0)
        module.input_size, module.hidden_size = reads.shape[1], recurs.shape[1]
    module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]


def _update_convolution(module: nn.modules.conv._ConvNd) -> None:
    first, second = module.weight.shape[:2]
    depthwise = module.groups > 1 and module.in_channels == module.groups
    if module.transposed:
        module.groups = first if depthwise else module.groups
        module.in_channels, module.out_channels = first, second * module.groups
    else:
        module.groups = first * module.groups // module.out_channels if depthwise else module.groups
        module.in_channels, module.out_channels = second * module.groups, first


def _update_norms(model: nn.Module, graph: ModelGraph, keep: Bools, dropped: Sequence[str]) -> None:
    """Sets the sizes that normalisation modules record, with or without parameters, to those of their inputs."""
    for node in graph.program.nodes:
        if node.op != "call_function" or operator(node) not in (
            "batch_norm",
            "instance_norm",
            "layer_norm",
            "rms_norm",
            "group_norm",
        ):
            continue
        owner = graph.program.owner(node).partition("@")[0]
        if any(owner == block or owner.startswith(f"{block}.") for block in dropped):
            continue
        module, source = model.get_submodule(owner), node.all_input_nodes[0]
        for factor in graph.values.get(source.name, ()):
            size = int(keep[factor.units].sum()) * factor.units.shape[factor.cut] // factor.units.size
            _update_norm(module, factor.cut, factor.units.shape[factor.cut], factor.units.ndim, size)


def _update_norm(module: nn.Module, axis: int, old: int, ndim: int, size: int) -> None:
    if isinstance(module, nn.modules.batchnorm._NormBase) and axis == 1:
        module.num_features = size
    elif isinstance(module, nn.GroupNorm) and axis == 1:
        if module.num_groups > 1:
            module.num_groups = module.num_groups * size // module.num_channels
        module.num_channels = size
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
        shape = list(module.normalized_shape)
        if ndim - axis <= len(shape):
            shape[axis - ndim] = size
            module.normalized_shape = tuple(shape)
