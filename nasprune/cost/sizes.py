"""Axis sizes as functions of a decision: fixed + sum of (share of a group's kept count)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from torch.fx import Node

from nasprune.graph.model import Ints, ModelGraph
from nasprune.graph.program import shape_of


@dataclass(frozen=True)
class Extent:
    """Size of one axis. terms: (variable, coefficient); the size is fixed + sum of coefficient * value.

    Variables are the groups in the graph's order, then the blocks. Coefficients may be fractions: an axis with a third
    of a group's units has a third of its kept count, which cells make a whole number.
    """

    dense: int
    fixed: int
    terms: tuple[tuple[int, float], ...]


def dense(size: int | Extent) -> int:
    """The size with everything kept."""
    return size.dense if isinstance(size, Extent) else size


@dataclass(frozen=True)
class Product:
    """coefficient * product of extents, extents in a fixed order."""

    coefficient: int
    extents: tuple[Extent, ...]

    @classmethod
    def of(cls, *sizes: int | Extent) -> Product:
        numbers = [size for size in sizes if isinstance(size, int)]
        extents = [size for size in sizes if isinstance(size, Extent)]
        return cls(prod(numbers), tuple(sorted(extents, key=lambda extent: (extent.terms, extent.fixed))))


class Sizes:
    """Looks up the axis sizes of the values of a graph's program."""

    def __init__(self, graph: ModelGraph) -> None:
        self._graph = graph
        self._widths = np.array([group.width for group in graph.groups] or [1])
        self._group_of = np.append(graph.unit_group, -1)
        self._known: dict[int, Extent] = {}
        self._arrays: list[Ints] = []

    def of(self, value: Node) -> tuple[int | Extent, ...]:
        """Sizes of the axes of a value of the program."""
        name = self._graph.program.params.get(value.name)
        if name is not None:
            return self.of_param(name, shape_of(value) or ())
        sizes: list[int | Extent] = list(shape_of(value) or ())
        for factor in self._graph.values.get(value.name, ()):
            sizes[factor.cut] = self.extent(factor.units, factor.units.size // factor.units.shape[factor.cut])
        return tuple(sizes)

    def of_param(self, name: str, shape: tuple[int, ...]) -> tuple[int | Extent, ...]:
        sizes: list[int | Extent] = list(shape)
        for axis in self._graph.params.get(name, ()):
            sizes[axis.axis] = self.extent(axis.units, len(axis.units))
        return tuple(sizes)

    def extent(self, units: Ints, rows: int) -> Extent:
        """The size of an axis whose `rows` index rows together hold `units`."""
        known = self._known.get(id(units))
        if known is None:
            groups, counts = np.unique(self._group_of[units], return_counts=True)
            fixed = int(counts[groups < 0].sum()) // rows
            pairs = [(int(g), int(n)) for g, n in zip(groups, counts, strict=True) if g >= 0]
            terms = tuple((g, n / (int(self._widths[g]) * rows)) for g, n in pairs)
            known = self._known[id(units)] = Extent(units.size // rows, fixed, terms)
            self._arrays.append(units)
        return known
