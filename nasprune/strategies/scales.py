"""Scales: modules behind which the channels of a group, or the branch of a block, can be scaled by learned factors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasprune.calibration.layers import is_layer
from nasprune.graph import model as of_graph
from nasprune.graph.model import ModelGraph
from nasprune.strategies.slots import Slots


@dataclass(frozen=True)
class Scale:
    """A `LiveScale`."""

    module: nn.Module

    def scaled(self, output: Tensor, factors: Tensor) -> Tensor:
        if factors.ndim == 0 or isinstance(self.module, nn.Linear):
            return output * factors.to(output.dtype)
        return output * factors.to(output.dtype).view(-1, *[1] * (output.ndim - 2))

    def merge(self, factors: Tensor) -> None:
        weight, bias = self.module.weight, self.module.bias
        assert isinstance(weight, Tensor)
        with torch.no_grad():
            weight.mul_(factors.to(weight.dtype).reshape(-1, *[1] * (weight.ndim - 1)))
            if isinstance(bias, Tensor):
                bias.mul_(factors.to(bias.dtype))


@dataclass(frozen=True)
class Block:
    """A `LiveBlock`: a removable block of a network in training. scales: of its branches."""

    name: str
    scales: tuple[Scale, ...]


def scales_of(part: nn.Module, slots: Sequence[Slots], width: int) -> tuple[Scale, ...]:
    """Behind the batch norms of a group's channels, else behind the layers that make them; those of `width` in order.

    part: the network, or what the graph's scope names. slots: of the group.
    """
    in_order = {
        id(one.tensor)
        for one in slots
        if one.role != "in"
        and one.is_trained
        and one.tensor.shape[0] == width
        and torch.equal(one.read(), one.tensor.detach().reshape(width, -1))
    }
    found = [module for module in _alone(part) if id(module.weight) in in_order]
    norms = [module for module in found if isinstance(module, _BatchNorm)]
    return tuple(Scale(module) for module in norms or found)


def blocks_of(part: nn.Module, graph: ModelGraph, names: Iterable[str]) -> tuple[Block, ...]:
    """The blocks so called whose branches all end with a batch norm or a layer."""
    alone, blocks = {id(module) for module in _alone(part)}, {block.name: block for block in graph.blocks}
    found = []
    for name in names:
        ends = _ends(part, graph, blocks[name])
        if all(id(module) in alone for module in ends):
            found.append(Block(name, tuple(map(Scale, ends))))
    return tuple(found)


def _ends(part: nn.Module, graph: ModelGraph, block: of_graph.Block) -> list[nn.Module]:
    """The modules whose outputs are the values of the block's branches."""
    return [part.get_submodule(graph.program.owner(graph.program.by_name[value])) for value in block.branches]


def _alone(part: nn.Module) -> list[nn.Module]:
    """Batch norms and layers with trained weights that no other module shares."""
    users = Counter(id(value) for module in part.modules() for value in module._parameters.values())
    return [
        module
        for module in part.modules()
        if (isinstance(module, _BatchNorm) or is_layer(module))
        and not getattr(module, "transposed", False)
        and isinstance(module.weight, nn.Parameter)
        and users[id(module.weight)] == 1
    ]
