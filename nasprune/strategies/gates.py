"""Factors on the units of a group, wherever layers read them.

What every convolution and linear layer reads of a unit is multiplied, so that a factor of zero is the cut itself: norms
behind the layers that make the unit cannot undo it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import Node

from nasprune.graph.model import CoupledGroup, ModelGraph
from nasprune.graph.program import operator, site
from nasprune.strategies.hooks import Hooks, with_input
from nasprune.strategies.runs import running

Draw = Callable[[int, bool], Tensor]


class Gate:
    """Factors of one group, drawn once in every pass of the network, for all its readers alike.

    draw: (items, whether in training) -> (items, width), or (1, width) for all items.
    """

    def __init__(self, net: nn.Module, width: int, draw: Draw, hooks: Hooks) -> None:
        self._width, self._draw = width, draw
        self._drawn: dict[int, Tensor] = {}
        hooks.before(net, self._begin)

    def on(self, module: nn.Module, units: Tensor, hooks: Hooks) -> None:
        """units: (in,), the unit of each channel that the layer reads, -1 where it is none of the group's."""

        def gated(x: Tensor, module: nn.Module) -> Tensor:
            factors = self._of(len(x), module.training).to(x)
            spread = torch.cat([factors, torch.ones_like(factors[:, :1])], dim=1)[:, units.to(x.device)]
            if isinstance(module, nn.Linear):
                spread = spread.view(len(spread), *(1 for _ in range(x.ndim - 2)), -1)
            else:
                spread = spread.view(*spread.shape, *(1 for _ in range(x.ndim - 2)))
            return x * spread

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            return with_input(args, kwargs, lambda x: gated(x, module))

        hooks.before(module, before)

    def _begin(self, net: nn.Module, args: object, kwargs: object) -> None:
        self._drawn.clear()

    def _of(self, items: int, training: bool) -> Tensor:
        if items not in self._drawn:
            self._drawn[items] = self._draw(items, training)
        return self._drawn[items]


def readers(part: nn.Module, graph: ModelGraph, group: CoupledGroup) -> list[tuple[nn.Module, Tensor]]:
    """The layers that read a group's channels, and the group's unit (in,) of each channel they read, or -1."""
    number = next(index for index, one in enumerate(graph.groups) if one.name == group.name)
    runs, held = running(part, graph.program), dict(part.named_parameters(remove_duplicate=False))
    found: dict[int, tuple[nn.Module, Tensor]] = {}
    for piece in group.slices:
        if piece.role != "in":
            continue
        axis = next(units for units in graph.params[piece.param] if units.axis == piece.axis)
        units = axis.units.reshape(-1)
        mine = np.where((units >= 0) & (graph.unit_group[units] == number), graph.unit_index[units], -1)
        for module in runs[id(held[piece.param])]:
            found.setdefault(id(module), (module, torch.from_numpy(mine)))
    return list(found.values())


def without_gates(part: nn.Module, graph: ModelGraph) -> dict[str, str]:
    """Free groups that something else reads than linear and convolution layers that run, and why no gate can stand."""
    runs, held = running(part, graph.program), dict(part.named_parameters(remove_duplicate=False))
    gated = {name for name, value in held.items() if id(value) in runs}
    found: dict[str, str] = {}
    for group in graph.free_groups:
        for piece in group.slices:
            if piece.role == "in" and piece.param not in gated:
                found.setdefault(group.name, f"{piece.param} reads it, which no gate reaches")
    for node in graph.program.live:
        if graph.program.weight_of(node) not in gated:
            for group in _summed(node, graph):
                found.setdefault(group.name, f"`{operator(node)}` at {site(node)} reads it, which no gate reaches")
    return found


def _summed(node: Node, graph: ModelGraph) -> list[CoupledGroup]:
    """The free groups whose channels an operation reads and does not pass on."""
    read = set().union(*(_groups_of(source, graph) for source in node.all_input_nodes))
    gone = sorted(read - _groups_of(node, graph))
    return [graph.groups[number] for number in gone if graph.groups[number].free]


def _groups_of(node: Node, graph: ModelGraph) -> set[int]:
    """Numbers of the groups whose channels an operation gives; of several tensors, those that are used."""
    if node.op == "placeholder" and node.name in graph.program.params:
        return set()
    if node.name not in graph.values:
        return set().union(*(_groups_of(user, graph) for user in node.users if operator(user) == "getitem"))
    units = np.concatenate([value.units.reshape(-1) for value in graph.values[node.name]] or [np.empty(0, np.int64)])
    return set(graph.unit_group[units[units >= 0]].tolist())
