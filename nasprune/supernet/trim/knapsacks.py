"""Which candidates stay, exactly: subsets of the candidates of a choice are the options of one knapsack item.

What a candidate is worth is what is lost without it, so worths add up and costs do too; `space.pareto` solves the rest.
With S candidates a choice has 2**S - 1 subsets, of which the dominated ones go at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nasprune.cost.units import short
from nasprune.errors import BudgetError, InputError
from nasprune.space.choices import OpChoice
from nasprune.space.pareto import Item, best_pick

MOST = 14
"""Candidates of a choice, at most."""
TINY = 1e-6
"""Worth of a candidate without any, as a share of the largest: it stays where there is room."""

Floats = npt.NDArray[np.float64]


def best_subsets(
    choices: Sequence[OpChoice],
    scores: Mapping[str, Tensor],
    costs: Mapping[str, Sequence[int]],
    limit: int | None,
    keep_max: Mapping[str, int],
    say: Callable[[float], str] = short,
) -> dict[str, tuple[int, ...]]:
    """For each choice the candidates to keep: the greatest sum of worths whose cost is at most `limit`.

    At least one candidate that connects stays of every choice. Negative scores count as zero; the rank decides between
    candidates of no worth, and of equal ones the first stays.

    Args:
        scores: choice -> (ops,), what is lost without each candidate.
        costs: choice -> cost of each candidate over all tied mixed operations.
        limit: of the sum over all choices; `None` is none.
        keep_max: choice -> how many candidates may stay.
        say: costs in words.

    Raises:
        BudgetError: the cheapest candidates together are above the limit.
        InputError: a choice has more than 14 candidates.
    """
    largest = max((float(scores[choice.name].max()) for choice in choices), default=0.0)
    items, subsets = [], []
    for choice in choices:
        worths = _worths(choice, scores[choice.name], max(largest, TINY))
        found = _subsets(choice, keep_max[choice.name])
        subsets.append(found)
        items.append(
            Item(
                np.array([[sum(costs[choice.name][i] for i in subset)] for subset in found], dtype=np.int64),
                np.array([worths.sum() - sum(worths[i] for i in subset) for subset in found]),
            )
        )
    least = sum(int(item.costs.min()) for item in items)
    most = sum(int(item.costs.max()) for item in items)
    if limit is not None and least > limit:
        raise BudgetError(
            f"the candidates that cost least need {say(least)} together, {say(limit)} are left for them; "
            "raise the budget"
        )
    pick = best_pick(items, np.array([most if limit is None else limit], dtype=np.int64))
    if pick is None:
        raise BudgetError(f"no selection keeps the limit of {short(limit or 0)}; raise the budget")
    chosen = zip(choices, subsets, pick.options, strict=True)
    return {choice.name: found[option] for choice, found, option in chosen}


def _worths(choice: OpChoice, scores: Tensor, largest: float) -> Floats:
    """(ops,), positive, in the order of the scores; of equal ones the first is worth most, `none` always least."""
    values = scores.double().clone()
    values[list(choice.empty)] = -torch.inf
    ranks = len(values) - (-values).argsort(stable=True).argsort()
    return (values.clamp(min=0) + TINY * largest * ranks / len(ranks)).numpy()


def _subsets(choice: OpChoice, most: int) -> list[tuple[int, ...]]:
    count = len(choice.ops)
    if count > MOST:
        raise InputError(f"choice {choice.name!r} has {count} candidates, at most {MOST} can be weighed; split it up")
    connecting = set(choice.connecting or range(count))
    sizes = range(1, min(max(most, 1), count) + 1)
    return [subset for size in sizes for subset in combinations(range(count), size) if connecting & set(subset)]
