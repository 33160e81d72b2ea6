"""The exact multiple-choice knapsack with one or several limits: one option per item, least total harm.

Dynamic programming over the items keeps the states (costs, harm) that no other state beats in every number. A state
goes early when it cannot end below the best solution known, by the bound of the Lagrangian relaxation (Pisinger 1995,
"A minimal algorithm for the multiple-choice knapsack problem"; its multipliers are found by bisection, or by the
ellipsoid method for several limits). Costs are integers and compared exactly.

Should more than `STATES` states remain after an item, they are thinned: the costs are cut into cells and only the least
harm of each cell stays, with its own costs, so that limits are always kept. The cells have sides of a 2**-16 of the
limit, doubled while that does not suffice; with n thinned items and sides of a share s of the limit the result is at
least as good as the optimum for limits that are smaller by the share n · s. Only then, and with several limits, may an
allowed selection be missed where hardly any exists.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nasprune.errors import BudgetError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

STATES = 20_000
ROUGH = 400
CHUNK = 1_000_000
CELLS = 2**16
BISECTIONS = 40
ELLIPSOIDS = 80
MARGIN = 1e-9


@dataclass(frozen=True)
class Item:
    """Options to pick one from. costs: (options, limits), not negative. harm: (options,)."""

    costs: Ints
    harm: Floats


@dataclass(frozen=True)
class Pick:
    """A solution: one option number per item, their total harm, and the multipliers that it was found with."""

    options: tuple[int, ...]
    harm: float
    multipliers: Floats


def knapsack(options: Sequence[Sequence[tuple[Sequence[int], float]]], limits: Sequence[int]) -> list[int]:
    """The number of the option to take of each item so that the harms' sum is least and no limit is exceeded.

    Args:
        options: for each item its options, (costs, harm) each, one cost for each limit.
        limits: inclusive.

    Raises:
        BudgetError: no selection keeps the limits.
    """
    items = [
        Item(
            np.array([costs for costs, _ in item], dtype=np.int64).reshape(len(item), len(limits)),
            np.array([harm for _, harm in item], dtype=np.float64),
        )
        for item in options
    ]
    found = best_pick(items, np.array(limits, dtype=np.int64))
    if found is None:
        raise BudgetError(f"no selection of {len(items)} options keeps the limits {list(limits)}; raise them")
    return list(found.options)


def best_pick(
    items: Sequence[Item],
    limits: Ints,
    *,
    below: float = float("inf"),
    multipliers: Floats | None = None,
    exact: bool = True,
) -> Pick | None:
    """The least harm within `limits` (limits,) if it is less than `below`, else `None`.

    multipliers: (limits,), a guess of the harm per share of each limit; a good one refuses a hopeless case at once.
    exact: otherwise only `ROUGH` states are kept, and something less may exist.
    """
    kept = [undominated(item.costs, item.harm) for item in items]
    relaxed = _Relaxation(
        [Item(item.costs[keep], item.harm[keep]) for item, keep in zip(items, kept, strict=True)], limits
    )
    if multipliers is not None and relaxed.at(multipliers).value >= below + relaxed.margin:
        return None
    known: dict[tuple[int, ...], float] = {}

    def visit(point: Floats) -> Dual:
        dual = relaxed.at(point)
        if relaxed.allows(dual.options):
            known.setdefault(dual.options, relaxed.harm(dual.options))
        return dual

    point = best_multipliers(visit, len(limits), relaxed.scale)
    starts = sorted(known, key=lambda options: (known[options], options))[:3]
    cheapest = relaxed.cheapest()
    if not starts and relaxed.allows(cheapest):
        starts = [cheapest]
    incumbent: Pick | None = None
    for start in starts:
        filled = relaxed.filled(start, point)
        if incumbent is None or filled.harm < incumbent.harm:
            incumbent = filled
    for states in (ROUGH, STATES) if exact else (ROUGH,):
        incumbent = relaxed.improved(point, incumbent, below, states)
    found = incumbent
    if found is None or found.harm >= below:
        return None
    return Pick(tuple(int(keep[option]) for keep, option in zip(kept, found.options, strict=True)), found.harm, point)


@dataclass(frozen=True)
class Dual:
    """A relaxation at one point: its value, a lower bound; its ascent direction (limits,); the options it takes."""

    value: float
    excess: Floats
    options: tuple[int, ...]


def best_multipliers(at: Callable[[Floats], Dual], limits: int, scale: float) -> Floats:
    """The point, not negative, where the concave bound is highest, or near it. scale: a harm to start from."""
    best_point = np.zeros(limits)
    best = at(best_point)
    if not limits or (best.excess <= 0).all():
        return best_point
    high = max(scale, 1e-12)
    for _ in range(60):
        dual = at(np.full(limits, high))
        if dual.value > best.value:
            best_point, best = np.full(limits, high), dual
        if (dual.excess <= 0).all():
            break
        high *= 4
    if limits == 1:
        low = 0.0
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            dual = at(np.array([middle]))
            if dual.value > best.value:
                best_point, best = np.array([middle]), dual
            low, high = (middle, high) if dual.excess[0] > 0 else (low, middle)
        return best_point
    centre = np.full(limits, high / 2)
    shape = np.eye(limits) * limits * (high / 2) ** 2
    for _ in range(ELLIPSOIDS):
        if (centre < 0).any():
            cut = -np.eye(limits)[int(centre.argmin())]
        else:
            dual = at(centre)
            if dual.value > best.value:
                best_point, best = centre.copy(), dual
            cut = -dual.excess
        length = float(cut @ shape @ cut)
        if length <= 0:
            break
        step = shape @ cut / length**0.5
        centre = centre - step / (limits + 1)
        shape = limits**2 / (limits**2 - 1) * (shape - 2 / (limits + 1) * np.outer(step, step))
    return best_point


class _Relaxation:
    """A knapsack and its Lagrangian relaxation; costs are weighed as shares of the limits."""

    def __init__(self, items: Sequence[Item], limits: Ints) -> None:
        self._items = items
        self._limits = limits
        self._shares = [item.costs / np.maximum(limits, 1) for item in items]
        self.scale = float(sum(np.ptp(item.harm) for item in items))
        self.margin = MARGIN * (1 + sum(float(np.abs(item.harm).max(initial=0)) for item in items))

    def at(self, point: Floats) -> Dual:
        value, options = 0.0, []
        used = np.zeros(len(self._limits))
        for item, share in zip(self._items, self._shares, strict=True):
            weighed = item.harm + share @ point
            option = int(weighed.argmin())
            options.append(option)
            value += float(weighed[option])
            used += share[option]
        room = self._limits / np.maximum(self._limits, 1)
        return Dual(value - float(room @ point), used - room, tuple(options))

    def harm(self, options: Sequence[int]) -> float:
        return float(sum(item.harm[option] for item, option in zip(self._items, options, strict=True)))

    def cost(self, options: Sequence[int]) -> Ints:
        total: Ints = np.zeros(len(self._limits), dtype=np.int64)
        for item, option in zip(self._items, options, strict=True):
            total = total + item.costs[option]
        return total

    def allows(self, options: Sequence[int]) -> bool:
        return bool((self.cost(options) <= self._limits).all())

    def cheapest(self) -> tuple[int, ...]:
        return tuple(int(share.sum(axis=1).argmin()) for share in self._shares)

    def filled(self, options: Sequence[int], point: Floats) -> Pick:
        """Single options exchanged for the least harm while they fit."""
        picked = list(options)
        while True:
            room = self._limits - self.cost(picked)
            gains = []
            for i, item in enumerate(self._items):
                fits = (item.costs - item.costs[picked[i]] <= room).all(axis=1)
                gain = np.where(fits, item.harm[picked[i]] - item.harm, 0.0)
                gains.append((float(gain.max()), -i, int(gain.argmax())))
            gain_, minus, option = max(gains, default=(0.0, 0, 0))
            if gain_ <= 0:
                return Pick(tuple(picked), self.harm(picked), point)
            picked[-minus] = option

    def improved(self, point: Floats, incumbent: Pick | None, below: float, states: int) -> Pick | None:
        """The best selection below `below` and the incumbent; the incumbent where there is none."""
        ceiling = min(below, incumbent.harm if incumbent else np.inf)
        room = float((self._limits / np.maximum(self._limits, 1)) @ point)
        weighed = [item.harm + share @ point for item, share in zip(self._items, self._shares, strict=True)]
        least = [float(weights.min()) for weights in weighed]
        slack = ceiling - (sum(least) - room) + self.margin
        if slack <= self.margin:
            return incumbent
        alive = [np.flatnonzero(weights - low <= slack) for weights, low in zip(weighed, least, strict=True)]
        order = sorted(range(len(self._items)), key=lambda i: (-len(alive[i]), i))
        floor = np.zeros(
            (len(order) + 1, len(self._limits)), dtype=np.int64
        )  # the least that the items from one on cost
        for number in range(len(order) - 1, -1, -1):
            i = order[number]
            floor[number] = floor[number + 1] + self._items[i].costs[alive[i]].min(axis=0)
        costs: Ints = np.zeros((1, len(self._limits)), dtype=np.int64)
        harm, extra = np.zeros(1), np.zeros(1)
        trail: list[tuple[Ints, Ints]] = []
        for number, i in enumerate(order):
            item, picks = self._items[i], alive[i]
            over = weighed[i][picks] - least[i]
            parts = []
            step = max(1, CHUNK // max(len(picks), 1))
            for start in range(0, len(harm), step):
                rows = slice(start, start + step)
                fits = extra[rows, None] + over[None] <= slack
                for column in range(len(self._limits)):
                    most = self._limits[column] - floor[number + 1, column]
                    fits &= costs[rows, column, None] + item.costs[picks, column][None] <= most
                parts.append(np.argwhere(fits) + np.array([start, 0]))
            if not any(map(len, parts)):
                return incumbent
            pairs = np.concatenate(parts)
            state, pick = pairs[:, 0], pairs[:, 1]
            costs, harm = costs[state] + item.costs[picks[pick]], harm[state] + item.harm[picks[pick]]
            extra = extra[state] + over[pick]
            keep = self._thinned(costs, harm, states)
            costs, harm, extra = costs[keep], harm[keep], extra[keep]
            trail.append((state[keep], picks[pick[keep]]))
        if not len(harm) or float(harm.min()) >= ceiling:
            return incumbent
        at = int(harm.argmin())
        options = [0] * len(order)
        for i, (came_from, picked) in zip(reversed(order), reversed(trail), strict=True):
            options[i] = int(picked[at])
            at = int(came_from[at])
        return Pick(tuple(options), self.harm(options), point)

    def _thinned(self, costs: Ints, harm: Floats, most: int) -> Ints:
        """The numbers of the undominated states, `most` of them at most."""
        keep: Ints = np.arange(len(harm))
        cells = CELLS
        if len(keep) <= 8 * most or costs.shape[1] < 2:
            keep = undominated(costs, harm)
        while len(keep) > most:
            side = np.maximum(self._limits // cells, 1)
            cell = costs[keep] // side
            order = np.lexsort((harm[keep], *cell.T))
            cell = cell[order]
            first = np.append(True, (cell[1:] != cell[:-1]).any(axis=1))
            keep = keep[order[first]]
            if len(keep) <= 8 * most:
                keep = keep[undominated(costs[keep], harm[keep])]
            cells = max(cells // 2, 1)
        return keep


def undominated(costs: Ints, harm: Floats) -> Ints:
    """The numbers of the rows that no other row equals or beats in all of `costs` (n, limits) and `harm` (n,).

    Of equal rows the first stays. The result is sorted by costs.
    """
    order = np.lexsort((harm, *costs.T[::-1]))
    if costs.shape[1] < 2:
        sorted_harm = harm[order]
        before = np.append(np.inf, np.minimum.accumulate(sorted_harm)[:-1])
        if costs.shape[1] == 0:
            return order[:1]
        return order[sorted_harm < before]
    if costs.shape[1] > 2:
        return _undominated_pairwise(costs, harm, order)
    keep = []
    seconds: list[int] = []
    harms: list[float] = []  # falls where `seconds` rises
    for row, second, value in zip(order.tolist(), costs[order, 1].tolist(), harm[order].tolist(), strict=True):
        place = bisect_right(seconds, second)
        if place and harms[place - 1] <= value:
            continue
        keep.append(row)
        end = place
        while end < len(harms) and harms[end] >= value:
            end += 1
        if place and seconds[place - 1] == second:
            place -= 1
        seconds[place:end] = [second]
        harms[place:end] = [value]
    return np.array(keep, dtype=np.int64)


def _undominated_pairwise(costs: Ints, harm: Floats, order: Ints) -> Ints:
    keep: list[int] = []
    for row in order.tolist():
        if not any((costs[other] <= costs[row]).all() and harm[other] <= harm[row] for other in keep):
            keep.append(row)
    return np.array(keep, dtype=np.int64)
