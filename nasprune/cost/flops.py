"""FLOPs: measured on a model, and predicted for any number of decisions by compiled formulas.

The prediction is exact: for every decision it equals the count on the model that the decision builds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import numpy.typing as npt
from torch import nn

from nasprune.common.inputs import ExampleInputs, Inputs
from nasprune.cost.budget import Cost
from nasprune.cost.formulas import count
from nasprune.cost.sizes import Extent, Product, Sizes
from nasprune.cost.times import Times, timed_products
from nasprune.cost.traced import captured_counts, traced_counts
from nasprune.errors import PlanError
from nasprune.graph.model import Ints, ModelGraph

CHUNK = 1024
Monomials = Mapping[tuple[int, ...], float]


def measure(model: nn.Module, example_inputs: ExampleInputs) -> Cost:
    """The cost of one run on `example_inputs`, counted as `operator_counts` says; parameters on the model."""
    counts = operator_counts(model, example_inputs)
    totals = {kind: sum(n for name, n in counts.items() if name.startswith(kind)) for kind in ("flops:", "acts:")}
    params = sum(parameter.numel() for parameter in model.parameters())
    return Cost(int(totals["flops:"]), params, int(totals["acts:"]))


def operator_counts(model: nn.Module, example_inputs: ExampleInputs) -> Counter[str]:
    """Counts by operator, "flops:conv" and "acts:conv", of one run in eval mode; the model is left as it was.

    fvcore counts; where its trace cannot follow the model, the program that `nasprune.trace` captures is counted.

    Raises:
        TraceError: the model can be followed by neither. InputError: it does not run on `example_inputs`.
    """
    inputs = Inputs.of(example_inputs, model)
    try:
        found = traced_counts(model, inputs)
    except Exception:  # a trace raises whatever the model's code does under it
        found = None
    return found if found is not None else captured_counts(model, inputs)


@dataclass(frozen=True)
class CostTable:
    """Costs of n decisions: int64 arrays of shape (n,)."""

    flops: Ints
    params: Ints
    activations: Ints
    nanoseconds: Ints

    def __getitem__(self, index: int) -> Cost:
        return Cost(*(int(values[index]) for values in (self.flops, self.params, self.activations, self.nanoseconds)))

    def __len__(self) -> int:
        return len(self.flops)


@dataclass
class _Polynomial:
    """Sum of products of extents, merged where the extents are the same."""

    terms: dict[tuple[Extent, ...], float] = field(default_factory=dict)

    def add(self, product: Product, flags: tuple[Extent, ...], factor: float = 1) -> None:
        key = (*product.extents, *flags)
        self.terms[key] = self.terms.get(key, 0) + product.coefficient * factor


class CostModel:
    """The price list of a graph.

    names: the variables, all groups in the graph's order and then all blocks; `rows` takes one column for each.
    dense: the cost with everything kept. times: of the calls of the graph's program, where latency is priced.
    """

    def __init__(self, graph: ModelGraph, times: Times | None = None) -> None:
        self.names = (*(group.name for group in graph.groups), *(block.name for block in graph.blocks))
        self.full = np.array([group.width for group in graph.groups] + [1] * len(graph.blocks), dtype=np.int64)
        self._column = {name: i for i, name in enumerate(self.names)}
        polynomials = _compile(graph, times)
        extents = list(dict.fromkeys(e for poly in polynomials for key in poly.terms for e in key))
        place = {extent: i for i, extent in enumerate(extents)}
        self._matrix = np.zeros((len(extents), len(self.names)))
        for extent, i in place.items():
            for variable, coefficient in extent.terms:
                self._matrix[i, variable] = coefficient
        self._fixed = np.array([extent.fixed for extent in extents], dtype=np.float64)[:, None]
        self._tables = [_table(poly, place) for poly in polynomials]
        self._polynomials = (polynomials[0], polynomials[1], polynomials[3])
        self.dense = self.rows(self.full[None])[0]

    def monomials(self) -> tuple[Monomials, Monomials, Monomials]:
        """FLOPs, params and nanoseconds as sums of coefficient * product of columns, where one may come twice."""
        flops, params, time = self._polynomials
        return _expanded(flops), _expanded(params), _expanded(time)

    def rows(self, matrix: Ints) -> CostTable:
        """Costs of decisions given as rows of values, shape (n, len(names)): kept counts, and 1 or 0 for blocks."""
        totals = np.empty((4, len(matrix)), dtype=np.int64)
        for start in range(0, len(matrix), CHUNK):
            chunk = slice(start, start + CHUNK)
            values = np.ones((len(self._fixed) + 1, matrix[chunk].shape[0]))
            values[:-1] = np.rint(self._matrix @ matrix[chunk].T.astype(np.float64) + self._fixed)
            for i, table in enumerate(self._tables):
                totals[i, chunk] = np.rint(table.evaluate(values))
        return CostTable(*totals)

    def table(self, decisions: Sequence[Mapping[str, int]]) -> CostTable:
        """Costs of decisions given by name; what a decision does not name is kept whole."""
        matrix = np.repeat(self.full[None], len(decisions), axis=0)
        for row, decision in zip(matrix, decisions, strict=True):
            for name, option in decision.items():
                row[self.column(name)] = option
        return self.rows(matrix)

    def costs(self, decisions: Sequence[Mapping[str, int]]) -> list[Cost]:
        """`table` as a list of costs."""
        table = self.table(decisions)
        return [table[i] for i in range(len(decisions))]

    def column(self, name: str) -> int:
        if name not in self._column:
            raise PlanError(f"the model has no group or block {name!r}; `nasprune inspect` lists them")
        return self._column[name]


@dataclass(frozen=True)
class _Table:
    """A polynomial as arrays. coefficients: (terms,). rows: (terms, degree), the extents each term multiplies."""

    coefficients: npt.NDArray[np.float64]
    rows: Ints

    def evaluate(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The polynomial for each column of `values`, (extents + 1, n), last row ones; exact below 2**53."""
        product = values[self.rows[:, 0]]
        for column in self.rows.T[1:]:
            product *= values[column]
        total: npt.NDArray[np.float64] = self.coefficients @ product
        return total


