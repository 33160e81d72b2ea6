"""A priced search space as variables and tables: which choices multiply with which, and what they cost together.

A block and the groups that live only inside it are one variable, since a dropped block makes their widths irrelevant;
where that would have too many options, they stay apart and share a table of harms. A table belongs to a set of
variables (its scope) and has one axis for each after the first, which holds the harm and then the limited costs. All
tables together add up to the harm and costs of the network, exactly.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, prod
from typing import Protocol

import numpy as np

from nasprune.cost.flops import CostModel
from nasprune.errors import InputError, PlanError
from nasprune.graph.model import ModelGraph
from nasprune.space.budgeted import BudgetedSpace
from nasprune.space.choices import BlockChoice, Choice, Decision
from nasprune.space.pareto import Dual, Floats, Ints, Item

GRID = 512
JOINT = 4096
LARGEST_TABLE = 8_000_000
Damages = Mapping[str, Mapping[int, float]]
Scope = tuple[int, ...]
Assignment = Mapping[int, int]


class Solvable(BudgetedSpace, Protocol):
    """What `nasprune.space.priced.PricedSpace` is: a budgeted space that shows its graph and price list."""

    @property
    def graph(self) -> ModelGraph: ...

    @property
    def prices(self) -> CostModel: ...

    def require_feasible(self) -> None:
        """Raises BudgetError where even the smallest decision is over budget."""


@dataclass(frozen=True)
class Variable:
    """Choices that are decided together. values: (options, names). harm: (options,)."""

    names: tuple[str, ...]
    values: Ints
    harm: Floats

    def __len__(self) -> int:
        return len(self.harm)


class Interplay:
    """The variables of a problem and the tables over them.

    limits: the resolved limits that tables count costs for, (limits,).
    """

    def __init__(self, problem: Solvable, damages: Damages) -> None:
        _check(problem, damages)
        budget = problem.budget
        bounds = budget.limits
        self.limits: Ints = np.array([bound for bound in bounds if bound is not None], dtype=np.int64)
        self._space = problem.space
        known = {choice.name for choice in problem.space.choices}
        self._inside = {
            block.name: tuple(name for name in block.groups if name in known) for block in problem.graph.blocks
        }
        self.variables, apart = _variables(problem, damages, self._inside)
        self.tables: dict[Scope, Floats] = {}
        for i, variable in enumerate(self.variables):
            self._table((i,))[0] += variable.harm
        for block, inner in apart:
            table = self._table(tuple(sorted((block, inner))))[0]
            gone = self.variables[block].values[:, 0] == 0
            replaced = np.outer(gone, self.variables[inner].harm)
            table -= replaced if block < inner else replaced.T
        place = {
            problem.prices.column(name): (i, k)
            for i, variable in enumerate(self.variables)
            for k, name in enumerate(variable.names)
        }
        listed = [terms for terms, bound in zip(problem.prices.monomials(), bounds, strict=True) if bound is not None]
        for number, terms in enumerate(listed, 1):
            for columns, coefficient in terms.items():
                self._add(number, columns, coefficient, place, problem.prices.full)
        for table in self.tables.values():
            table[1:] = np.rint(table[1:])

    def _table(self, scope: Scope) -> Floats:
        shape = tuple(len(self.variables[i]) for i in scope)
        return self.tables.setdefault(scope, np.zeros((1 + len(self.limits), *shape)))

    def _add(
        self,
        number: int,
        columns: Sequence[int],
        coefficient: float,
        place: Mapping[int, tuple[int, int]],
        full: Ints,
    ) -> None:
        coefficient *= float(prod(int(full[column]) for column in columns if column not in place))
        vectors: dict[int, Floats] = {}
        for column in columns:
            if column in place:
                i, k = place[column]
                vectors[i] = vectors.get(i, np.ones(len(self.variables[i]))) * self.variables[i].values[:, k]
        scope = tuple(sorted(vectors))
        product = np.array(coefficient)
        for i in scope:
            product = product[..., None] * vectors[i]
        self._table(scope)[number] += product

    def neighbours(self) -> list[set[int]]:
        """For each variable those that share a table with it."""
        found: list[set[int]] = [set() for _ in self.variables]
        for scope in self.tables:
            for i in scope:
                found[i] |= set(scope) - {i}
        return found

    def totals(self, assignment: Assignment) -> Floats:
        """Harm and costs of options for all variables, shape (1 + limits,)."""
        total = np.zeros(1 + len(self.limits))
        for scope, table in self.tables.items():
            index: tuple[int | slice, ...] = (slice(None), *(assignment[i] for i in scope))
            total += table[index]
        return total

    def items(self, parts: Sequence[Scope], assignment: Assignment) -> tuple[list[Item], Floats]:
        """One item for each of `parts`, which share no table, the rest as assigned; and what the rest adds up to."""
        home = {i: part for part in parts for i in part}
        grids = {part: np.zeros((1 + len(self.limits), *(len(self.variables[i]) for i in part))) for part in parts}
        fixed = np.zeros(1 + len(self.limits))
        for scope, table in self.tables.items():
            inner = table[(slice(None), *(slice(None) if i in home else assignment[i] for i in scope))]
            left = [i for i in scope if i in home]
            if left:
                part = home[left[0]]
                grids[part] += _spread(inner, left, part)
            else:
                fixed += inner
        flat = [grid.reshape(1 + len(self.limits), -1) for grid in grids.values()]
        return [Item(np.rint(grid[1:].T).astype(np.int64), grid[0]) for grid in flat], fixed

    def decision(self, assignment: Assignment) -> Decision:
        """The options by name, full widths inside dropped blocks."""
        options = {
            name: int(value)
            for i, variable in enumerate(self.variables)
            for name, value in zip(variable.names, variable.values[assignment[i]], strict=True)
        }
        for block, inner in self._inside.items():
            if options.get(block) == 0:
                options |= {name: self._space[name].options[-1] for name in inner}
        return Decision.of(options)

    def assignment(self, decision: Decision) -> dict[int, int]:
        """The options that lie nearest to a decision without dropped blocks."""
        return {
            i: int(np.abs(variable.values - [decision[name] for name in variable.names]).sum(axis=1).argmin())
            for i, variable in enumerate(self.variables)
        }


class Elimination:
    """The least of harm + multipliers · costs over all decisions, by eliminating one variable after the other.

    possible: whether the tables on the way stay small.
    """

    def __init__(self, interplay: Interplay) -> None:
        self._of = interplay
        sizes = [len(variable) for variable in interplay.variables]
        scopes = [set(scope) for scope in interplay.tables]
        left = set(range(len(sizes)))
        self._order: list[tuple[int, Scope]] = []
        self.possible = True
        while left and self.possible:
            joined = {i: set().union(*(scope for scope in scopes if i in scope)) | {i} for i in left}
            gone = min(left, key=lambda i: (prod(sizes[j] for j in joined[i]), i))
            self.possible = prod(sizes[j] for j in joined[gone]) <= LARGEST_TABLE
            self._order.append((gone, tuple(sorted(joined[gone] - {gone}))))
            scopes = [scope for scope in scopes if gone not in scope] + [joined[gone] - {gone}]
            left.remove(gone)

    def at(self, point: Floats) -> Dual:
        """The relaxation at multipliers (limits,), harm per share of each limit."""
        limits = self._of.limits
        weights = np.concatenate([[1.0], point / np.maximum(limits, 1)])
        tables = [(scope, np.tensordot(weights, table, 1)) for scope, table in self._of.tables.items()]
        answers: list[tuple[int, Scope, Ints]] = []
        for gone, rest in self._order:
            scope = (*rest, gone)
            total = np.zeros(tuple(len(self._of.variables[i]) for i in scope))
            for inner, table in tables:
                if gone in inner:
                    total += _spread(table[None], inner, scope)[0]
            tables = [(inner, table) for inner, table in tables if gone not in inner]
            tables.append((rest, total.min(axis=-1)))
            answers.append((gone, rest, total.argmin(axis=-1)))
        chosen: dict[int, int] = {}
        for gone, rest, answer in reversed(answers):
            chosen[gone] = int(answer[tuple(chosen[i] for i in rest)])
        value = float(sum(float(table) for _, table in tables))
        room = limits / np.maximum(limits, 1)
        used = self._of.totals(chosen)[1:] / np.maximum(limits, 1)
        return Dual(value - float(room @ point), used - room, tuple(chosen[i] for i in range(len(self._of.variables))))


def _spread(table: Floats, scope: Sequence[int], target: Sequence[int]) -> Floats:
    """A table (k, *scope) with its axes in the order of `target`, and axes of length 1 for what it lacks."""
    order = sorted(range(len(scope)), key=lambda axis: target.index(scope[axis]))
    moved = table.transpose(0, *(axis + 1 for axis in order))
    present = {scope[axis]: table.shape[axis + 1] for axis in order}
    return moved.reshape(table.shape[0], *(present.get(i, 1) for i in target))


def _variables(
    problem: Solvable, damages: Damages, inside: Mapping[str, Sequence[str]]
) -> tuple[list[Variable], list[tuple[int, int]]]:
    """The variables, and pairs (block, group inside it) of those that stay apart."""
    space = problem.space
    grids = {choice.name: _grid(choice.options) for choice in space.choices}
    owner = {name: block.name for block in space.blocks for name in inside[block.name]}
    too_many = {block for block in inside if prod(len(grids[name]) for name in inside[block]) >= JOINT}
    variables: list[Variable] = []
    for choice in space.choices:
        merged = isinstance(choice, BlockChoice) and choice.name not in too_many
        if not merged and owner.get(choice.name, choice.name) not in too_many and choice.name in owner:
            continue
        names = (choice.name, *inside[choice.name]) if merged else (choice.name,)
        rows = [row for row in itertools.product(*(grids[name] for name in names)) if not merged or row[0]]
        if merged and 0 in choice.options:
            rows.append((0, *(space[name].options[-1] for name in names[1:])))
        harm = [
            sum(_harm(damages, space[name], option) for name, option in zip(names, row, strict=True)) for row in rows
        ]
        values = np.array(rows, dtype=np.int64).reshape(len(rows), len(names))
        if merged:
            gone = values[:, 0] == 0
            harm = [
                _harm(damages, choice, 0) if dropped else value
                for dropped, value in zip(gone.tolist(), harm, strict=True)
            ]
        variables.append(Variable(names, values, np.array(harm, dtype=np.float64)))
    number = {variable.names[0]: i for i, variable in enumerate(variables)}
    apart = [(number[block], number[name]) for name, block in owner.items() if block in too_many]
    return variables, apart


def _grid(options: Sequence[int]) -> Sequence[int]:
    """At most `GRID` of the options, evenly, the ends among them."""
    if len(options) <= GRID:
        return options
    return [options[i] for i in sorted(set(np.rint(np.linspace(0, len(options) - 1, GRID)).astype(int).tolist()))]


def _harm(damages: Damages, choice: Choice, option: int) -> float:
    return float(damages.get(choice.name, {}).get(option, 0.0))


def _check(problem: Solvable, damages: Damages) -> None:
    known = {choice.name for choice in problem.space.choices}
    unknown = [name for name in damages if name not in known]
    if unknown:
        raise PlanError(f"damages are given for {unknown[:3]}, which are no choices of the search space")
    for choice in problem.space.choices:
        given = damages.get(choice.name, {})
        missing = [option for option in choice.options[:-1] if option not in given]
        if missing:
            raise InputError(
                f"choice {choice.name!r}: the damage of options {missing[:3]} is missing; give all but full"
            )
        bad = [value for value in given.values() if not (isfinite(value) and value >= 0)]
        if bad:
            raise InputError(f"choice {choice.name!r}: damages must be finite and not negative, got {bad[0]}")


def components(nodes: Iterable[int], neighbours: Sequence[set[int]]) -> Iterator[Scope]:
    """The connected sets of `nodes`, ascending."""
    left = set(nodes)
    while left:
        part, edge = set[int](), {min(left)}
        while edge:
            part |= edge
            edge = set().union(*(neighbours[i] for i in edge)) & left - part
        left -= part
        yield tuple(sorted(part))
