"""The decision with the least harm within a budget, when the harms of single options add up: an exact knapsack.

Costs are products of widths, so choices interact. Groups that multiply with many others (hubs, such as a residual
stream) are fixed, highest degree first, until what remains falls into small parts that share no product; then costs add
up over the parts and `pareto` solves the rest exactly. The hubs' widths come from the Lagrangian relaxation of
the whole problem (solved exactly by variable elimination where its tables are small), then by coordinate search:
neighbouring widths, and knapsacks over hubs and what is around them, first with few states; the last word is exact.

The result is exact for its hub widths; it is globally exact where there are no hubs, where all their combinations are
few enough to be tried (`COMBINATIONS`), and where it meets the bound of the relaxation. Grids above
`interplay.GRID` options are thinned evenly. Deterministic.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import prod

import numpy as np

from nasprune.space.choices import Decision
from nasprune.space.interplay import JOINT, Damages, Elimination, Interplay, Scope, Solvable, components
from nasprune.space.pareto import Dual, Floats, best_multipliers, best_pick, knapsack

__all__ = ["knapsack", "solve"]

COMBINATIONS = 64
STARTS = 8
STEPS = (1, -1, 2, -2)
ROUNDS = 20


def solve(problem: Solvable, damages: Damages) -> Decision:
    """The decision with the least total harm within the FLOPs and parameter limits of the problem's budget.

    Args:
        problem: the search space, its prices and the budget.
        damages: choice -> option -> estimated harm of taking that option alone, not negative. The last option (all
            kept) may be absent and is 0 then. A dropped block's harm replaces that of the groups inside it, which are
            returned at full width.

    Raises:
        BudgetError: even the smallest decision is over budget.
        PlanError: damages for something that is no choice.
        InputError: the damage of an option is missing, negative or not finite.
    """
    problem.require_feasible()
    interplay = Interplay(problem, damages)
    return interplay.decision(_Search(interplay, problem).run())


class _Search:
    """The best assignment so far, and the moves that improve it.

    _prices: harm per unit of each limited cost, a guess that refuses most moves without solving them.
    """

    def __init__(self, interplay: Interplay, problem: Solvable) -> None:
        self._of = interplay
        self._problem = problem
        self._neighbours = interplay.neighbours()
        self._sizes = [len(variable) for variable in interplay.variables]
        self._hubs = self._conditioned()
        self._parts = self._parts_without(self._hubs)
        self._prices: Floats | None = None
        self._best: dict[int, int] = {}
        self._harm = float("inf")
        self._bound = -float("inf")

    def run(self) -> dict[int, int]:
        hubs = self._hubs
        if prod(self._sizes[i] for i in hubs) <= COMBINATIONS:
            combinations = list(itertools.product(*(range(self._sizes[i] - 1, -1, -1) for i in hubs)))
            for exact in (False, True):
                for options in combinations:
                    self._try(self._parts, dict(zip(hubs, options, strict=True)), exact=exact)
            return self._best
        for start in self._starts():
            self._try(self._parts, start)
        others = [self._parts_around(hub) for hub in hubs]
        for _ in range(ROUNDS):
            before = self._harm
            for hub, parts in zip(hubs, others, strict=True):
                self._try(parts, self._best)
                for step in STEPS:
                    option = self._best[hub] + step
                    if 0 <= option < self._sizes[hub] and self._harm > self._bound:
                        self._try(self._parts, {**self._best, hub: option})
            if self._harm >= before:
                break
        self._try(self._parts, self._best, exact=True)
        return self._best

    def _try(self, parts: Sequence[Scope], assignment: dict[int, int], *, exact: bool = False) -> None:
        """Solves for `parts`, the rest as assigned, and keeps the result if it is better."""
        items, fixed = self._of.items(parts, assignment)
        limits = self._of.limits - np.rint(fixed[1:]).astype(np.int64)
        guess = None
        if self._prices is not None:
            guess = self._prices * np.maximum(limits, 1)
        found = best_pick(items, limits, below=self._harm - float(fixed[0]), multipliers=guess, exact=exact)
        if found is None:
            return
        if self._bound == -float("inf"):
            self._prices = found.multipliers / np.maximum(limits, 1)
        chosen = dict(assignment)
        for part, option in zip(parts, found.options, strict=True):
            shape = tuple(self._sizes[i] for i in part)
            chosen |= dict(zip(part, map(int, np.unravel_index(option, shape)), strict=True))
        self._best, self._harm = chosen, found.harm + float(fixed[0])

    def _starts(self) -> list[dict[int, int]]:
        """Assignments of which at least one leaves a solution for its hubs, the most promising first."""
        visited: list[Dual] = []
        elimination = Elimination(self._of)
        if elimination.possible:

            def visit(point: Floats) -> Dual:
                visited.append(elimination.at(point))
                return visited[-1]

            scale = float(sum(np.ptp(variable.harm) for variable in self._of.variables))
            multipliers = best_multipliers(visit, len(self._of.limits), scale)
            self._prices = multipliers / np.maximum(self._of.limits, 1)
            self._bound = max(dual.value for dual in visited)
        found: dict[tuple[int, ...], dict[int, int]] = {}
        for dual in sorted(visited, key=lambda dual: -dual.value):
            found.setdefault(tuple(dual.options[i] for i in self._hubs), dict(enumerate(dual.options)))
        space = self._problem.space
        scaled = [space.scaled(share) for share in np.linspace(1, 0, 41).tolist()]
        fitting = [
            decision
            for decision, cost in zip(scaled, self._problem.costs(scaled), strict=True)
            if self._problem.budget.allows(cost)
        ]
        smallest = Decision.of({**space.smallest(), **{block.name: block.options[-1] for block in space.blocks}})
        return [*list(found.values())[:STARTS], *map(self._of.assignment, [*fitting[:1], smallest])]

    def _conditioned(self) -> list[int]:
        """The variables to fix so that connected parts have at most `JOINT` options together."""
        hubs: list[int] = []
        while True:
            large = [part for part in self._parts_without(hubs) if prod(self._sizes[i] for i in part) > JOINT]
            candidates = [i for part in large if len(part) > 1 for i in part]
            if not candidates:
                return hubs
            hubs.append(max(candidates, key=lambda i: (len(self._neighbours[i] - set(hubs)), -i)))

    def _parts_without(self, fixed: Sequence[int]) -> list[Scope]:
        return list(components(set(range(len(self._sizes))) - set(fixed), self._neighbours))

    def _parts_around(self, hub: int) -> list[Scope]:
        """A hub and, as long as parts keep to `JOINT` options, its neighbours, other hubs, and all others."""
        free = {hub}
        group: dict[int, Scope] = {hub: (hub,)}
        for i in [*sorted(self._neighbours[hub]), *self._hubs, *range(len(self._sizes))]:
            if i not in free:
                merged: Scope = tuple(sorted({i}.union(*(group[j] for j in self._neighbours[i] & free))))
                if prod(self._sizes[j] for j in merged) <= JOINT or len(merged) == 1:
                    free.add(i)
                    group |= dict.fromkeys(merged, merged)
        return sorted(set(group.values()))
