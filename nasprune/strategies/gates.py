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

from nasprune.graph.model import CoupledGroup, ModelGraph
from nasprune.strategies.hooks import Hooks

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

        def gated(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
            x = inputs[0]
            factors = self._of(len(x), module.training).to(x)
            spread = torch.cat([factors, torch.ones_like(factors[:, :1])], dim=1)[:, units.to(x.device)]
            if isinstance(module, nn.Linear):
                spread = spread.view(len(spread), *(1 for _ in range(x.ndim - 2)), -1)
            else:
                spread = spread.view(*spread.shape, *(1 for _ in range(x.ndim - 2)))
            return (x * spread, *inputs[1:])

        hooks.before(module, gated)

    def _begin(self, net: nn.Module, inputs: object) -> None:
        self._drawn.clear()

    def _of(self, items: int, training: bool) -> Tensor:
        if items not in self._drawn:
            self._drawn[items] = self._draw(items, training)
        return self._drawn[items]


def readers(part: nn.Module, graph: ModelGraph, group: CoupledGroup) -> list[tuple[nn.Module, Tensor]]:
    """The layers that read a group's channels, and the group's unit (in,) of each channel they read, or -1."""
    number = next(index for index, one in enumerate(graph.groups) if one.name == group.name)
    found: dict[int, tuple[nn.Module, Tensor]] = {}
    for piece in group.slices:
        if piece.role != "in":
            continue
        module = part.get_submodule(piece.param.rpartition(".")[0])
        axis = next(units for units in graph.params[piece.param] if units.axis == piece.axis)
        units = axis.units.reshape(-1)
        mine = np.where((units >= 0) & (graph.unit_group[units] == number), graph.unit_index[units], -1)
        found.setdefault(id(module), (module, torch.from_numpy(mine)))
    return list(found.values())
