"""How the space that stays compares with random ones of equal cost, by the scorer's own worths: that is no accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import torch

from nasprune.errors import BudgetError
from nasprune.supernet.price.limits import Limit
from nasprune.supernet.structure.structure import Structure
from nasprune.supernet.trim.schedules import Stage
from nasprune.supernet.trim.trimming import choose

NEAR = 0.05
"""Costs that are no further apart, as a share, are equal."""
FEWEST = 20

Kept = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Standing:
    """percentile: how many per cent of `spaces` random ones are worth less, ties counting half."""

    percentile: float
    spaces: int

    def __str__(self) -> str:
        return (
            "by the scorer's own worths, which are no accuracies, what stays is worth more than "
            f"{self.percentile:.0f} % of {self.spaces} random selections of equal cost"
        )


def random_selections(
    structure: Structure, stage: Stage, limit: Limit | None, seed: int, draws: int
) -> list[dict[str, tuple[int, ...]]]:
    """What random worths keep, through the same knapsack."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(draws):
        worths = {
            one.name: torch.rand(len(one.ops), generator=generator, dtype=torch.float64, device="cpu")
            for one in structure.choices
        }
        try:
            found.append(choose(structure, worths, stage, limit))
        except BudgetError:  # what fits only just may be out of reach of a stage's share of the scores
            return []
    return found


def standing(
    structure: Structure,
    scores: Mapping[str, Mapping[str, float]],
    kept: Mapping[str, Sequence[str]],
    selections: Sequence[Kept],
    limit: Limit,
) -> Standing | None:
    """Where the kept candidates stand among random selections of equal cost; `None` where there are too few of those.

    Args:
        scores: choice -> candidate -> score. kept: choice -> names of the candidates that stay.
        selections: random ones. limit: the counter in which costs are compared.
    """
    numbers = {one.name: tuple(one.ops.index(op) for op in kept.get(one.name, ())) for one in structure.choices}
    if any(set(scores[one.name]) != set(one.ops) for one in structure.choices):
        return None
    cost, own = _cost(structure, numbers, limit), _worth(structure, scores, numbers)
    near = [one for one in selections if abs(_cost(structure, one, limit) - cost) <= NEAR * cost]
    if len(near) < FEWEST:
        return None
    others = [_worth(structure, scores, one) for one in near]
    slack = 1e-9 * max(abs(own), *map(abs, others))
    below = sum(other < own - slack for other in others)
    equal = sum(abs(other - own) <= slack for other in others)
    return Standing(100 * (below + equal / 2) / len(others), len(others))


def _cost(structure: Structure, kept: Kept, limit: Limit) -> int:
    return structure.cost_of(limit.counter, {name: tuple(some) for name, some in kept.items()})


def _worth(structure: Structure, scores: Mapping[str, Mapping[str, float]], kept: Kept) -> float:
    """The worth of a network of the space, on average."""
    return sum(
        mean(scores[one.name][one.ops[op]] for op in kept[one.name]) for one in structure.choices if kept[one.name]
    )
