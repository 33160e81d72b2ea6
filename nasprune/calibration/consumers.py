"""The layers that read a group's channels, and which of their input channels belong to which unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from nasprune.base import LayerUnits
from nasprune.calibration.called import stand_in
from nasprune.calibration.layers import is_layer, weight_matrix
from nasprune.graph.model import AxisUnits, CoupledGroup, Ints, ModelGraph


@dataclass(frozen=True)
class Consumer:
    """One weight that reads a group's channels. Weights of other operations have none.

    param: name of the weight. modules: the layers that hold it, more than one where it is shared, or what stands in for
    calls with it.
    channels: (width, most), input channels of each unit, -1 where it has fewer than the others or none here.
    """

    param: str
    modules: tuple[nn.Module, ...]
    channels: Ints

    @cached_property
    def columns(self) -> Ints:
        """Features of each unit as numbers into the flattened (groups, features) of `layers.patches`; (width, k)."""
        layer = self.modules[0]
        per_channel = weight_matrix(layer).shape[1] * layer_groups(layer) // channel_count(layer)
        spread = self.channels[:, :, None] * per_channel + np.arange(per_channel)
        spread = np.where(self.channels[:, :, None] >= 0, spread, -1)
        return spread.reshape(len(self.channels), -1)

    def weight(self) -> Tensor:
        """The unit's weights (outputs, width, k), float32 on the CPU; zero where a unit has no feature.

        Outputs are those of the convolution group that reads the unit.
        """
        flat = weight_matrix(self.modules[0]).detach().to("cpu", torch.float32).flatten(0, 1)
        chosen = flat[torch.from_numpy(np.maximum(self.columns, 0))]
        there = torch.from_numpy(self.columns >= 0)
        return (chosen * there[:, :, None]).permute(2, 0, 1)

    def by_unit(self, values: Tensor) -> Tensor:
        """Values (n, channels) of the layer's input as (n, width, most), zero where a unit has no channel."""
        channels = torch.from_numpy(self.channels)
        return values[:, channels.clamp(min=0)] * (channels >= 0)


def consumers(part: nn.Module, graph: ModelGraph, group: CoupledGroup) -> list[Consumer]:
    """The consumers of a group, in the order of its slices. part: the traced model or scope."""
    number = next(index for index, other in enumerate(graph.groups) if other.name == group.name)
    found = []
    for piece in group.slices:
        modules = holders(part, graph, piece.param) if piece.role == "in" else ()
        if not modules:
            continue
        axis = next(units for units in graph.params[piece.param] if units.axis == piece.axis)
        units = channel_units(axis, channel_count(modules[0]))
        owned = np.flatnonzero(units >= 0)
        owned = owned[graph.unit_group[units[owned]] == number]
        found.append(Consumer(piece.param, modules, side_by_side(owned, graph.unit_index[units[owned]], group.width)))
    return found


def holders(part: nn.Module, graph: ModelGraph, param: str) -> tuple[nn.Module, ...]:
    """The convolutions and linear layers that hold a parameter as their weight, the named one first.

    Where code multiplies with it by a function, that is what stands in for the calls.
    """
    standing = stand_in(part, graph.program, param)
    if standing is not None:
        return (standing,)
    path, _, leaf = param.rpartition(".")
    named = dict(part.named_modules()).get(path)
    if leaf != "weight" or named is None or not is_layer(named):
        return ()
    others = (module for module in _layers(part) if module.weight is named.weight and module is not named)
    return (named, *others)


def channel_count(layer: nn.Module) -> int:
    """Number of channels a layer reads."""
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)  # type: ignore[arg-type]


def layer_groups(layer: nn.Module) -> int:
    """Number of convolution groups; 1 for a linear layer."""
    return 1 if isinstance(layer, nn.Linear) else int(layer.groups)  # type: ignore[arg-type]


def channel_units(axis: AxisUnits, count: int) -> Ints:
    """The unit of each of `count` channels of the layer; an axis shared by all groups is repeated."""
    flat = axis.units.reshape(-1)
    return np.tile(flat, max(count // flat.size, 1))


def side_by_side(positions: Ints, owners: Ints, width: int) -> Ints:
    """(width, most): the positions of each owner in rising order, filled up with -1."""
    order = np.argsort(owners, kind="stable")
    positions, owners = positions[order], owners[order]
    counts = np.bincount(owners, minlength=width)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    table = np.full((width, max(int(counts.max(initial=0)), 1)), -1, dtype=np.int64)
    table[owners, np.arange(owners.size) - first[owners]] = positions
    return table


def layer_units(part: nn.Module, graph: ModelGraph) -> list[LayerUnits]:
    """Every convolution and linear layer in execution order, as `ScoreContext.layers` gives them."""
    order: dict[str, int] = {}
    for index, node in enumerate(graph.program.nodes):
        for source in node.all_input_nodes:
            order.setdefault(graph.program.params.get(source.name, ""), index)
    named = ((order.get(name, 0), name, holders(part, graph, name)) for name in graph.params)
    return [
        _as_units(modules[0], {axis.axis: axis for axis in graph.params[name]})
        for _, name, modules in sorted((one for one in named if one[2]), key=lambda one: one[:2])
        if layer_groups(modules[0]) == 1 or layer_groups(modules[0]) < channel_count(modules[0])
    ]


def _as_units(layer: nn.Module, axes: Mapping[int, AxisUnits]) -> LayerUnits:
    matrix = weight_matrix(layer).detach().to("cpu", torch.float32).abs()
    groups, _, outputs = matrix.shape
    count = channel_count(layer)
    blocks = matrix.reshape(groups, count // groups, -1, outputs).sum(dim=2).transpose(1, 2)
    made, read = (0, 1) if not isinstance(layer, _ConvTransposeNd) else (1, 0)
    sides = [
        channel_units(axes[axis], size) if axis in axes else np.full(size, -1)
        for axis, size in ((read, count), (made, groups * outputs))
    ]
    return LayerUnits(torch.from_numpy(sides[0]), torch.from_numpy(sides[1]), torch.block_diag(*blocks))  # type: ignore[no-untyped-call]


def _layers(part: nn.Module) -> Iterator[nn.Module]:
    return (module for module in part.modules() if is_layer(module))
