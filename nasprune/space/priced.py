"""Priced search spaces, and the repair that moves any decision to just under the budget.

A decision is a vector of option numbers. First a ray: all widths shrink (or grow) together, each with a random speed,
to the farthest point that the budget allows; then single steps, tried all at once, chosen at random among those that
still fit, until none does. So the result is as large as the budget permits and stays near the decision it came from.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from random import Random

import numpy as np
from torch import Tensor

from nasprune.cost.budget import Budget, Cost
from nasprune.cost.flops import CostModel
from nasprune.cut.selection import keep_order
from nasprune.errors import BudgetError, InputError
from nasprune.graph.model import Bools, Ints, ModelGraph
from nasprune.space.budgeted import BudgetedSpace
from nasprune.space.choices import BlockChoice, Decision, SearchSpace

RAY_POINTS = 16
RAY_ROUNDS = 3
FILLED = 0.98


class PricedSpace(BudgetedSpace):
    """A search space over one model, the exact cost of its decisions, and the repair of those over budget.

    Args:
        graph: the traced model.
        space: what may be decided.
        prices: predicts costs for this graph.
        budget: what the user asked for; shares are resolved against the dense model.
        spared: what the user asked to leave as it is, in words, "" for nothing; asked where the budget is not met.
    """

    def __init__(
        self,
        graph: ModelGraph,
        space: SearchSpace,
        prices: CostModel,
        budget: Budget,
        spared: Callable[[], str] = str,
    ) -> None:
        self._graph = graph
        self._space = space
        self._prices = prices
        self._budget = budget.resolve(prices.dense)
        self._spared = spared
        column = {name: i for i, name in enumerate(prices.names)}
        self._dense_row = prices.full
        self._columns = np.array([column[choice.name] for choice in space.choices], dtype=np.int64)
        self._last = np.array([len(choice.options) - 1 for choice in space.choices], dtype=np.int64)
        self._options = np.zeros((len(space.choices), int(self._last.max(initial=0)) + 1), dtype=np.int64)
        for i, choice in enumerate(space.choices):
            self._options[i, : len(choice.options)] = choice.options
        self._is_block = np.array([isinstance(choice, BlockChoice) for choice in space.choices], dtype=np.bool_)
        self._inside = _inside(graph, space)
        self._damages: Callable[[], Mapping[str, Mapping[int, float]]] | None = None
        self._scores: Callable[[], Mapping[str, Tensor]] | None = None

    @property
    def space(self) -> SearchSpace:
        return self._space

    @property
    def budget(self) -> Budget:
        return self._budget

    @property
    def graph(self) -> ModelGraph:
        return self._graph

    @property
    def prices(self) -> CostModel:
        return self._prices

    @property
    def dense(self) -> Cost:
        """The cost of the model as it is."""
        return self._prices.dense

    def costs(self, decisions: Sequence[Decision]) -> list[Cost]:
        """Exact predicted costs, one for each decision."""
        return self._prices.costs(decisions)

    @property
    def has_damages(self) -> bool:
        """Whether `damages` can measure any: the search has data."""
        return self._damages is not None

    def damages(self) -> Mapping[str, Mapping[int, float]]:
        """Choice -> option -> estimated harm, as measured by what `with_damages` was given.

        Raises:
            InputError: nothing was given, because the search has no data.
        """
        if self._damages is None:
            raise InputError("this controller needs damages measured on data; give some with `data=` (`--data`)")
        return self._damages()

    def with_damages(self, measure: Callable[[], Mapping[str, Mapping[int, float]]]) -> PricedSpace:
        """The same problem with a way to measure damages; it is called once, when they are asked for."""
        problem = copy.copy(self)
        problem._damages = cache(measure)
        return problem

    def damages_known(self) -> Mapping[str, Mapping[int, float]]:
        """`damages` where something has asked for them; measures nothing."""
        info = getattr(self._damages, "cache_info", None)
        return self.damages() if info is not None and info().currsize else {}

    def importances(self) -> Mapping[str, Sequence[float]]:
        """Width choice -> scores (width,) of its units in the order in which they stay, as `with_scores` gives them.

        Raises:
            InputError: nothing was given.
        """
        scores = self.scores()
        found: dict[str, Sequence[float]] = {}
        for choice in self._space.widths:
            order = keep_order(self._graph.group(choice.name), scores[choice.name])
            found[choice.name] = scores[choice.name].double()[list(order)].tolist()
        return found

    def scores(self) -> Mapping[str, Tensor]:
        """The criterion's scores of each group's units (width,), as `with_scores` was given them.

        Raises:
            InputError: nothing was given.
        """
        if self._scores is None:
            raise InputError("this controller needs the criterion's scores; give the space some with `with_scores`")
        return self._scores()

    def with_scores(self, score: Callable[[], Mapping[str, Tensor]]) -> PricedSpace:
        """The same problem with a way to score units, group name -> (width,); it is called when they are asked for."""
        problem = copy.copy(self)
        problem._scores = score
        return problem

    def within(self, budget: Budget) -> PricedSpace:
        """The same problem with another budget; what was measured for it stays."""
        problem = copy.copy(self)
        problem._budget = budget.resolve(self.dense)
        return problem

    def cheapest(self) -> Cost:
        """The cost of the smallest decision."""
        return self.costs([self._space.smallest()])[0]

    def require_feasible(self) -> None:
        """Raises BudgetError where even the smallest decision is over budget; names what is frozen and why."""
        least = self.cheapest()
        if not self._budget.allows(least):
            raise self.out_of_reach(str(self._budget), str(least))

    def out_of_reach(self, asked: str, least: str) -> BudgetError:
        """What to say of a budget that nothing keeps. least: what the smallest network costs, in words."""
        if left := self._spared():
            return BudgetError(
                f"the budget of {asked} cannot be met: the least reachable is {least}, since {left}; name less there, "
                "or raise the budget"
            )
        frozen = [group.frozen_because for group in self._graph.groups if group.frozen_because is not None]
        reasons = "; ".join(f"{count} × {reason}" for reason, count in Counter(frozen).most_common(3))
        why = f" ({reasons})" if reasons else ""
        if not self._space.choices:
            return BudgetError(
                f"the budget of {asked} cannot be met: the model costs {least}, and nothing of it can be cut{why}; "
                "`nasprune inspect` says why each part stays"
            )
        return BudgetError(
            f"the budget of {asked} cannot be met: the least reachable is {least} with {len(frozen)} of "
            f"{len(self._graph.groups)} groups frozen{why}; raise the budget or free more groups"
        )

    def fit(self, decision: Decision, rng: Random, *, grow: bool = True) -> Decision:
        """The decision moved to just under the budget; the same for the same decision and state of `rng`.

        Widths shrink first and blocks go only when widths do not suffice; then widths grow, and a dropped block comes
        back only where they leave more than 2 % of the budget unused; without `grow` nothing grows. Groups inside a
        dropped block are set to their full width, so that equal networks are equal decisions.

        Raises:
            BudgetError: the space has no decision within the budget.
        """
        self._space.check(decision)
        state = np.array(
            [choice.options.index(decision[choice.name]) for choice in self._space.choices], dtype=np.int64
        )
        if state.size:
            state = self._shrunk(self._canonical(state), rng)
            state = self._grown(state, rng) if grow else state
        return Decision.of(
            {choice.name: choice.options[i] for choice, i in zip(self._space.choices, state.tolist(), strict=True)}
        )

    def _shrunk(self, state: Ints, rng: Random) -> Ints:
        if self._allowed(state[None])[0]:
            return state
        floor = np.where(self._is_block, state, 0)
        while not self._allowed(floor[None])[0]:
            alive = np.flatnonzero(self._is_block & (floor > 0))
            if not alive.size:
                self.require_feasible()
            gone = rng.choice(alive.tolist())
            state, floor = state.copy(), floor.copy()
            state[gone] = floor[gone] = 0
        return self._canonical(self._along(state, floor, rng))

    def _grown(self, state: Ints, rng: Random) -> Ints:
        while True:
            if self._fill(state) < FILLED:
                state = self._along(np.where(self._is_block, state, self._last), state, rng)
            while (fitting := self._fitting(state)).size:
                state = state.copy()
                state[rng.choice(fitting.tolist())] += 1
            if self._fill(state) >= FILLED:
                return state
            trials = self._with_a_block_back(state)
            fits = np.flatnonzero(self._allowed(trials))
            if not fits.size:
                return state
            state = trials[rng.choice(fits.tolist())]

    def _fitting(self, state: Ints) -> Ints:
        """The widths that can go up one option within the budget."""
        movable = np.flatnonzero(~self._is_block & (state < self._last))
        trials = np.repeat(state[None], movable.size, axis=0)
        trials[np.arange(movable.size), movable] += 1
        return movable[self._allowed(trials)]

    def _with_a_block_back(self, state: Ints) -> Ints:
        """For each dropped block the state with it, at its least widths, shape (dropped, choices)."""
        dropped = np.flatnonzero(self._is_block & (state == 0)).tolist()
        trials = np.repeat(state[None], len(dropped), axis=0)
        for trial, block in zip(trials, dropped, strict=True):
            trial[self._inside[block]] = 0
            trial[block] = 1
        return trials

    def _along(self, large: Ints, small: Ints, rng: Random) -> Ints:
        """The largest allowed point on a random ray from `large` down to `small`, which is allowed."""
        if self._allowed(large[None])[0]:
            return large.copy()
        speeds = np.array([0.25 + rng.random() ** 2 for _ in range(large.size)])
        low, high = 0.0, float(1 / speeds.min())
        best = small
        for _ in range(RAY_ROUNDS):
            times = np.linspace(low, high, RAY_POINTS + 1)[1:]
            share = np.minimum(times[:, None] * speeds, 1.0)
            points = large - np.rint(share * (large - small)).astype(np.int64)
            first = int(np.argmax(self._allowed(points)))
            best = points[first]
            low, high = (low if first == 0 else float(times[first - 1])), float(times[first])
        return best.copy()

    def _allowed(self, states: Ints) -> Bools:
        """Which option vectors (n, choices) are within budget, shape (n,)."""
        allowed = np.ones(len(states), dtype=np.bool_)
        if not len(states):
            return allowed
        table = self._prices.rows(self._rows(states))
        for quantity, limit in self._budget.limited.items():
            allowed &= getattr(table, quantity) <= limit
        return allowed

    def _fill(self, state: Ints) -> float:
        """The share of the tightest limit that one option vector uses."""
        return self._budget.fill(self._prices.rows(self._rows(state[None]))[0])

    def _rows(self, states: Ints) -> Ints:
        """Option vectors (n, choices) as what the price list reads: counts of all groups and blocks."""
        rows = np.repeat(self._dense_row[None], len(states), axis=0)
        rows[:, self._columns] = self._options[np.arange(self._columns.size), states]
        return rows

    def _canonical(self, state: Ints) -> Ints:
        """Full widths inside dropped blocks."""
        state = state.copy()
        for block, inner in self._inside.items():
            if state[block] == 0:
                state[inner] = self._last[inner]
        return state


def priced(problem: BudgetedSpace) -> PricedSpace:
    """The problem, for controllers that need its price list.

    Raises:
        InputError: it has none.
    """
    if not isinstance(problem, PricedSpace):
        raise InputError(f"the knapsack needs the price list of a PricedSpace, got a {type(problem).__name__}")
    return problem


def _inside(graph: ModelGraph, space: SearchSpace) -> Mapping[int, Ints]:
    """Number of each block choice -> numbers of the choices of the groups that live only inside it."""
    number = {choice.name: i for i, choice in enumerate(space.choices)}
    return {
        number[block.name]: np.array([number[name] for name in block.groups if name in number], dtype=np.int64)
        for block in graph.blocks
        if block.name in number
    }
