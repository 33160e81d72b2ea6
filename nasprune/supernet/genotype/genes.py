"""The best genotype within a budget, exactly: which edges a node keeps, and which operation sits on each.

Scores and costs add up over genes, so a node is one knapsack item whose options are the ways to choose its edges and
their operations. Without a limit this is the rule of Liu et al. 2019 (DARTS, arXiv:1806.09055): the strongest edges of
each node by their strongest operation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from nasprune.cost.units import short
from nasprune.errors import BudgetError, InputError
from nasprune.space.choices import NONE_NAMES
from nasprune.space.pareto import Item, best_pick
from nasprune.supernet.genotype.genotype import Gene, Genotype
from nasprune.supernet.genotype.spaces import CellTopology, OpCosts
from nasprune.supernet.price.limits import amount

MASKED_EDGES = 10
"""Edges of all cells up to which sets of unconnected edges are gone through one by one."""

Scores = Mapping[tuple[str, Gene], float]
Option = tuple[str, tuple[Gene, ...]]


@dataclass(frozen=True)
class Picked:
    """A genotype, its cost as predicted, and the sum of its genes' scores."""

    genotype: Genotype
    cost: int
    score: float


def best_genotype(
    cells: Mapping[str, CellTopology], scores: Scores, costs: OpCosts, limit: int | None, *, allow_none: bool = False
) -> Picked:
    """The genotype with the greatest sum of scores among those that cost at most `limit`.

    Every node keeps as many edges as the topology says, each with one operation that connects.

    Args:
        scores: (kind of cell, gene) -> score; genes without a score are not chosen.
        limit: of the whole network, inclusive; `None` is none.
        allow_none: where nodes keep all edges, an edge may also stay unconnected, which scores what `none` scores; the
            output always stays connected with an input, through nodes that are.

    Raises:
        BudgetError: the cheapest genotype is above the limit. InputError: a node has no genotype with scores, or there
        are too many edges for `allow_none`.
    """
    best: Picked | None = None
    cheapest: int | None = None
    for empty in _empty_edges(cells, allow_none=allow_none):
        labels = [
            _options(kind, topology, target, scores, empty.get(kind, frozenset()))
            for kind, topology, target in _nodes(cells)
        ]
        values = [
            np.array([sum(scores[kind, gene] for gene in genes) for kind, genes in options]) for options in labels
        ]
        items = [
            Item(np.array([[_cost(costs, option)] for option in options], dtype=np.int64), value.max() - value)
            for options, value in zip(labels, values, strict=True)
        ]
        top = float(sum(value.max() for value in values))
        least = costs.base + sum(int(item.costs.min()) for item in items)
        cheapest = least if cheapest is None else min(cheapest, least)
        room = sum(int(item.costs.max()) for item in items) if limit is None else limit - costs.base
        if limit is not None and least > limit:
            continue
        pick = best_pick(items, np.array([room], dtype=np.int64))
        if pick is None or (best is not None and top - pick.harm <= best.score):
            continue
        chosen = [options[number] for options, number in zip(labels, pick.options, strict=True)]
        best = Picked(_genotype(cells, chosen), costs.base + sum(_cost(costs, one) for one in chosen), top - pick.harm)
    if best is None:
        raise BudgetError(
            f"the cheapest genotype costs {_said(cheapest or costs.base, costs)}, {_said(limit or 0, costs)} are "
            "allowed; raise the budget, or make the network smaller"
        )
    return best


def _said(number: int, costs: OpCosts) -> str:
    return amount(number, costs.counter) if costs.counter == "latency" else f"{short(number)} ({costs.counter})"


def _nodes(cells: Mapping[str, CellTopology]) -> Iterator[tuple[str, CellTopology, int]]:
    for kind, topology in cells.items():
        for target in topology.nodes:
            yield kind, topology, target


def _options(
    kind: str, topology: CellTopology, target: int, scores: Scores, empty: frozenset[tuple[int, int]]
) -> list[Option]:
    """The ways to choose a node's edges and their operations, those edges unconnected that are `empty`."""
    sources = [source for source, node in topology.edges if node == target]
    count = len(sources) if topology.inputs_per_node is None else min(topology.inputs_per_node, len(sources))
    found: list[Option] = []
    for some in combinations(sources, count):
        per_edge = []
        for source in some:
            none = (source, target) in empty
            genes = [Gene(op, source, target) for op in topology.ops if (op.lower() in NONE_NAMES) == none]
            per_edge.append([gene for gene in genes if (kind, gene) in scores])
        found += [(kind, genes) for genes in product(*per_edge)]
    if not found:
        raise InputError(
            f"node {target} of the {kind!r} cell has fewer than {count} edges with scored operations that connect; "
            "keep more when trimming"
        )
    return found


def _empty_edges(
    cells: Mapping[str, CellTopology], *, allow_none: bool
) -> Iterator[dict[str, frozenset[tuple[int, int]]]]:
    """Sets of unconnected edges that leave a path to the output, the empty set first."""
    if not allow_none:
        yield {}
        return
    if sum(len(topology.edges) for topology in cells.values()) > MASKED_EDGES:
        raise InputError(f"unconnected edges can be weighed in cells of up to {MASKED_EDGES} edges")
    kinds = list(cells)
    per_kind = []
    for kind in kinds:
        edges = cells[kind].edges
        none = any(op.lower() in NONE_NAMES for op in cells[kind].ops)
        sizes = range(len(edges) + 1) if none and cells[kind].inputs_per_node is None else (0,)
        subsets = [frozenset(some) for size in sizes for some in combinations(edges, size)]
        per_kind.append([some for some in subsets if connected(cells[kind], set(edges) - some)])
    for chosen in product(*per_kind):
        yield dict(zip(kinds, chosen, strict=True))


def connected(topology: CellTopology, edges: set[tuple[int, int]]) -> bool:
    """Whether along `edges` the cell's output can be reached from one of its inputs."""
    reached = set(range(topology.inputs))
    for target in topology.nodes:
        if any((source, target) in edges for source in reached):
            reached.add(target)
    outputs = topology.concat or (topology.nodes[-1],)
    return bool(reached & set(outputs))


def _cost(costs: OpCosts, option: Option) -> int:
    kind, genes = option
    return sum(costs[kind, gene] for gene in genes)


def _genotype(cells: Mapping[str, CellTopology], chosen: Sequence[Option]) -> Genotype:
    genes = {kind: tuple(gene for name, some in chosen if name == kind for gene in some) for kind in cells}
    concat = {kind: topology.concat for kind, topology in cells.items() if topology.concat}
    return Genotype(genes, concat)