def _table(polynomial: _Polynomial, place: Mapping[Extent, int]) -> _Table:
    """Terms of lower degree are filled up with the row of ones, number -1."""
    degree = max([1, *map(len, polynomial.terms)])
    rows = [[place[extent] for extent in key] + [-1] * (degree - len(key)) for key in polynomial.terms]
    coefficients = np.array(list(polynomial.terms.values()), dtype=np.float64)
    return _Table(coefficients, np.array(rows, dtype=np.int64).reshape(-1, degree))


def _expanded(polynomial: _Polynomial) -> Monomials:
    """The products of sums multiplied out; keys are ascending columns."""
    total: dict[tuple[int, ...], float] = {}
    for extents, coefficient in polynomial.terms.items():
        parts: dict[tuple[int, ...], float] = {(): float(coefficient)}
        for extent in extents:
            longer: dict[tuple[int, ...], float] = {}
            for columns, factor in parts.items():
                for more, share in (((), float(extent.fixed)), *(((column,), c) for column, c in extent.terms)):
                    if share:
                        key = tuple(sorted((*columns, *more)))
                        longer[key] = longer.get(key, 0.0) + factor * share
            parts = longer
        for columns, factor in parts.items():
            total[columns] = total.get(columns, 0.0) + factor
    return total


def _compile(graph: ModelGraph, times: Times | None) -> tuple[_Polynomial, _Polynomial, _Polynomial, _Polynomial]:
    flops, params, activations, time = _Polynomial(), _Polynomial(), _Polynomial(), _Polynomial()
    sizes = Sizes(graph)
    flag = {block.name: Extent(1, 0, ((len(graph.groups) + i, 1.0),)) for i, block in enumerate(graph.blocks)}
    block_of = {node: flag[block.name] for block in graph.blocks for node in block.nodes}
    for node in graph.program.live:
        if node.op == "call_function":
            flags = (block_of[node.name],) if node.name in block_of else ()
            if times is not None:
                for product, nanoseconds in timed_products(node, sizes, times):
                    time.add(product, flags, nanoseconds)
            counted = count(node, sizes.of)
            if counted is not None:
                for product in counted.flops:
                    flops.add(product, flags)
                for product in counted.activations:
                    activations.add(product, flags)
    for name in dict.fromkeys(graph.program.params.values()):
        if name not in graph.program.buffers:
            inside = tuple(flag[block.name] for block in graph.blocks if name.startswith(f"{block.name}."))
            params.add(Product.of(*sizes.of_param(name, graph.signature[name])), inside)
    return flops, params, activations, time


@overload
def predict(graph: ModelGraph, decision: Mapping[str, int]) -> Cost: ...
@overload
def predict(graph: ModelGraph, decision: Sequence[Mapping[str, int]]) -> CostTable: ...
def predict(graph: ModelGraph, decision: Mapping[str, int] | Sequence[Mapping[str, int]]) -> Cost | CostTable:
    """The exact cost of a decision (group -> kept count, block -> 1 or 0), or a table of arrays for several."""
    model = CostModel(graph)
    return model.costs([decision])[0] if isinstance(decision, Mapping) else model.table(decision)
