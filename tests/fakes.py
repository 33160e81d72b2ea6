"""Hand-made graphs and prices, for tests that need neither torch.export nor fvcore."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from nasprune.common.inputs import Inputs
from nasprune.cost.budget import Budget, Cost
from nasprune.graph.model import AxisSlice, AxisUnits, Block, CoupledGroup, ModelGraph
from nasprune.space.choices import BlockChoice, SearchSpace, WidthChoice
from nasprune.space.priced import PricedSpace


def group(name: str, width: int, *, cells: int = 1, frozen: str | None = None) -> CoupledGroup:
    """A group whose units are dealt to `cells` equal cells in turn."""
    partitions = tuple(tuple(range(cell, width, cells)) for cell in range(cells))
    slices = (AxisSlice(f"{name}.weight", 0, "out", width),)
    return CoupledGroup(name, width, slices, partitions, cells, frozen)


def graph_of(groups: list[CoupledGroup], blocks: list[Block] | None = None, **fields: Any) -> ModelGraph:
    numbers = np.concatenate([np.full(item.width, i) for i, item in enumerate(groups)])
    indices = np.concatenate([np.arange(item.width) for item in groups])
    offsets = np.cumsum([0] + [item.width for item in groups])
    params = {
        f"{item.name}.weight": (AxisUnits(0, np.arange(offsets[i], offsets[i + 1])[None]),)
        for i, item in enumerate(groups)
    }
    defaults: dict[str, Any] = {
        "signature": {name: (axes[0].units.size,) for name, axes in params.items()},
        "groups": tuple(groups),
        "blocks": tuple(blocks or ()),
        "skipped": {},
        "ops": (),
        "params": params,
        "values": {},
        "unit_group": numbers,
        "unit_index": indices,
        "program": cast(Any, None),
        "example_inputs": Inputs(),
    }
    return ModelGraph(**{**defaults, **fields})


@dataclass(frozen=True)
class Table:
    flops: np.ndarray
    params: np.ndarray
    activations: np.ndarray

    def __getitem__(self, index: int) -> Cost:
        return Cost(int(self.flops[index]), int(self.params[index]), int(self.activations[index]))


class ChainPrices:
    """Groups outside blocks form a chain, each costing its width times its predecessor's times `work`.

    A block's groups form a chain of their own from the first group and back to it; a dropped block costs nothing.
    """

    def __init__(self, graph: ModelGraph, work: int = 100) -> None:
        self._graph = graph
        self._work = work
        self._inner = {name for block in graph.blocks for name in block.groups}
        self.names = tuple(item.name for item in (*graph.groups, *graph.blocks))
        self.full = np.array([item.width for item in graph.groups] + [1] * len(graph.blocks))
        self.dense = self.costs([{}])[0]

    def rows(self, matrix: np.ndarray) -> Table:
        column = {name: matrix[:, i] for i, name in enumerate(self.names)}
        stem = column[self._graph.groups[0].name]
        outer = [column[item.name] for item in self._graph.groups if item.name not in self._inner]
        work = sum(left * right for left, right in zip([3 + 0 * stem, *outer], outer, strict=False))
        for block in self._graph.blocks:
            inner = [stem, *(column[name] for name in block.groups), stem]
            work = work + column[block.name] * sum(left * right for left, right in itertools.pairwise(inner))
        return Table(self._work * work, work, sum(outer))

    def costs(self, decisions: Any) -> list[Cost]:
        full = dict(zip(self.names, self.full, strict=True))
        matrix = np.array([[decision.get(name, full[name]) for name in self.names] for decision in decisions])
        table = self.rows(matrix)
        return [table[index] for index in range(len(matrix))]


def space_of(graph: ModelGraph, step: int = 1) -> SearchSpace:
    choices: list[Any] = []
    for item in graph.free_groups:
        grid = step * item.multiple_of
        choices.append(WidthChoice(item.name, (*range(grid, item.width, grid), item.width)))
    choices.extend(BlockChoice(block.name) for block in graph.free_blocks)
    return SearchSpace(tuple(choices))


def priced(graph: ModelGraph, budget: str, step: int = 1) -> PricedSpace:
    return PricedSpace(graph, space_of(graph, step), cast(Any, ChainPrices(graph)), Budget.parse(budget))


def resnet_like(stages: int = 4, depth: int = 3, width: int = 32) -> ModelGraph:
    """A stack of blocks of two inner groups each."""
    groups, blocks = [group("stem", width)], []
    for stage in range(stages):
        for i in range(depth):
            name = f"layer{stage}.{i}"
            inner = [group(f"{name}.conv{j}", width << stage) for j in (1, 2)]
            groups.extend(inner)
            blocks.append(Block(name, (f"{name}.add",), (), tuple(item.name for item in inner)))
    groups.append(group("head", width << stages, frozen="the model's output"))
    return graph_of(groups, blocks)
